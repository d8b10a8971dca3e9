//! Work queues: functions that run in a thread, where they may block.
//!
//! A *queue* says how its items run; the *pools* of workers behind it are shared by all queues of a kind:
//!
//! | queue | pools | at once |
//! |---|---|---|
//! | bound | one a CPU | one running a CPU (blocked ones don't count), up to the queue's limit blocked |
//! | unbound | one | as many as the host has CPUs, up to the queue's limit |
//! | ordered | the unbound one | one, in the order of queueing |
//!
//! each in normal and in high priority (pools of their own).
//!
//! An item is made once and queued as often as needed; queueing allocates nothing and takes no lock. While it is pending,
//! queueing it again does nothing and says so; it never runs on two workers at once; queued while it runs, it runs again.

mod delayed;
mod flush;
mod pool;
mod queue;
mod state;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod watchdog;
mod worker;

use std::sync::Arc;

pub use delayed::DelayedWork;
pub use queue::{QueueKind, WorkQueue};
pub use watchdog::Hog;

use pool::Progress;
pub(crate) use pool::{Group, Pool, PoolConfig};
pub(crate) use queue::QueueInner;
pub(crate) use watchdog::Watchdog;
pub(crate) use worker::{Current, Rescuer, rescue};

use crate::context::{Process, is_on};
use crate::observe::{Happened, ItemKind, Observed};
use crate::protocol::item::{Activation, ItemState};
use crate::sync::{AtomicU32, AtomicU64, Ordering, thread};

/// What came of queueing.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It will run.
    Yes,
    /// It was pending already, and that run serves this caller, too.
    Already,
    /// It will not run: it is being cancelled, or its queue is being destroyed.
    Refused,
}

/// The function of an item, which also knows what it is called.
pub(crate) trait Function: Send + Sync {
    fn call(&self, process: &Process<'_>);
    fn name(&self) -> &'static str;
}

impl<F: Fn(&Process<'_>) + Send + Sync> Function for F {
    fn call(&self, process: &Process<'_>) {
        self(process);
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<F>()
    }
}

/// An item. The last field may be unsized.
pub(crate) struct Item<F: ?Sized = dyn Function> {
    pub(crate) state: ItemState,
    pub(crate) link: AtomicU32,
    pub(crate) id: u32,
    /// The pool that it is pending or running in, or was last.
    pool: AtomicU32,
    pub(crate) queued_at: AtomicU64,
    pub(crate) activations: AtomicU32,
    pub(crate) queue: Arc<QueueInner>,
    pub(crate) function: F,
}

impl Item {
    /// Queues it in pool `to` of its queue's, unless it runs in another.
    pub(crate) fn queue_in(&self, to: usize, from_item_of_same_queue: bool) -> Queued {
        let queue = &self.queue;
        if queue.is_closing() && !from_item_of_same_queue {
            return Queued::Refused;
        }
        self.tell(Happened::Activated);
        let running = match self.state.activate() {
            Activation::Mine { running } => running,
            Activation::Merged => {
                queue.counters.merged.add(1);
                return Queued::Already;
            }
            Activation::Forbidden => return Queued::Refused,
        };
        let to = if running { self.home() } else { to };
        // Who finds it in another pool than before sees what the run there has done.
        self.pool.store(to as u32, Ordering::Release);
        // By the one who made it pending: no read-modify-write.
        let activations = self.activations.load(Ordering::Relaxed);
        self.activations.store(activations.wrapping_add(1), Ordering::Relaxed);
        if u64::from(activations.wrapping_add(self.id)).is_multiple_of(queue.measure_every) {
            self.queued_at.store(queue.clock.now(), Ordering::Relaxed);
        }
        queue.group.pools[to].push(self, from_item_of_same_queue)
    }

    fn tell_if_cancelled(&self, was_pending: bool) {
        if was_pending {
            self.tell(Happened::Cancelled);
        }
    }

