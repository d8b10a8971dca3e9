use super::*;

#[test]
fn a_missing_device_names_the_modules_to_load() {
    let e = Kvm::open_at(Path::new("/dev/there-is-no-such-kvm")).unwrap_err();
    assert!(e.to_string().contains("/dev/there-is-no-such-kvm does not exist"), "{e}");
    assert!(e.remedy().unwrap().contains("modprobe"), "{e}");
}

#[test]
fn a_file_that_is_not_kvm_is_refused() {
    let e = Kvm::open_at(Path::new("/dev/null")).unwrap_err();
    assert!(e.to_string().contains("/dev/null is not the KVM device"), "{e}");
}

#[test]
fn no_permission_names_the_group_if_one_would_help() {
    let e = cannot_open(Path::new("/dev/null"), &io::Error::from_raw_os_error(libc::EACCES));
    assert!(matches!(&e, Error::Host { cause, .. } if cause.contains("no permission")), "{e}");
    assert!(e.remedy().unwrap().contains("run as root"), "the null device belongs to root's group: {e}");
    assert_eq!(group_name("root:x:0:\nkvm:x:107:me,you\n", 107).as_deref(), Some("kvm"));
    assert_eq!(group_name("root:x:0:\nkvm:x:107:me,you\n", 10), None);
    assert_eq!(group_name("broken\n::\n", 107), None);
}

#[test]
fn a_missing_capability_is_named_with_the_kernel_that_has_it() {
    let e = missing("KVM_CAP_X86_MSR_FILTER", "5.10");
    assert_eq!(e.to_string(), "this host's KVM lacks KVM_CAP_X86_MSR_FILTER; it needs Linux 5.10 or newer");
}

#[test]
fn this_hosts_kvm_can_be_asked() {
    let Some(kvm) = crate::testing::kvm() else { return };
    assert!(kvm.max_vcpus() >= 1);
    assert!(kvm.supported_cpuid().unwrap().iter().any(|e| e.function == 1));
    assert!(kvm_available());
}
