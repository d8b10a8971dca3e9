//! The orderings of the protocols, each with a name, so that a model can take one away and see what breaks.

use crate::sync::Ordering;

/// An ordering or a fence that a protocol relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A push publishes its entry.
    InboxPush,
    /// A take sees what was published.
    InboxTake,
    /// Whoever pushes after a certain take sees what came before that.
    InboxCertain,
    /// An activation publishes what was written before it, and the run sees it.
    ItemActivate,
    /// The same, on the worker's side.
    ItemStart,
    /// The end of a run publishes what it wrote.
    ItemFinish,
    /// All transitions of a tasklet.
    Tasklet,
    /// A raise publishes what was written before it.
    Raise,
    /// A take of pending bits sees it.
    Take,
    /// The owner's fence before it tries for the place.
    OwnerFence,
    /// The thread's fence after it frees the place.
    ThreadFence,
    /// Freeing the place publishes what was done in it.
    Release,
    /// Taking the place sees it.
    Serve,
    /// A changed word publishes the condition.
    Wake,
    /// A waiter that sees the change sees the condition.
    Wait,
    /// Unparking publishes why.
    Unpark,
    /// The parked thread sees it.
    Park,
}

/// The ordering, unless a test has taken it away.
#[cfg(not(all(test, loom)))]
#[inline(always)]
pub(crate) fn order(_part: Part, full: Ordering) -> Ordering {
    full
}

/// A SeqCst fence, unless a test has taken it away.
#[cfg(not(all(test, loom)))]
#[inline(always)]
pub(crate) fn fence(_part: Part) {
    crate::sync::fence(Ordering::SeqCst);
}

#[cfg(all(test, loom))]
pub(crate) use weak::{fence, order, without};

#[cfg(all(test, loom))]
mod weak {
    use std::cell::Cell;

    use super::*;

    // All threads of a model are coroutines on the thread of its test.
    std::thread_local! { static TAKEN_AWAY: Cell<Option<Part>> = const { Cell::new(None) } }

    pub(crate) fn order(part: Part, full: Ordering) -> Ordering {
        if TAKEN_AWAY.get() == Some(part) { Ordering::Relaxed } else { full }
    }

    pub(crate) fn fence(part: Part) {
        if TAKEN_AWAY.get() != Some(part) {
            crate::sync::fence(Ordering::SeqCst);
        }
    }

    /// Runs the model without `part`: it must fail.
    pub(crate) fn without(part: Part, model: fn()) {
        TAKEN_AWAY.set(Some(part));
        let outcome = std::panic::catch_unwind(model);
        TAKEN_AWAY.set(None);
        assert!(outcome.is_err(), "the model did not miss {part:?}");
    }
}
