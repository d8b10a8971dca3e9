//! Snapshots that no 8259A pair can have made.

use super::*;

fn refused(change: impl FnOnce(&mut State)) {
    let mut state = PicPair::new().save();
    change(&mut state);
    assert!(PicPair::restore(&state).is_err(), "{state:x?}");
}

#[test]
fn states_that_cannot_be_are_refused() {
    assert_eq!(PicPair::restore(&PicPair::new().save()), Ok(PicPair::new()));
    refused(|s| s.master.latch = 1);
    refused(|s| s.master.lines = 1 << CASCADE_IRQ);
    refused(|s| s.master.elcr = 1);
    refused(|s| s.slave.elcr = 1);
    refused(|s| s.slave.base = 7);
    refused(|s| s.slave.lowest = 8);
    refused(|s| s.master.icw1 = 0x80);
    refused(|s| s.master.icw4 = 0xe0);
    refused(|s| s.master.phase = 1);
}
