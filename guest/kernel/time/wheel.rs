//! The timer wheel: timeouts, of which there are many and most are cancelled before they are due.
//!
//! Adding and removing must be cheap, so nothing is sorted. A timer goes into one of 64 **buckets** of a **level**; level n holds
//! those that are less than 63 * 8^n ticks away, in steps of 8^n ticks, rounded up. So a timer is never early, and late by at most
//! an eighth of its time. The clock turns tick by tick and empties the bucket of level 0 that it is at, every eighth tick also one
//! of level 1, and so on. Nothing is ever moved from one level to another, save what was too far away for the last.
//!
//! To read more: Linux, kernel/time/timer.c, the comment at its beginning; Varghese and Lauck, "Hashed and Hierarchical Timing
//! Wheels".

use alloc::vec::Vec;

/// Buckets of a level.
const SIZE: u64 = 64;
/// Levels; the last reaches as far as [`FARTHEST`].
const LEVELS: u32 = 6;
/// Each level's steps are 2^3 times those of the one before.
const STEP_SHIFT: u32 = 3;
/// What is farther away than this many ticks is looked at again then.
pub const FARTHEST: u64 = ((SIZE - 1) << (STEP_SHIFT * (LEVELS - 1))) - 1;

/// Something that is due at a time.
struct Entry<T> {
    expires: u64,
    item: T,
}

/// A wheel.
pub struct Wheel<T> {
    /// The tick whose buckets are emptied next.
    clock: u64,
    /// Empty until something is put in.
    buckets: Vec<Vec<Entry<T>>>,
    count: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel.
    pub const fn new() -> Self {
        Self { clock: 0, buckets: Vec::new(), count: 0 }
    }

    /// How many items are in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// It is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An item that is due at `expires`, or with the next turn if that is over; gives its bucket. `now` is the present tick: a
    /// wheel that was empty goes on from there.
    pub fn insert(&mut self, now: u64, expires: u64, item: T) -> usize {
        if self.count == 0 {
            self.clock = self.clock.max(now);
            self.buckets.resize_with((SIZE * u64::from(LEVELS)) as usize, Vec::new);
        }
        let bucket = self.bucket_of(expires);
        self.buckets[bucket].push(Entry { expires, item });
        self.count += 1;
        bucket
    }

    fn bucket_of(&self, expires: u64) -> usize {
        let distance = expires.saturating_sub(self.clock).min(FARTHEST);
        let at = self.clock + distance;
        let level = (0..LEVELS).find(|level| distance < (SIZE - 1) << (STEP_SHIFT * level)).unwrap_or(LEVELS - 1);
        let shift = STEP_SHIFT * level;
        let step = (at + (1 << shift) - 1) >> shift;
        (u64::from(level) * SIZE + step % SIZE) as usize
    }

    /// Takes the item for which `is_it` holds out of a bucket.
    pub fn remove(&mut self, bucket: usize, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let list = self.buckets.get_mut(bucket)?;
        let at = list.iter().position(|entry| is_it(&entry.item))?;
        self.count -= 1;
        Some(list.swap_remove(at).item)
    }

    /// Turns by one tick if it is behind `now`, and gives what is due; `None` when it has caught up. An item that was too far away
    /// goes to its new bucket, which `moved` is told.
    pub fn turn(&mut self, now: u64, mut moved: impl FnMut(&T, usize)) -> Option<Vec<T>> {
        if self.count == 0 || self.clock > now {
            return None;
        }
        let mut due = Vec::new();
        for level in 0..LEVELS {
            let shift = STEP_SHIFT * level;
            if self.clock & ((1 << shift) - 1) != 0 {
                break;
            }
            let bucket = u64::from(level) * SIZE + (self.clock >> shift) % SIZE;
            due.append(&mut self.buckets[bucket as usize]);
        }
        self.count -= due.len();
        let (now_due, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|entry| entry.expires <= self.clock);
        self.clock += 1;
        for Entry { expires, item } in later {
            let bucket = self.bucket_of(expires);
            moved(&item, bucket);
            self.buckets[bucket].push(Entry { expires, item });
            self.count += 1;
        }
        Some(now_due.into_iter().map(|entry| entry.item).collect())
    }
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}
