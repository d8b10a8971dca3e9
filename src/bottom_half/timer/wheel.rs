//! The hierarchical timer wheel: eight levels of 64 buckets, each level eight times as coarse as the one below.
//!
//! A timeout goes into the level whose span its delay fits in, rounded up to that level's bucket, and stays there: it is
//! not moved down as its time comes near. So starting and cancelling are a few steps whatever else is in the wheel, and a
//! timeout is late by up to an eighth of its delay, never early. What lies beyond the last level's span (39 hours) is
//! put into its last bucket, and is put in anew when that comes.

use crate::table::{Links, List};

/// A tick of the finest level: 2^20 ns, about a millisecond.
const TICK: u32 = 20;
const LEVELS: usize = 8;
const BUCKETS: usize = 64;
/// Each level is 2^3 times as coarse.
const COARSER: u32 = 3;
/// Ticks that a level reaches, of its own buckets: one less than there are, so that rounding up does not go round.
const REACH: u64 = BUCKETS as u64 - 1;
const NOWHERE: u16 = u16::MAX;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The first tick that has not been served.
    tick: u64,
    buckets: [[List; BUCKETS]; LEVELS],
    /// Which buckets have entries.
    occupied: [u64; LEVELS],
    links: Links,
    at: Vec<u64>,
    bucket: Vec<u16>,
    /// What is due now, in order of its buckets.
    due: List,
    /// The first tick at which a bucket is due, or earlier: entries may have gone. `u64::MAX`: the wheel is empty.
    next_tick: u64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new(0)
    }
}

/// The place of what is in `due`.
const DUE: u16 = (LEVELS * BUCKETS) as u16;

impl Wheel {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            tick: now >> TICK,
            buckets: [[List::default(); BUCKETS]; LEVELS],
            occupied: [0; LEVELS],
            links: Links::default(),
            at: Vec::new(),
            bucket: Vec::new(),
            due: List::default(),
            next_tick: u64::MAX,
        }
    }

    /// Makes room for entry `id`.
    pub(crate) fn grow(&mut self, id: u32) {
        let len = self.at.len().max(id as usize + 1);
        self.links.grow(id);
        self.at.resize(len, 0);
        self.bucket.resize(len, NOWHERE);
    }

    /// Puts entry `id` in, which is not.
    pub(crate) fn insert(&mut self, id: u32, at: u64, now: u64) {
        self.forward(now >> TICK);
        self.at[id as usize] = at;
        // Rounded up: never early.
        let tick = ((at >> TICK) + u64::from(at & ((1 << TICK) - 1) != 0)).max(self.tick);
        let (level, value) = self.level_of(tick);
        let place = (value % BUCKETS as u64) as usize;
        self.links.push(&mut self.buckets[level][place], id);
        self.occupied[level] |= 1 << place;
        self.bucket[id as usize] = (level * BUCKETS + place) as u16;
        self.next_tick = self.next_tick.min(value << (COARSER * level as u32));
    }

    /// The level for `tick`, and the tick in units of that level.
    fn level_of(&self, tick: u64) -> (usize, u64) {
        let delay = tick - self.tick;
        for level in 0..LEVELS {
            let shift = COARSER * level as u32;
            if delay < REACH << shift {
                return (level, (tick + (1 << shift) - 1) >> shift);
            }
        }
        let shift = COARSER * (LEVELS as u32 - 1);
        (LEVELS - 1, (self.tick >> shift) + REACH)
    }

    /// Takes entry `id` out, which is in.
    pub(crate) fn remove(&mut self, id: u32) {
        let bucket = std::mem::replace(&mut self.bucket[id as usize], NOWHERE);
        if bucket == DUE {
            return self.links.remove(&mut self.due, id);
        }
        let (level, place) = (usize::from(bucket) / BUCKETS, usize::from(bucket) % BUCKETS);
        let list = &mut self.buckets[level][place];
        self.links.remove(list, id);
        if list.first().is_none() {
            self.occupied[level] &= !(1 << place);
            if self.occupied == [0; LEVELS] {
                self.next_tick = u64::MAX;
            }
        }
    }

    /// An entry that is due.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<u32> {
        self.collect(now);
        let id = self.links.pop(&mut self.due)?;
        self.bucket[id as usize] = NOWHERE;
        Some(id)
    }

    /// When to look next, in ns: at or before the first bucket that is due. `u64::MAX` if the wheel is empty.
    pub(crate) fn next(&self) -> u64 {
        match (self.due.first(), self.next_tick) {
            (Some(_), _) => 0,
            (None, u64::MAX) => u64::MAX,
            (None, tick) => tick << TICK,
        }
    }

    /// Moves what is due at `now` to its list.
    fn collect(&mut self, now: u64) {
        let now_tick = now >> TICK;
        while self.next_tick <= now_tick {
            self.tick = self.next_tick;
            for level in 0..LEVELS {
                let shift = COARSER * level as u32;
                if self.tick & ((1 << shift) - 1) != 0 {
                    break;
                }
                let place = ((self.tick >> shift) % BUCKETS as u64) as usize;
                let mut list = std::mem::take(&mut self.buckets[level][place]);
                self.occupied[level] &= !(1 << place);
                while let Some(id) = self.links.pop(&mut list) {
                    if self.at[id as usize] <= now {
                        self.links.push(&mut self.due, id);
                        self.bucket[id as usize] = DUE;
                    } else {
                        // From beyond the last level. Its bucket is a later one: this loop is not about it.
                        let (at, tick) = (self.at[id as usize], self.tick);
                        self.insert(id, at, tick << TICK);
                    }
                }
            }
            self.tick += 1;
            self.next_tick = self.first_occupied();
        }
    }

    /// Nothing is in the ticks that are skipped.
    fn forward(&mut self, now_tick: u64) {
        if self.tick < now_tick {
            if self.next_tick <= now_tick {
                // Buckets may have been emptied since.
                self.next_tick = self.first_occupied();
            }
            self.tick = self.tick.max(now_tick.min(self.next_tick));
        }
    }

    fn first_occupied(&self) -> u64 {
        let mut first = u64::MAX;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = COARSER * level as u32;
            let here = (self.tick + (1 << shift) - 1) >> shift;
            let ahead = self.occupied[level].rotate_right((here % BUCKETS as u64) as u32).trailing_zeros();
            first = first.min((here + u64::from(ahead)) << shift);
        }
        first
    }
}
