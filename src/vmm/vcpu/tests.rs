//! What of a vCPU needs no KVM.

use super::*;

/// A guest that sets its TSC forward with a deadline armed had it come when the timer had been set to go off: much too late,
/// or, while it ran without exits, never.
#[test]
fn a_timer_set_for_a_tsc_deadline_is_set_again_when_the_guest_moves_its_tsc() {
    let (by_tsc, by_clock) = (Some(Deadline::Tsc(5_000)), Some(Deadline::At(5_000)));
    let mut armed = Armed { at: Some(100), deadline: by_tsc };
    assert!(armed.serves(by_tsc, 99));
    assert!(!armed.serves(by_tsc, 100), "it has gone off");
    assert!(!armed.serves(Some(Deadline::Tsc(4_999)), 99));
    armed.tsc_moved();
    assert!(!armed.serves(by_tsc, 99));
    assert_eq!(armed.at, Some(100), "still to be switched off, should nobody want it");
    let mut armed = Armed { at: Some(100), deadline: by_clock };
    armed.tsc_moved();
    assert!(armed.serves(by_clock, 99), "the clock did not move");
}
