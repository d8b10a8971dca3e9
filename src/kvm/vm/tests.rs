use super::*;
use vm_memory::GuestAddress;

fn range(base: u32, count: u32) -> MsrRange {
    MsrRange { base, count, read: true, write: true }
}

#[test]
fn overlapping_memory_is_refused() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    vm.add_memory(&memory).unwrap();
    let e = vm.add_memory(&memory).unwrap_err();
    assert!(matches!(e, Error::Call { call: "KVM_SET_USER_MEMORY_REGION", .. }), "{e}");
}

#[test]
fn several_regions_are_several_slots() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    let ranges = [(GuestAddress(0), 0x4000), (GuestAddress(1 << 32), 0x4000)];
    vm.add_memory(&GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap()).unwrap();
    assert_eq!(vm.inner.memory.lock().unwrap().used, 2);
}

#[test]
fn filters_kvm_would_misread_are_refused() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    assert!(vm.filter_msrs(&[range(0x10, 0)]).is_err(), "an empty range");
    assert!(vm.filter_msrs(&[MsrRange { read: false, write: false, ..range(0x10, 1) }]).is_err(), "neither way");
    assert!(vm.filter_msrs(&[range(0, 12_289)]).is_err(), "too long");
    assert!(vm.filter_msrs(&[range(0x10, 1); 17]).is_err(), "too many");
    vm.filter_msrs(&[range(0x10, 1); 16]).unwrap();
    vm.filter_msrs(&[range(0x10, 65)]).unwrap();
    vm.filter_msrs(&[]).unwrap();
}

#[test]
fn two_vcpus_cannot_have_the_same_number() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    let first = vm.create_vcpu(3).unwrap();
    assert_eq!(first.index(), 3);
    assert!(vm.create_vcpu(3).is_err());
}
