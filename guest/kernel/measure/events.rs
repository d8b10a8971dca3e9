//! Events that the host raises at times of its own, and which of them have been served.
//!
//! One interrupt may stand for several events. Which ones is told by their numbers ([`x86::agent`], "Measuring"): the times are only what
//! is measured, since they come from two clocks.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use x86::agent::{PAIR_SIZE, Slot};

use super::EVENTS_MAX;

/// The events of a drawn stream, as the host writes them and as handlers answer them.
#[repr(C)]
pub struct Events {
    /// What the host writes: how many it has raised, in a pair of its own.
    raised: [AtomicU64; 2],
    /// And for each a [`Slot`].
    slots: [[AtomicU64; 2]; EVENTS_MAX],
    /// When each was served.
    served: [AtomicU64; EVENTS_MAX],
    /// How many have been served.
    next: AtomicUsize,
}

const _: () = assert!(size_of::<[AtomicU64; 2]>() == PAIR_SIZE);

impl Events {
    /// None raised.
    pub const fn new() -> Self {
        Self {
            raised: [const { AtomicU64::new(0) }; 2],
            slots: [const { [const { AtomicU64::new(0) }; 2] }; EVENTS_MAX],
            served: [const { AtomicU64::new(0) }; EVENTS_MAX],
            next: AtomicUsize::new(0),
        }
    }

    /// None served: for another stream, which has not begun.
    pub fn reset(&self) {
        self.next.store(0, Ordering::SeqCst);
    }

    /// The number of the last event raised, which the host counts.
    pub fn counter(&'static self) -> &'static AtomicU64 {
        &self.raised[0]
    }

    /// What the host wrote for event `n`, from 0; `None` as long as it has not been raised.
    pub fn get(&self, n: usize) -> Option<Slot> {
        if n as u64 >= self.raised[0].load(Ordering::Acquire) {
            return None;
        }
        let [due, raised] = self.slots.get(n)?;
        Some(Slot { due: due.load(Ordering::Relaxed), raised: raised.load(Ordering::Relaxed) })
    }

    /// Writes event `number` as the host does, from 1 and in order: for tests.
    pub fn write(&self, number: u64, slot: Slot) {
        if let Some([due, raised]) = self.slots.get((number as usize).wrapping_sub(1)) {
            due.store(slot.due, Ordering::Relaxed);
            raised.store(slot.raised, Ordering::Relaxed);
            self.raised[0].store(number, Ordering::Release);
        }
    }

    /// The first `count` events, as far as they are not served yet, have been served at `at`; those raised after that time, because they
    /// came between it and the count, at `until`, which is after the count. An event that seems to have been raised later than
    /// that still has been served: then the two clocks disagree, and what is measured says so by being negative.
    pub fn serve(&self, count: u64, at: u64, until: u64) {
        let mut next = self.served();
        while (next as u64) < count
            && let Some(slot) = self.get(next)
        {
            self.served[next].store(if slot.raised <= at { at } else { until }, Ordering::SeqCst);
            next += 1;
        }
        self.next.store(next, Ordering::SeqCst);
    }

    /// How many have been served: the first so many.
    pub fn served(&self) -> usize {
        self.next.load(Ordering::SeqCst)
    }

    /// When event `n` was served, from 0; `None` as long as it has not been.
    pub fn served_at(&self, n: usize) -> Option<u64> {
        (n < self.served()).then(|| self.served[n].load(Ordering::SeqCst))
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}
