//! The state of a work item: one word.
//!
//! An item is idle, pending, running, or both of the last (queued again while it runs). Whoever sets PENDING has the duty
//! to put the item where a worker finds it. Starting clears PENDING and sets RUNNING in one step, so that an activation
//! is either merged into a run that has not begun, or makes a new one: none is lost in between, and what the merged
//! caller wrote before is seen by that run (every attempt is a read-modify-write, so it is part of the release sequence
//! that the worker's own one acquires).

use super::strength::{Part, order};
use crate::sync::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod loom;

const PENDING: u32 = 1;
const RUNNING: u32 = 2;
/// Its handle is gone.
const DEAD: u32 = 4;
/// Callers that forbid it to be queued.
const FORBID: u32 = 1 << 8;

/// What came of an attempt to activate an item.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// It is pending now, by this call: the caller puts it on a list. It may be running.
    Mine {
        /// It runs now, in the pool where it started.
        running: bool,
    },
    /// It was pending: the run to come serves this caller, too.
    Merged,
    /// Somebody cancels it just now, or its handle is gone.
    Forbidden,
}

/// The word.
#[derive(Debug, Default)]
pub struct ItemState(AtomicU32);

impl ItemState {
    /// Tries to make it pending. Any thread.
    pub fn activate(&self) -> Activation {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            if state >= FORBID || state & DEAD != 0 {
                return Activation::Forbidden;
            }
            // Written even if it is set: the run to come must see what this caller did before.
            match self.0.compare_exchange_weak(
                state,
                state | PENDING,
                order(Part::ItemActivate, Ordering::AcqRel),
                Ordering::Relaxed,
            ) {
                Ok(old) if old & PENDING != 0 => return Activation::Merged,
                Ok(old) => return Activation::Mine { running: old & RUNNING != 0 },
                Err(now) => state = now,
            }
        }
    }

    /// From pending to running, by the worker that took it off its list. The caller's lock keeps out a second worker.
    pub fn start(&self) {
        let old = self.0.fetch_xor(PENDING | RUNNING, order(Part::ItemStart, Ordering::AcqRel));
        debug_assert_eq!(old & (PENDING | RUNNING), PENDING, "an item started that was not just pending");
    }

    /// The run is over.
    pub fn finish(&self) {
        let old = self.0.fetch_and(!RUNNING, order(Part::ItemFinish, Ordering::AcqRel));
        debug_assert!(old & RUNNING != 0, "an item finished that did not run");
    }

    /// Takes a pending activation back, by the thread that took it off its list.
    pub fn withdraw(&self) {
        self.0.fetch_and(!PENDING, Ordering::AcqRel);
    }

    /// Forbids activations until as many [`ItemState::permit`]s have followed. One under way counts as earlier.
    pub fn forbid(&self) {
        self.0.fetch_add(FORBID, Ordering::AcqRel);
    }

    /// Undoes one [`ItemState::forbid`].
    pub fn permit(&self) {
        self.0.fetch_sub(FORBID, Ordering::AcqRel);
    }

    /// Forbids activations for ever. True: an activation or a run is under way, and whoever ends it buries the item.
    #[must_use]
    pub fn bury(&self) -> bool {
        self.0.fetch_or(DEAD, Ordering::AcqRel) & (PENDING | RUNNING) != 0
    }

    /// Pending.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.0.load(Ordering::Acquire) & PENDING != 0
    }

    /// Running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) & RUNNING != 0
    }

    /// Pending, running, or both.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire) & (PENDING | RUNNING) != 0
    }

    /// Its handle is gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.load(Ordering::Acquire) & DEAD != 0
    }

    /// Somebody forbids it to be queued.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.0.load(Ordering::Acquire) >= FORBID
    }
}
