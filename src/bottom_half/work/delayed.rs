//! Work that is queued after a delay.

use std::sync::Arc;

use super::{Queued, Work, WorkQueue};
use crate::clock::Clock;
use crate::context::Process;
use crate::cpu::Cpu;
use crate::timer::Timer;

/// An item and the timeout that queues it, on one CPU. Dropping it cancels both.
pub struct DelayedWork {
    // Before the item, so that it goes first.
    timer: Timer,
    work: Arc<Work>,
    clock: Arc<dyn Clock>,
}

impl DelayedWork {
    /// Makes one whose timeout is on `cpu`, where a bound queue also runs it.
    pub fn new(queue: &WorkQueue, cpu: &Arc<Cpu>, function: impl Fn(&Process<'_>) + Send + Sync + 'static) -> Self {
        let work = Arc::new(queue.work(function));
        let expired = Arc::clone(&work);
        let timer = Timer::timeout(cpu, move |softirq| {
            // Already or refused is as good: it runs, or is not wanted.
            let _ = expired.queue_on(softirq.cpu());
            None
        });
        Self { timer, work, clock: Arc::clone(&queue.0.clock) }
    }

    /// Queues it after `delay` ns, unless it is pending (waiting for its time, or queued). Never blocks.
    pub fn queue_after(&self, delay: u64) -> Queued {
        if self.work.is_pending() || self.timer.start_if_idle(self.clock.now().saturating_add(delay)) {
            return Queued::Already;
        }
        Queued::Yes
    }

    /// Queues it after `delay` ns from now, whether it is waiting for its time or not; one that is queued runs when it
    /// does. True: it was waiting. Never blocks.
    pub fn modify(&self, delay: u64) -> bool {
        self.timer.start(self.clock.now().saturating_add(delay))
    }

    /// Cancels it; a run under way goes on. True: it was pending. Never blocks.
    pub fn cancel(&self) -> bool {
        let waiting = self.timer.cancel();
        self.work.cancel() || waiting
    }

    /// Cancels it and waits for the end of a run that is under way; queueing it meanwhile, by its own function too, is
    /// refused. True: it was pending.
    pub fn cancel_and_wait(&self, process: &Process<'_>) -> bool {
        let waiting = self.timer.cancel_and_wait(process);
        let queued = self.work.cancel_and_wait(process);
        // Its own function may have started the timeout.
        let again = self.timer.cancel_and_wait(process);
        waiting || queued || again
    }

    /// Queues it now if it is waiting for its time, and waits until it has run.
    pub fn flush(&self, process: &Process<'_>) {
        if self.timer.cancel_and_wait(process) {
            let _ = self.work.queue();
        }
        self.work.flush(process);
    }

    /// Pending: waiting for its time, or queued.
    pub fn is_pending(&self) -> bool {
        self.timer.is_pending() || self.work.is_pending()
    }
}

impl std::fmt::Debug for DelayedWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelayedWork").field("work", &self.work).finish_non_exhaustive()
    }
}
