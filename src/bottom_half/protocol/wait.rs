//! A word to wait on.
//!
//! The waiter reads the word, looks at its condition, and waits for the word to change; whoever makes the condition true
//! changes the word after it. A futex in the program; under a model checker a lock and a condition variable.

use super::strength::{Part, order};
use crate::sync::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod loom;

/// The word. Its value means nothing but that it changed.
#[derive(Debug, Default)]
pub struct WaitWord {
    word: AtomicU32,
    futex: Futex,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The word has changed, or may have: look again.
    Look,
    /// The deadline passed.
    TimedOut,
}

impl WaitWord {
    /// The value to give to [`WaitWord::wait`]; to be read before the look at the condition.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.word.load(order(Part::Wait, Ordering::Acquire))
    }

    /// Changes the word and wakes all that wait on it.
    pub fn wake_all(&self) {
        self.word.fetch_add(1, order(Part::Wake, Ordering::AcqRel));
        self.futex.wake(&self.word);
    }

    /// Waits until the word is not `seen`. `deadline` is in CLOCK_MONOTONIC ns (a model checker ignores it).
    pub fn wait(&self, seen: u32, deadline: Option<u64>) -> Waited {
        self.futex.wait(&self.word, seen, deadline)
    }
}

/// The kernel's part of waiting.
#[cfg(not(any(loom, shuttle)))]
#[derive(Debug, Default)]
pub(super) struct Futex;

#[cfg(not(any(loom, shuttle)))]
impl Futex {
    pub(super) fn wait(&self, word: &AtomicU32, seen: u32, deadline: Option<u64>) -> Waited {
        match sys::futex::wait(word, seen, deadline) {
            sys::futex::Wait::TimedOut => Waited::TimedOut,
            _ => Waited::Look,
        }
    }

    pub(super) fn wake(&self, word: &AtomicU32) {
        sys::futex::wake(word, u32::MAX);
    }
}

/// The same for a model checker: the comparison and the going to sleep are one step against a wake-up.
#[cfg(any(loom, shuttle))]
#[derive(Debug, Default)]
pub(super) struct Futex {
    lock: crate::sync::PlainMutex<()>,
    changed: crate::sync::Condvar,
}

#[cfg(any(loom, shuttle))]
impl Futex {
    pub(super) fn wait(&self, word: &AtomicU32, seen: u32, _deadline: Option<u64>) -> Waited {
        let mut guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while word.load(Ordering::Relaxed) == seen {
            guard = self.changed.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        Waited::Look
    }

    pub(super) fn wake(&self, _word: &AtomicU32) {
        drop(self.lock.lock());
        self.changed.notify_all();
    }
}
