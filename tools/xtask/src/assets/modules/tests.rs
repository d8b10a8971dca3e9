use super::*;

const DEP: &str = "\
kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/arch/x86/kvm/kvm.ko.xz kernel/virt/lib/irqbypass.ko.xz
kernel/arch/x86/kvm/kvm.ko.xz: kernel/virt/lib/irqbypass.ko.xz
kernel/virt/lib/irqbypass.ko.xz:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
";

#[test]
fn a_module_comes_after_all_it_needs_and_only_once() {
    let list = Dependencies::parse(DEP, "");
    assert_eq!(
        list.resolve(&["kvm_amd", "kvm"]).unwrap(),
        ["kernel/virt/lib/irqbypass.ko.xz", "kernel/arch/x86/kvm/kvm.ko.xz", "kernel/arch/x86/kvm/kvm-amd.ko.xz"]
    );
}

#[test]
fn dependencies_of_dependencies_are_followed_even_where_the_line_leaves_them_out() {
    let files = Dependencies::parse(DEP, "").resolve(&["virtio-pci"]).unwrap();
    assert_eq!(files.iter().map(|file| name(file)).collect::<Vec<_>>(), ["virtio_ring", "virtio", "virtio_pci"]);
}

#[test]
fn a_built_in_module_needs_no_file() {
    let list = Dependencies::parse(DEP, "kernel/virt/lib/irqbypass.ko\n");
    assert_eq!(list.resolve(&["kvm", "irqbypass"]).unwrap(), ["kernel/arch/x86/kvm/kvm.ko.xz"]);
}

#[test]
fn a_module_that_is_nowhere_is_named() {
    assert_eq!(Dependencies::parse(DEP, "").resolve(&["kvm", "tun"]), Err("tun".to_owned()));
}

#[test]
fn a_circle_ends() {
    assert_eq!(Dependencies::parse(DEP, "").resolve(&["a"]).unwrap().len(), 2);
}
