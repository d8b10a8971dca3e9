//! Work queues: functions that run soon, in a thread, so that they may wait.
//!
//! A **work item** is put on a **queue**; the queue only says how: in order or not, how urgent. The threads (**workers**) belong to
//! **pools**, two for each CPU, of normal and of high priority, and all queues share them. A pool lets one worker run at a time.
//! When that one waits, the pool wakes another, so a work item that waits does not stop the others ([`pool`]). A queue made with
//! [`Kind::Ordered`] has one item at work at a time, in the order in which they came.
//!
//! An item that is queued already is not queued again; one that is being run may be. It never runs on two workers at once.
//!
//! To read more: Linux, Documentation/core-api/workqueue.rst, kernel/workqueue.c.

pub mod delayed;
mod flush;
pub(crate) mod pool;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Once;

use crate::arch::percpu::{self, MAX_CPUS, this_cpu};
use crate::sched;
use crate::sched::wait_queue::WaitQueue;
use crate::sync::IrqLock;
use pool::Pool;

/// How a queue's items are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On the CPU that they were queued on, several at once if they wait.
    PerCpu,
    /// The same, by workers of high priority.
    HighPriority,
    /// One after the other, on the CPU where the queue was made.
    Ordered,
}

/// A function to be run. Make it once, queue it often.
pub struct Work {
    function: Box<dyn Fn() + Send + Sync>,
    /// It is queued and has not begun.
    pending: AtomicBool,
    /// Pool where it runs, and how often it has begun and ended. Under the lock it is decided where it may be queued.
    place: IrqLock<Place>,
    runs: AtomicU64,
    ended: WaitQueue,
}

/// Where a work item is.
#[derive(Default)]
struct Place {
    running_in: Option<&'static Pool>,
    /// The queue it was put on last.
    queue: Option<Arc<Queue>>,
    queued: u64,
    ended: u64,
}

impl Work {
    /// An item that calls `function`, which may wait.
    pub fn new(function: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            function: Box::new(function),
            pending: AtomicBool::new(false),
            place: IrqLock::new(Place::default()),
            runs: AtomicU64::new(0),
            ended: WaitQueue::new(),
        })
    }

    /// It is queued and has not begun.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// How often it has begun.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

/// An item on its way, with its number in its queue.
struct Item {
    work: Arc<Work>,
    queue: Arc<Queue>,
    number: u64,
}

/// An item that has been queued and has not ended.
struct Unfinished {
    number: u64,
    /// Address of its work, to tell it from others.
    work: usize,
    /// Its function waits for others of this queue: they must not wait for it.
    flushes: bool,
}

/// What a queue's lock protects.
struct Inner {
    next_number: u64,
    unfinished: Vec<Unfinished>,
    /// Items of an ordered queue that wait for the one before.
    later: VecDeque<Item>,
    /// The item of an ordered queue that is at work, or about to be.
    busy: Option<u64>,
    /// It takes no more, save from its own items.
    is_draining: bool,
}

struct Queue {
    kind: Kind,
    cpu: usize,
    inner: IrqLock<Inner>,
    /// An item has ended.
    progress: WaitQueue,
}

/// A queue of work items. When it is dropped, all that was queued is run first ([`WorkQueue::destroy`]).
pub struct WorkQueue(Arc<Queue>);

/// Items that each CPU's workers have run, by priority.
static RUNS: [[AtomicU64; MAX_CPUS]; 2] = [const { [const { AtomicU64::new(0) }; MAX_CPUS] }; 2];

/// How many items a CPU's workers have run, those of high priority or the others.
pub fn runs_on(cpu: usize, high: bool) -> u64 {
    RUNS[usize::from(high)][cpu].load(Ordering::Relaxed)
}

/// The queue that everybody may use (system_wq). Made when it is first asked for, which may take memory.
pub fn system() -> &'static WorkQueue {
    static SYSTEM: Once<WorkQueue> = Once::new();
    SYSTEM.call_once(|| WorkQueue::new(Kind::PerCpu))
}

