//! Who runs a CPU's softirqs, and which are pending: two words.
//!
//! Any thread sets pending bits; the one that turns the word from 0 wakes the CPU's owner, unless it is the owner. The
//! owner, or the CPU's softirq thread, serves: never both. The second word says who; the softirq thread serves only when
//! the owner hands over to it.
//!
//! Nothing raised is left behind: the owner, having raised or been woken, finds the place free and serves, or finds the
//! thread serving, and then the thread's last look (after it frees the place) finds the bits. Both have a SeqCst fence
//! between their write and their look; without either, both may miss the other.

use super::strength::{Part, fence, order};
use crate::sync::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod loom;

const FREE: u32 = 0;
const OWNER: u32 = 1;
const THREAD: u32 = 2;
/// The owner waits for the place.
const WANTED: u32 = 4;

/// The words.
#[derive(Debug, Default)]
pub struct Serving {
    pending: AtomicU32,
    server: AtomicU32,
}

impl Serving {
    /// Sets pending bits; gives those that were set before. If none was, the caller owes the owner a wake-up.
    #[must_use]
    pub fn raise(&self, bits: u32) -> u32 {
        self.pending.fetch_or(bits, order(Part::Raise, Ordering::AcqRel))
    }

    /// Takes the pending bits. Only who serves may.
    #[must_use]
    pub fn take(&self) -> u32 {
        self.pending.swap(0, order(Part::Take, Ordering::AcqRel))
    }

    /// The pending bits: a hint, old at once.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// The owner takes the place, if the softirq thread does not have it. Not while it has it already.
    #[must_use]
    pub fn try_serve(&self) -> bool {
        // Whoever fails here relies on the thread's last look.
        fence(Part::OwnerFence);
        self.server.compare_exchange(FREE, OWNER, order(Part::Serve, Ordering::AcqRel), Ordering::Relaxed).is_ok()
    }

    /// The owner asks the thread, which has the place, to make room. True: it is free already.
    #[must_use]
    pub fn want(&self) -> bool {
        let want = |server| (server != FREE).then_some(server | WANTED);
        self.server.fetch_update(Ordering::AcqRel, Ordering::Acquire, want).is_err()
    }

    /// Whether the owner waits for the thread's place.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.server.load(Ordering::Relaxed) & WANTED != 0
    }

    /// The owner gives its place to the thread, and then wakes it.
    pub fn hand_over(&self) {
        self.server.store(THREAD, Ordering::Release);
    }

    /// Whether the place is the thread's: it has been handed over, and not yet been freed.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.server.load(Ordering::Acquire) & THREAD != 0
    }

    /// The owner frees its place. Who raises from now on wakes it; what was raised before, it looks for itself.
    pub fn release(&self) {
        self.server.store(FREE, order(Part::Release, Ordering::Release));
    }

    /// The thread frees its place and has its last look.
    pub fn release_by_thread(&self) -> Left {
        let old = self.server.swap(FREE, order(Part::Release, Ordering::AcqRel));
        fence(Part::ThreadFence);
        if old & WANTED != 0 {
            return Left::ToOwner;
        }
        if self.pending.load(Ordering::Relaxed) != 0
            && self.server.compare_exchange(FREE, THREAD, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return Left::More;
        }
        Left::Nothing
    }
}

/// What the softirq thread left when it freed its place.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing, or the owner has taken over: sleep.
    Nothing,
    /// More has come, and the place is the thread's again.
    More,
    /// The owner waits for the place: wake it, then sleep.
    ToOwner,
}
