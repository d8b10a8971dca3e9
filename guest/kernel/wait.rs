//! Waiting for something that an interrupt will bring about, without waiting for ever.

use crate::sched::{self, preempt::ComesLast};
use crate::testing::{Failure, TestResult};
use crate::time;

/// The longest wait in microseconds of wall time: generous, for hosts that are busy.
pub const PATIENCE_US: u64 = 5_000_000;

/// Looks again and again until the condition holds, with interrupts as they are; fails the test after [`PATIENCE_US`]. Where that is
/// allowed, all other threads of the CPU come first meanwhile.
#[track_caller]
pub fn for_condition(condition: impl Fn() -> bool) -> TestResult {
    // Most of what is waited for happens at once, and reading a clock costs an exit.
    for _ in 0..200 {
        if condition() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    let _last = ComesLast::new();
    let looking = || {
        let holds = condition();
        if !holds {
            sched::yield_now();
        }
        holds
    };
    if time::wait_until(PATIENCE_US, looking) {
        return Ok(());
    }
    Err(Failure::new(format_args!("waited in vain at {}", core::panic::Location::caller())))
}
