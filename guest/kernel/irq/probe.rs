//! Finding out which line a device has: switch all free ones on, make the device interrupt, see which one came.
//!
//! To read more: Linux, kernel/irq/autoprobe.c.

use super::desc::{self, State};
use crate::sync::IrqLock;

/// One search at a time.
static PROBING: IrqLock<bool> = IrqLock::new(false);

/// Switches on all set-up numbers that nobody uses; false if another search is on.
pub fn probe_irq_on() -> bool {
    if core::mem::replace(&mut *PROBING.lock(), true) {
        return false;
    }
    for (_, desc) in desc::all() {
        let mut inner = desc.inner.lock();
        if inner.actions.is_empty() && inner.vector != 0 && inner.chip.can_mask() {
            inner.state |= State::AUTODETECT | State::WAITING;
            inner.unmask();
        }
    }
    true
}

/// Switches them off again, and gives the one that has come: `Ok(None)` if none has, `Err` with their number if it was more than one.
pub fn probe_irq_off() -> Result<Option<u32>, u32> {
    let mut found = None;
    let mut count = 0;
    for (irq, desc) in desc::all() {
        let mut inner = desc.inner.lock();
        if inner.state.contains(State::AUTODETECT) {
            if !inner.state.contains(State::WAITING) {
                found = found.or(Some(irq));
                count += 1;
            }
            inner.state -= State::AUTODETECT | State::WAITING | State::PENDING;
            inner.mask();
        }
    }
    *PROBING.lock() = false;
    if count > 1 { Err(count) } else { Ok(found) }
}
