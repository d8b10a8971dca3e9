//! The inbox: any number of threads push numbered entries without a lock, one thread at a time takes them all.
//!
//! One word: the number of the entry pushed last (each entry holds the number of the one before it), and a flag by which
//! the taker asks to be woken. Nothing is ever popped singly, so an entry that comes back is no danger (no ABA).
//!
//! - A push writes the entry's link, then swings the head to it (release). What it replaced tells it what it owes: if the
//!   flag was set, it and nobody else owes the taker a wake-up.
//! - A taker swaps the head with "empty" (acquire), and owns the links of what it got.
//! - A taker that wants to sleep sets the flag, which works only while the inbox is empty. Head and flag are one word, so
//!   there is no gap between the last look and the sleep.

use super::strength::{Part, order};
use crate::sync::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

/// No entry.
const EMPTY: u32 = WAKE - 1;
/// The taker wants to be woken.
const WAKE: u32 = 1 << 31;

/// Numbers of entries are below this.
pub const MAX_ENTRIES: u32 = EMPTY;

/// What a push found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// An empty inbox whose taker is awake.
    First,
    /// An empty inbox whose taker has asked to be woken: that is now the caller's duty.
    Wake,
    /// Others, which will be taken together with this one.
    Behind,
}

/// Entries on their way to their taker.
#[derive(Debug)]
pub struct Inbox(AtomicU32);

impl Default for Inbox {
    fn default() -> Self {
        Self(AtomicU32::new(EMPTY))
    }
}

impl Inbox {
    /// Pushes entry `id`, which must be in no inbox; `link` is the entry's own. Any thread.
    pub fn push(&self, id: u32, link: &AtomicU32) -> Pushed {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            link.store(head & !WAKE, Ordering::Relaxed);
            // Acquire besides release: whoever pushes after a take sees what the taker did before it.
            match self.0.compare_exchange_weak(head, id, order(Part::InboxPush, Ordering::AcqRel), Ordering::Relaxed) {
                Ok(EMPTY) => return Pushed::First,
                Ok(old) if old & WAKE != 0 => return Pushed::Wake,
                Ok(_) => return Pushed::Behind,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all entries. `link` finds an entry's link. One thread at a time.
    pub fn take<'a>(&self, mut link: impl FnMut(u32) -> &'a AtomicU32) -> Chain {
        let mut next = self.take_chain();
        // The chain runs from the newest to the oldest: turn it round.
        let mut oldest = EMPTY;
        while next != EMPTY {
            let at = next;
            next = link(at).load(Ordering::Relaxed);
            link(at).store(oldest, Ordering::Relaxed);
            oldest = at;
        }
        Chain { oldest }
    }

    /// The newest entry, from which the links lead to the oldest. An empty inbox keeps its flag.
    fn take_chain(&self) -> u32 {
        if self.is_empty() { EMPTY } else { self.0.swap(EMPTY, order(Part::InboxTake, Ordering::AcqRel)) }
    }

    /// Like [`Inbox::take`], but for certain: an entry that this does not find is pushed by somebody who sees all that
    /// the caller did before.
    pub fn take_for_certain<'a>(&self, link: impl FnMut(u32) -> &'a AtomicU32) -> Chain {
        // Changes nothing, but comes before or after every push in the word's own order.
        self.0.fetch_or(0, order(Part::InboxCertain, Ordering::AcqRel));
        self.take(link)
    }

    /// Asks that the next push wakes the taker. False: there is something to take already.
    #[must_use]
    pub fn ask(&self) -> bool {
        match self.0.compare_exchange(EMPTY, EMPTY | WAKE, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => now & WAKE != 0,
        }
    }

    /// Whether there is nothing to take: a hint, old at once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !WAKE == EMPTY
    }
}

/// Entries that were taken, and belong to the taker.
#[derive(Debug)]
#[must_use]
pub struct Chain {
    oldest: u32,
}

impl Chain {
    /// The oldest that is left. It may be pushed again at once; `link` finds an entry's link.
    pub fn next<'a>(&mut self, link: impl FnOnce(u32) -> &'a AtomicU32) -> Option<u32> {
        let at = self.oldest;
        if at == EMPTY {
            return None;
        }
        self.oldest = link(at).load(Ordering::Relaxed);
        Some(at)
    }
}
