//! Pseudo-random numbers for tests: from a seed, so that a run can be repeated.
//!
//! To read more: Marsaglia, "Xorshift RNGs".

use crate::boot::info::boot_info;
use x86::agent::words;

/// A generator (xorshift64).
pub struct Random(u64);

impl Random {
    /// From the command line's seed; each user with a `stream` number of its own gets other numbers.
    pub fn from_seed(stream: u64) -> Self {
        let seed = boot_info().number(words::SEED).unwrap_or(1);
        let mut random = Self((seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1 << 63);
        (0..8).for_each(|_| _ = random.next());
        random
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}
