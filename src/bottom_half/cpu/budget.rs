//! The time that softirqs have on leaving a top half.
//!
//! In a kernel nothing but other interrupts takes the processor from a softirq; here its thread may be set aside for milliseconds on a
//! busy host. That is no reason to leave the rest to a thread of lower priority, which such a host lets wait even longer. So when the
//! time is over, the thread gets as much again of time in which it runs, which costs a system call to know.

use crate::clock::Clock;

pub(super) struct Budget<'a> {
    clock: &'a dyn Clock,
    time: u64,
    /// Not to be looked at before.
    until: u64,
    /// The end, in time that this thread has run.
    end: Option<u64>,
}

impl<'a> Budget<'a> {
    /// Begins now; so many ns.
    pub fn new(clock: &'a dyn Clock, time: u64) -> Self {
        Self { clock, time, until: clock.now().saturating_add(time), end: None }
    }

    /// For the thread that has begun it.
    pub fn is_used_up(&mut self) -> bool {
        let now = self.clock.now();
        if now < self.until {
            return false;
        }
        let Some(ran) = self.clock.ran() else { return true };
        let end = *self.end.get_or_insert(ran.saturating_add(self.time));
        self.until = now.saturating_add(end.saturating_sub(ran));
        ran >= end
    }
}
