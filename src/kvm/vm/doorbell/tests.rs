use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;

const AT: u64 = 0xfebf_0000;

#[test]
fn a_doorbell_is_connected_once_and_can_be_connected_again_after_it_was_undone() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    for matching in [Match::Any, Match::U16(3), Match::U32(3)] {
        vm.connect_event(AT, matching, &event).unwrap();
        assert!(vm.connect_event(AT, matching, &event).is_err(), "{matching:?} twice");
        vm.disconnect_event(AT, matching, &event).unwrap();
        assert!(vm.disconnect_event(AT, matching, &event).is_err(), "{matching:?} is gone");
        vm.connect_event(AT, matching, &event).unwrap();
        vm.disconnect_event(AT, matching, &event).unwrap();
    }
}

#[test]
fn different_values_at_one_address_are_different_doorbells() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    let events = [EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap()];
    for (value, event) in (0..).zip(&events) {
        vm.connect_event(AT, Match::U16(value), event).unwrap();
    }
    assert!(vm.disconnect_event(AT, Match::U16(0), &events[1]).is_err(), "that is the other's");
}
