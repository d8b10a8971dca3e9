//! Who wants to see what happens to deferred work: a tracer.
//!
//! An [`Observer`] is called at each activation, begin and end of a run, on the thread where it happens, often with locks
//! held. A system without one pays a branch for it.

use std::sync::Arc;

use crate::softirq::Vector;

/// What has happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It is about to be raised, scheduled, queued or started; if it is pending already, that merges into one run.
    Activated,
    /// A run begins.
    Run,
    /// The run has ended.
    Done,
    /// It was pending, and will not run.
    Cancelled,
}

/// What kind of item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// A vector of a CPU.
    Softirq,
    /// A tasklet.
    Tasklet,
    /// An item of a work queue.
    Work,
    /// A timer.
    Timer,
}

/// An item as an observer sees it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Its kind.
    pub kind: ItemKind,
    /// Tells items of one kind apart, as long as they live.
    pub key: u64,
    /// The softirq vector that it is, or runs from.
    pub vector: Option<Vector>,
    /// The CPU that it is activated or runs on, where it has one.
    pub cpu: Option<u32>,
    /// The name of its queue, if it has one.
    pub queue: &'a str,
}

/// Sees what happens to deferred work.
pub trait Observer: Send + Sync + 'static {
    /// `what` happens to `item`, on the calling thread: any thread, with locks held. Must not block. An activation in here
    /// is observed, too.
    fn observe(&self, what: Happened, item: &Observed<'_>);
}

/// The observer of a system, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Observers(pub(crate) Option<Arc<dyn Observer>>);

impl Observers {
    /// Tells it, if there is one; `item` is made only then.
    #[inline]
    pub(crate) fn tell<'a>(&self, what: Happened, item: impl FnOnce() -> Observed<'a>) {
        if let Some(observer) = &self.0 {
            observer.observe(what, &item());
        }
    }
}
