//! Made-up hosts: files in a temporary folder, and what the trial of /dev/kvm is to have given.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A host's files, removed when dropped.
struct Host(PathBuf);

impl Host {
    /// A host with these files.
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("tophalf-doctor-{}-{number}", std::process::id()));
        let host = Self(root);
        files.iter().for_each(|(path, text)| host.put(path, text));
        host
    }

    /// A host on which nothing is wrong: 8 CPUs, VT-x, all steady.
    fn good() -> Self {
        let host = Self::new(&[
            ("proc/cpuinfo", &cpuinfo("vmx constant_tsc nonstop_tsc")),
            ("proc/sys/kernel/osrelease", "6.1.0-44-amd64\n"),
            ("proc/loadavg", "0.10 0.20 0.30 1/99 1234\n"),
            ("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("sys/devices/system/cpu/smt/active", "0\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/devices/system/cpu/vulnerabilities/mds", "Not affected\n"),
            ("sys/module/kvm/parameters/halt_poll_ns", "200000\n"),
            ("sys/module/kvm_intel/parameters/ept", "Y\n"),
        ]);
        for cpu in 0..8 {
            host.put(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "performance\n");
            host.put(&format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state1/latency"), "2\n");
        }
        host
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("the temporary directory is writable");
        fs::write(path, text).expect("the temporary directory is writable");
    }

    fn with(self, path: &str, text: &str) -> Self {
        self.put(path, text);
        self
    }

    fn without(self, path: &str) -> Self {
        fs::remove_dir_all(self.0.join(path)).expect("it is there");
        self
    }

    fn report(&self, device: Device) -> Report {
        let modes = match device {
            Device::Usable => vec![Mode { name: "user", obstacle: None }],
            _ => Vec::new(),
        };
        conclude(Facts::read(&self.0), Trial { device, features: None, modes })
    }

    /// The only distortion of this host, which can be used.
    #[track_caller]
    fn distortion(&self) -> String {
        let report = self.report(Device::Usable);
        assert!(report.usable, "{report:?}");
        let [Finding { cause, remedy }] = &report.distortions[..] else { panic!("not one: {:?}", report.distortions) };
        format!("{cause}: {remedy}")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn cpuinfo(flags: &str) -> String {
    format!(
        "processor\t: 0\nmodel name\t: Maker Model 7\nflags\t\t: fpu {flags} sse\n\nprocessor\t: 1\nflags\t\t: other\n"
    )
}

/// The remedy for a host whose /dev/kvm is like this.
#[track_caller]
fn remedy(host: &Host, device: Device) -> String {
    let report = host.report(device);
    assert!(!report.usable);
    report.problem.expect("not usable for a reason").remedy
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

#[test]
fn nothing_is_wrong_with_a_good_host() {
    let report = Host::good().report(Device::Usable);
    assert!(report.usable && report.problem.is_none());
    assert_eq!(report.distortions, []);
    assert_eq!((report.kvm.kind, report.kvm.nested), (Kind::Intel, false));
    assert_eq!(report.kvm.module.as_deref(), Some("kvm_intel"));
    assert_eq!(report.kvm.parameters["kvm.halt_poll_ns"], "200000");
    assert_eq!((report.host.cpus, report.host.processor.as_str()), (8, "Maker Model 7"));
    assert_eq!(report.host.kernel, "6.1.0-44-amd64");
}

#[test]
fn a_host_that_says_nothing_is_no_error() {
    let report = Host::new(&[]).report(Device::Missing);
    assert_eq!((report.usable, report.kvm.kind, report.host.cpus), (false, Kind::None, 0));
    let garbage = Host::new(&[
        ("proc/cpuinfo", "\u{0}\n::\nflags\n"),
        ("proc/loadavg", "many"),
        ("proc/stat", "cpu a b c"),
        ("sys/devices/system/cpu/online", "7-0,x"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "-1"),
    ]);
    assert!(!Facts::read(&garbage.0).smt);
    assert!(!Facts::read(Path::new("/nonexistent")).container);
}

#[test]
fn which_kvm_it_is() {
    let kind = |host: Host| {
        let kvm = host.report(Device::Usable).kvm;
        (kvm.kind, kvm.nested)
    };
    let bare = || Host::good().without("sys/module/kvm_intel");
    assert_eq!(kind(bare().with("sys/module/kvm_amd/parameters/npt", "1")), (Kind::Amd, false));
    assert_eq!(kind(bare().with("sys/module/kvm_pvm/x", "")), (Kind::Software, false));
    assert_eq!(kind(bare()), (Kind::None, false));
    let guest = cpuinfo("svm hypervisor constant_tsc nonstop_tsc");
    let nested = bare().with("sys/module/kvm_amd/parameters/npt", "1").with("proc/cpuinfo", &guest);
    assert_eq!(kind(nested), (Kind::Amd, true));
}

#[test]
fn a_missing_device_is_remedied_according_to_the_host() {
    let none = || Host::good().without("sys/module");
    let cpu = |flags: &str| none().with("proc/cpuinfo", &cpuinfo(flags));
    assert_says(&remedy(&cpu("vmx"), Device::Missing), &["modprobe kvm_intel", "VT-x"]);
    assert_says(&remedy(&cpu("svm"), Device::Missing), &["modprobe kvm_amd", "SVM"]);
    assert_says(&remedy(&cpu("svm"), Device::NotLoaded), &["modprobe kvm_amd"]);
    assert_says(&remedy(&cpu("hypervisor"), Device::Missing), &["nested virtualization"]);
    assert_says(&remedy(&cpu(""), Device::Missing), &["firmware's setup", "another host"]);
    assert_says(&remedy(&Host::good(), Device::Missing), &["mknod /dev/kvm c 10 232"]);
    for mark in [".dockerenv", "run/.containerenv", "run/systemd/container"] {
        assert_says(&remedy(&Host::good().with(mark, ""), Device::Missing), &["--device /dev/kvm"]);
        let on_host = remedy(&cpu("vmx").with(mark, ""), Device::Missing);
        assert_says(&on_host, &["on the container's host", "modprobe kvm_intel", "--device /dev/kvm"]);
    }
}

#[test]
fn a_device_that_may_not_be_opened_or_is_something_else() {
    let denied = Device::Denied { remedy: "add yourself to group kvm".to_owned() };
    assert_eq!(remedy(&Host::good(), denied.clone()), "add yourself to group kvm");
    assert_says(&remedy(&Host::good().with(".dockerenv", ""), denied), &["group kvm", "--group-add"]);
    let odd = Device::Unusable { cause: "it is a pipe".to_owned(), remedy: "make it none".to_owned() };
    let report = Host::good().report(odd);
    assert_eq!(report.problem, Some(Finding::new("it is a pipe", "make it none")));
}

#[test]
fn a_default_mode_that_does_not_work_is_a_problem() {
    let modes =
        vec![Mode { name: "user", obstacle: Some("no memory".to_owned()) }, Mode { name: "split", obstacle: None }];
    let host = Host::good();
    let trial = Trial { device: Device::Usable, features: None, modes };
    let report = conclude(Facts::read(&host.0), trial);
    assert!(!report.usable);
    assert_says(&report.problem.expect("a problem").cause, &["mode user", "no memory"]);
}

#[test]
fn each_distortion_is_found() {
    let cpu = "sys/devices/system/cpu";
    let slow = format!("{cpu}/cpu3/cpufreq/scaling_governor");
    assert_says(&Host::good().with(&slow, "powersave").distortion(), &["powersave on 1 of 8", "cpupower"]);
    assert_says(&Host::good().with(&format!("{cpu}/smt/active"), "1").distortion(), &["SMT", "taskset"]);
    assert_says(&Host::good().with(&format!("{cpu}/online"), "0-1").distortion(), &["2 CPUs", "fewer vCPUs"]);
    assert_says(&Host::good().with(&format!("{cpu}/online"), "0").distortion(), &["1 CPU:"]);
    let load = Host::good().with("proc/loadavg", "4.10 0 0 1/2 3");
    assert_says(&load.distortion(), &["load 4.10 on 8", "nothing else"]);
    let stolen = Host::good().with("proc/stat", "cpu  40 0 0 50 0 0 0 10 40 0");
    assert_says(&stolen.distortion(), &["10.0%"]);
    let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    assert_says(&Host::good().with(clock, "hpet").distortion(), &["hpet", "dmesg"]);
    let unsteady = Host::good().with("proc/cpuinfo", &cpuinfo("vmx constant_tsc"));
    assert_says(&unsteady.distortion(), &["TSC is not steady"]);
    let ept = Host::good().with("sys/module/kvm_intel/parameters/ept", "N");
    assert_says(&ept.distortion(), &["kvm_intel.ept", "ept=1"]);
    let vmscape = format!("{cpu}/vulnerabilities/vmscape");
    let flushed = Host::good().with(&vmscape, "Mitigation: IBPB before exit to userspace\n");
    assert_says(&flushed.distortion(), &["vmscape", "compare"]);
    let idle = Host::good().with(&format!("{cpu}/cpu0/cpuidle/state3/latency"), "890\n");
    assert_says(&idle.distortion(), &["890 us", "idle-set"]);
    let disabled = Host::good()
        .with(&format!("{cpu}/cpu0/cpuidle/state3/latency"), "890\n")
        .with(&format!("{cpu}/cpu0/cpuidle/state3/disable"), "1\n");
    assert_eq!(disabled.report(Device::Usable).distortions, []);
    let nested = Host::good().with("proc/cpuinfo", &cpuinfo("vmx hypervisor constant_tsc nonstop_tsc"));
    assert_says(&nested.distortion(), &["nested", "machine itself"]);
    let software = Host::good().without("sys/module/kvm_intel").with("sys/module/kvm_pvm/x", "");
    assert_says(&software.distortion(), &["kvm_pvm", "interpreted"]);
}