impl WorkQueue {
    /// A new queue. To be called where waiting is allowed.
    pub fn new(kind: Kind) -> Self {
        pool::init();
        let inner =
            Inner { next_number: 0, unfinished: Vec::new(), later: VecDeque::new(), busy: None, is_draining: false };
        let cpu = this_cpu().number();
        Self(Arc::new(Queue { kind, cpu, inner: IrqLock::new(inner), progress: WaitQueue::new() }))
    }

    /// Queues the item on this CPU; false if it is queued already, here or elsewhere, or the queue takes no more.
    pub fn queue(&self, work: &Arc<Work>) -> bool {
        self.0.queue_on(this_cpu().number(), work)
    }

    /// Queues the item on a CPU; false as for [`WorkQueue::queue`].
    pub fn queue_on(&self, cpu: usize, work: &Arc<Work>) -> bool {
        self.0.queue_on(cpu, work)
    }

    /// Waits until all that was queued before has ended, and for nothing that is queued meanwhile. From one of the queue's own
    /// items, this does not include itself.
    pub fn flush(&self) {
        flush::queue(&self.0);
    }

    /// Runs all that is queued, and what that queues, and takes nothing else from now on.
    pub fn destroy(self) {}
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        self.0.inner.lock().is_draining = true;
        self.0.progress.wait_event(|| self.0.inner.lock().unfinished.is_empty());
    }
}

impl Queue {
    fn is_high(&self) -> bool {
        self.kind == Kind::HighPriority
    }

    fn queue_on(self: &Arc<Self>, cpu: usize, work: &Arc<Work>) -> bool {
        let own = flush::is_own(self);
        let mut place = work.place.lock();
        let mut inner = self.inner.lock();
        if (inner.is_draining && !own) || work.pending.swap(true, Ordering::SeqCst) {
            return false;
        }
        place.queued += 1;
        let number = inner.next_number;
        inner.next_number += 1;
        inner.unfinished.push(Unfinished { number, work: Arc::as_ptr(work) as usize, flushes: false });
        place.queue = Some(self.clone());
        let item = Item { work: work.clone(), queue: self.clone(), number };
        if self.kind == Kind::Ordered {
            if inner.busy.is_some() {
                inner.later.push_back(item);
                return true;
            }
            inner.busy = Some(number);
        }
        // Where it runs already another worker of the same pool sees that it must wait for its end.
        let cpu = if self.kind == Kind::Ordered || percpu::cpu(cpu).is_none() { self.cpu } else { cpu };
        let pool = place.running_in.unwrap_or_else(|| pool::of(cpu, self.is_high()));
        drop(inner);
        pool.add(item);
        drop(place);
        sched::preempt::check();
        true
    }

    /// The item with this number has ended, or never begins. Of an ordered queue the next one is due.
    fn finish(self: &Arc<Self>, number: u64) {
        let mut inner = self.inner.lock();
        inner.unfinished.retain(|unfinished| unfinished.number != number);
        let next = if inner.busy == Some(number) { inner.later.pop_front() } else { None };
        if inner.busy == Some(number) {
            inner.busy = next.as_ref().map(|next| next.number);
        }
        drop(inner);
        if let Some(next) = next {
            let running_in = next.work.place.lock().running_in;
            running_in.unwrap_or_else(|| pool::of(self.cpu, self.is_high())).add(next);
        }
        self.progress.wake_up_all();
    }
}

/// Takes the item back if it has not begun; true if so (cancel_work). It may be running from an earlier time.
pub fn cancel(work: &Arc<Work>) -> bool {
    let Some(item) = flush::take(work) else { return false };
    item.abandon();
    true
}

/// The same; when this returns it does not run. Not to be called from itself.
pub fn cancel_sync(work: &Arc<Work>) -> bool {
    let was_pending = cancel(work);
    work.ended.wait_event(|| work.place.lock().running_in.is_none());
    was_pending
}

/// Waits until the last queueing of the item so far has ended (flush_work). Not to be called from itself.
pub fn flush_work(work: &Arc<Work>) {
    let target = work.place.lock().queued;
    work.ended.wait_event(|| work.place.lock().ended >= target);
}

impl Item {
    /// It never begins.
    fn abandon(self) {
        {
            let mut place = self.work.place.lock();
            place.ended += 1;
            self.work.pending.store(false, Ordering::SeqCst);
        }
        self.work.ended.wake_up_all();
        self.queue.finish(self.number);
    }
}
