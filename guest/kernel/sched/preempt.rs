//! Preemption: taking the CPU from a thread that has not given it away.
//!
//! `need_resched` says that it should happen. It happens on the way out of an interrupt, when a [`PreemptGuard`] ends, and when a
//! thread wakes another of a higher priority; never in handlers, in softirqs, with interrupts off or under such a guard.
//!
//! To read more: Linux, Documentation/locking/preempt-locking.rst.

use core::sync::atomic::Ordering;

use super::{Priority, reschedule, this_task};
use crate::arch::frame::Frame;
use crate::arch::percpu::this_cpu;
use crate::irq::entry;
use crate::softirq;
use crate::sync::without_interrupts;

/// The thread keeps its CPU while this lives (preempt_disable). It must not wait.
pub struct PreemptGuard(());

impl PreemptGuard {
    /// Forbids preemption once more.
    pub fn new() -> Self {
        this_cpu().preempt_count.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Default for PreemptGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PreemptGuard {
    /// The last one gives the CPU away if that was asked for meanwhile.
    fn drop(&mut self) {
        this_cpu().preempt_count.fetch_sub(1, Ordering::Relaxed);
        check();
    }
}

/// How many guards live on this CPU.
pub(crate) fn count() -> u32 {
    this_cpu().preempt_count.load(Ordering::Relaxed)
}

/// Switches if that is asked for and allowed here.
pub fn check() {
    if this_cpu().need_resched.load(Ordering::Relaxed) != 0 && entry::may_block() {
        without_interrupts(|| reschedule(true));
    }
}

/// The way out of an interrupt of code that had interrupts on.
pub(super) fn on_interrupt_exit(_: &mut Frame) {
    let asked = this_cpu().need_resched.load(Ordering::Relaxed) != 0;
    if asked && count() == 0 && !softirq::in_softirq() {
        reschedule(true);
    }
}

/// The thread comes last while this lives: it only waits for something, and whoever brings that about may be of low priority.
pub(crate) struct ComesLast(Option<Priority>);

impl ComesLast {
    pub(crate) fn new() -> Self {
        let lowers = entry::may_block();
        Self(this_task().filter(|_| lowers).map(|task| task.set_priority(Priority::Low)))
    }
}

impl Drop for ComesLast {
    fn drop(&mut self) {
        if let (Some(priority), Some(task)) = (self.0, this_task()) {
            task.set_priority(priority);
        }
    }
}
