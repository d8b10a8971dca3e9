//! Twelve bytes that stand for one thing that a guest, a device, the user or a file does. Any bytes mean something, so a
//! fuzzer may make them up, and leaving some out leaves the others what they are.

use std::fmt;

/// Bytes of an operation.
pub const BYTES: usize = 12;

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Op(pub [u8; BYTES]);

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Op({:?})", self.0)
    }
}

impl Op {
    /// What it does: below `kinds`.
    pub fn kind(&self, kinds: u8) -> u8 {
        self.0[0] % kinds
    }

    /// To what.
    pub fn place(&self) -> u8 {
        self.0[1]
    }

    /// How: a choice below `choices`.
    pub fn choice(&self, choices: u8) -> u8 {
        self.0[2] % choices
    }

    /// By whom: below `count`.
    pub fn actor(&self, count: usize) -> usize {
        usize::from(self.0[3] & 0x3f) % count
    }

    /// Its value, all of it.
    pub fn raw(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|at| self.0[4 + at]))
    }

    /// Its value, often a small one, or one from the edges of its range.
    pub fn value(&self) -> u64 {
        const EDGES: [u64; 8] = [0, 1, u64::MAX, 1 << 63, u32::MAX as u64, 1 << 31, 0xffff, 0x8000];
        let raw = self.raw();
        match self.0[3] >> 6 {
            0 => raw,
            1 => raw & 0xff,
            2 => raw & 0xffff,
            _ => EDGES[(raw & 7) as usize].wrapping_add((raw >> 8) & 3),
        }
    }

    /// The same with a byte of its value at 0, for each that is not.
    pub fn simpler(&self) -> Vec<Self> {
        let zeroed = |at: usize| {
            let mut bytes = self.0;
            bytes[at] = 0;
            Self(bytes)
        };
        (1..BYTES).filter(|&at| self.0[at] != 0).map(zeroed).collect()
    }
}

/// What is put under operations.
pub trait Target: Sized {
    /// Operations until a new one takes its place.
    const LIFE: u64 = 3_000;
    /// What a run must have seen, or the operations are blind.
    const SIGHTS: &'static [&'static str];

    /// For how many operations one stands, by what it costs.
    fn size(_op: &Op) -> u64 {
        1
    }

    /// One just made.
    fn new() -> Self;
    /// Does it; the error says what is wrong with what came of it.
    fn step(&mut self, op: &Op) -> Result<(), String>;
    /// How often it saw what.
    fn sights(&self) -> Vec<(&'static str, u64)>;
}

/// Whether `holds`; says `what` if not.
pub fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
