//! Snapshots that no I/O APIC can have made.

use super::*;

fn refused(change: impl FnOnce(&mut State)) {
    let mut state = IoApic::new(0).save();
    change(&mut state);
    assert!(IoApic::restore(0, &state).is_err(), "{state:x?}");
}

#[test]
fn states_that_cannot_be_are_refused() {
    assert_eq!(IoApic::restore(0, &IoApic::new(0).save()), Ok(IoApic::new(0)));
    refused(|s| s.id = 16);
    refused(|s| s.pins[3].entry |= 1 << 20);
    refused(|s| s.pins[3].entry |= 1 << 12);
    refused(|s| s.pins[3].entry = 1 << 14);
    refused(|s| s.pins[3].damped_until = Some(1));
    refused(|s| s.pins[3].refires = u32::MAX);
}