    pub(crate) fn tell(&self, what: Happened) {
        self.queue.observers.tell(what, || Observed {
            kind: ItemKind::Work,
            key: std::ptr::from_ref(self).addr() as u64,
            vector: None,
            cpu: None,
            queue: &self.queue.name,
        });
    }

    /// The pool that it is pending or running in, or was last. Old for as long as somebody who has made it pending has
    /// not got as far as to write it.
    pub(crate) fn home(&self) -> usize {
        self.pool.load(Ordering::Acquire) as usize
    }
}

/// An item of a queue. Dropping it cancels it, without waiting for a run that is under way.
pub struct Work(pub(crate) Arc<Item>);

impl Work {
    /// Queues it: on the CPU that the calling thread is in a top half or softirq of, or runs an item of, else on CPU 0,
    /// as far as that matters to the queue. Never blocks.
    pub fn queue(&self) -> Queued {
        self.0.queue_in(self.0.queue.pool_here(), false)
    }

    /// Queues it on a CPU, if its queue is bound. Never blocks.
    pub fn queue_on(&self, cpu: &crate::Cpu) -> Queued {
        self.0.queue_in(self.0.queue.pool_of(cpu.index()), false)
    }

    /// Cancels it if it is pending; a run under way goes on, and what another thread is about to queue at this moment
    /// (its call has not returned) may be missed. True: it was pending. Never blocks.
    pub fn cancel(&self) -> bool {
        let was_pending = self.pool().cancel(&self.0);
        self.0.tell_if_cancelled(was_pending);
        was_pending
    }

    /// Cancels it, and waits for the end of a run that is under way; queueing it meanwhile, by its own function too, is
    /// refused. From its own function, it does not wait for that one. True: it was pending.
    pub fn cancel_and_wait(&self, process: &Process<'_>) -> bool {
        self.0.state.forbid();
        let by_itself = process.current().is_some_and(|own| std::ptr::addr_eq(Arc::as_ptr(&self.0), own.item()));
        let mut was_pending = false;
        process.block(|| {
            loop {
                let pool = self.pool();
                let seen = pool.value();
                match pool.cancel_all(&self.0, by_itself, &mut was_pending) {
                    Progress::Done => return,
                    Progress::Here => pool.wait(seen),
                    // What was queued before it was forbidden is waited for, so that it can be taken off its list.
                    Progress::Elsewhere => thread::yield_now(),
                }
            }
        });
        self.0.tell_if_cancelled(was_pending);
        self.0.state.permit();
        was_pending
    }

    /// Waits until what was queued of it before has run. From its own function, it does not wait for that run.
    pub fn flush(&self, process: &Process<'_>) {
        if process.current().is_some_and(|current| std::ptr::addr_eq(Arc::as_ptr(&self.0), current.item())) {
            return;
        }
        process.block(|| {
            let (mut home, mut target) = (self.0.home(), None);
            loop {
                let pool = &self.0.queue.group.pools[home];
                let seen = pool.value();
                match pool.progress(&self.0, &mut target) {
                    Progress::Done => return,
                    Progress::Here => pool.wait(seen),
                    Progress::Elsewhere => thread::yield_now(),
                }
                let now = self.0.home();
                if now != home && target.is_some() {
                    // It was found there, and changes its pool only when it is neither pending nor running.
                    return;
                }
                home = now;
            }
        });
    }

    /// Pending: queued, and its run has not begun.
    pub fn is_pending(&self) -> bool {
        self.0.state.is_pending()
    }

    /// Running.
    pub fn is_running(&self) -> bool {
        self.0.state.is_running()
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.0.queue.group.pools[self.0.home()]
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("queue", &self.0.queue.name).field("function", &self.0.function.name()).finish()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.queue.group.forget(&self.0);
    }
}

/// The number of the CPU whose top half or softirq the calling thread is in.
pub(crate) fn cpu_here(cpus: &[Arc<crate::Cpu>]) -> Option<usize> {
    cpus.iter().position(|cpu| is_on(cpu))
}
