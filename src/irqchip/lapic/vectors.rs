//! A set of 256 vectors: IRR, ISR and TMR are one each.

use fault::Fault;

/// 256 bits, one per vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vectors {
    words: [u64; 4],
}

impl Vectors {
    /// Puts `vector` in.
    pub fn insert(&mut self, vector: u8) {
        self.words[usize::from(vector >> 6)] |= 1 << (vector & 63);
    }

    /// Takes `vector` out.
    pub fn remove(&mut self, vector: u8) {
        self.words[usize::from(vector >> 6)] &= !(1 << (vector & 63));
    }

    /// Puts `vector` in or takes it out.
    pub fn set(&mut self, vector: u8, value: bool) {
        if value { self.insert(vector) } else { self.remove(vector) }
    }

    /// Whether `vector` is in.
    pub fn contains(&self, vector: u8) -> bool {
        self.words[usize::from(vector >> 6)] & (1 << (vector & 63)) != 0
    }

    /// The highest vector that is in.
    pub fn highest(&self) -> Option<u8> {
        let word = (0..4).rev().find(|&i| self.words[i] != 0)?;
        // Below 256 by construction.
        Some((word * 64 + 63 - self.words[word].leading_zeros() as usize) as u8)
    }

    /// The highest, by which priorities go; `reversed` has it be the lowest.
    pub(crate) fn first(&self, reversed: Fault) -> Option<u8> {
        if fault::is(reversed) { (0..=u8::MAX).find(|&vector| self.contains(vector)) } else { self.highest() }
    }

    /// Nothing is in.
    pub fn is_empty(&self) -> bool {
        self.words == [0; 4]
    }

    /// How many are in.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|w| w.count_ones()).sum()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.words = [0; 4];
    }

    /// The 32 vectors from `32 * index` on, as the registers show them; `index` is 0 to 7.
    pub fn register(&self, index: u32) -> u32 {
        (self.words[(index >> 1) as usize & 3] >> (32 * (index & 1))) as u32
    }

    /// The four words, lowest vectors first.
    pub fn words(&self) -> [u64; 4] {
        self.words
    }

    /// The set that has these words.
    pub(crate) fn from_words(words: [u64; 4]) -> Self {
        Self { words }
    }

    /// Adds `bits` to the 64 vectors from `64 * word` on; `word` is 0 to 3.
    pub(crate) fn insert_word(&mut self, word: usize, bits: u64) {
        self.words[word] |= bits;
    }

    /// Takes `bits` out of the 64 vectors from `64 * word` on; `word` is 0 to 3.
    pub(crate) fn remove_word(&mut self, word: usize, bits: u64) {
        self.words[word] &= !bits;
    }
}
