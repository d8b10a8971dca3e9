//! Parking one thread, which any other may unpark: one word.
//!
//! Unparking before parking counts. The thread looks for a moment before it sleeps, and whoever unparks it makes a system
//! call only if it sleeps.

use super::strength::{Part, order};
use super::wait::Futex;
use crate::sync::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod loom;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const UNPARKED: u32 = 2;
/// Looks before going to sleep: a few microseconds, less than the way into the kernel and back.
#[cfg(not(any(loom, shuttle)))]
const LOOKS: u32 = 64;
#[cfg(any(loom, shuttle))]
const LOOKS: u32 = 0;

/// The word.
#[derive(Debug, Default)]
pub struct Parker {
    word: AtomicU32,
    futex: Futex,
}

impl Parker {
    /// Sleeps until it is unparked. One thread only.
    pub fn park(&self) {
        for _ in 0..LOOKS {
            if self.word.load(Ordering::Relaxed) == UNPARKED {
                break;
            }
            std::hint::spin_loop();
        }
        if self.word.compare_exchange(AWAKE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            while self.word.load(Ordering::Relaxed) == ASLEEP {
                self.futex.wait(&self.word, ASLEEP, None);
            }
        }
        let _ = self.word.swap(AWAKE, order(Part::Park, Ordering::Acquire));
    }

    /// Ends the sleep, or the next one. Any thread.
    pub fn unpark(&self) {
        if self.word.swap(UNPARKED, order(Part::Unpark, Ordering::Release)) == ASLEEP {
            self.futex.wake(&self.word);
        }
    }
}
