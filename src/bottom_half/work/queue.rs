//! A queue: how its items run. The workers belong to its pools.

use std::sync::Arc;

use super::pool::Group;
use super::{Item, Work, cpu_here};
use crate::clock::Clock;
use crate::context::Process;
use crate::cpu::Cpu;
use crate::observe::Observers;
use crate::protocol::item::ItemState;
use crate::stats::{Counter, QueueStats, Times};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::system::System;

/// How a queue's items run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Each on the CPU where it was queued: one at a time runs there, blocked ones not counted.
    Bound,
    /// Anywhere, as many at once as there are processors.
    Unbound,
    /// Anywhere, one at a time, in the order of queueing.
    Ordered,
}

/// Items of a queue that may have started and not ended, in each of its pools.
const MAX_ACTIVE: u32 = 256;

pub(crate) struct Counters {
    pub(crate) merged: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) times: Times,
}

pub(crate) struct QueueInner {
    pub(crate) name: String,
    pub(crate) kind: QueueKind,
    /// Its place in each pool of the group.
    pub(crate) index: u32,
    pub(crate) group: Arc<Group>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) measure_every: u64,
    pub(crate) observers: Observers,
    pub(crate) counters: Counters,
    /// Nothing from outside is taken any more.
    closing: AtomicBool,
}

impl QueueInner {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Nothing from outside is taken any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// The pool for an item that is queued by the calling thread.
    pub(crate) fn pool_here(&self) -> usize {
        if self.group.pools.len() == 1 { 0 } else { self.pool_of(cpu_here(&self.group.cpus).unwrap_or(0)) }
    }

    /// The pool for an item that is queued on CPU `cpu`.
    pub(crate) fn pool_of(&self, cpu: usize) -> usize {
        cpu % self.group.pools.len()
    }
}

/// A work queue. Items that are not done are done before it is destroyed; dropping it only means that nobody adds items.
#[derive(Clone)]
pub struct WorkQueue(pub(crate) Arc<QueueInner>);

impl WorkQueue {
    pub(crate) fn new(
        system: &System,
        group: Arc<Group>,
        name: &str,
        kind: QueueKind,
        max_active: Option<u32>,
    ) -> Self {
        let max_active = match kind {
            QueueKind::Ordered => 1,
            _ => max_active.unwrap_or(MAX_ACTIVE).max(1),
        };
        let index = group.add_queue(max_active);
        let counters = Counters { merged: Counter::default(), cancelled: Counter::default(), times: Times::default() };
        Self(Arc::new(QueueInner {
            name: name.to_owned(),
            kind,
            index,
            group,
            clock: Arc::clone(&system.shared().clock),
            measure_every: system.shared().measure_every,
            observers: system.shared().observers.clone(),
            counters,
            closing: AtomicBool::new(false),
        }))
    }

    /// Its name, as in the tables.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How its items run.
    pub fn kind(&self) -> QueueKind {
        self.0.kind
    }

    /// Makes an item that runs `function`, which may block. The only thing that allocates.
    pub fn work(&self, function: impl Fn(&Process<'_>) + Send + Sync + 'static) -> Work {
        let queue = Arc::clone(&self.0);
        let item = self.0.group.add_item(move |id| {
            Arc::new(Item {
                state: ItemState::default(),
                link: AtomicU32::new(0),
                id,
                pool: AtomicU32::new(0),
                queued_at: AtomicU64::new(0),
                activations: AtomicU32::new(0),
                queue,
                function,
            })
        });
        Work(item)
    }

    /// Waits for what was queued before, and no more. From an item of this queue it does not wait for that item, nor for
    /// others that flush the queue themselves; while it waits, its place in the queue is lent to those behind it. An item
    /// that another thread is about to queue at this moment (its call has not returned) may or may not be waited for.
    pub fn flush(&self, process: &Process<'_>) {
        self.0.group.flush(&self.0, process);
    }

    /// Takes nothing more (but what its own items queue), and waits until it is empty. Then it is gone: queueing is
    /// refused for ever. From an item of this queue it does not wait for that item.
    pub fn destroy(&self, process: &Process<'_>) {
        self.0.close();
        while !self.0.group.is_empty_but_for(&self.0, process) {
            self.flush(process);
        }
    }

    /// What it has counted.
    pub fn stats(&self) -> QueueStats {
        self.0.stats()
    }
}

impl QueueInner {
    pub(crate) fn stats(&self) -> QueueStats {
        let (latency, longest) = self.counters.times.read();
        let (queued, run) = self.group.counts(self.index);
        QueueStats {
            name: self.name.clone(),
            queued,
            merged: self.counters.merged.get(),
            run,
            cancelled: self.counters.cancelled.get(),
            latency,
            longest,
        }
    }
}

impl std::fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkQueue").field("name", &self.0.name).field("kind", &self.0.kind).finish_non_exhaustive()
    }
}

impl Drop for QueueInner {
    fn drop(&mut self) {
        // The last item is gone, too: items keep their queue.
        self.group.remove_queue(self.index);
    }
}

pub(crate) type Cpus = Vec<Arc<Cpu>>;
