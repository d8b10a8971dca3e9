//! Random operations, weighted towards what matters: few vectors, the registers that there are, times near deadlines.

use crate::driver::{Op, Pair};
use crate::model::Variant;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // The state is a mixed seed: neighbouring seeds must not be one stream, shifted.
        let mut first = Random(seed);
        Random(first.next() ^ first.next().rotate_left(32))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn variant(&mut self) -> Variant {
        Variant {
            id: self.pick(&[0, 1, 5, 15, 16, 0x7f, 0xfe, 0x100, 0x1234]),
            bsp: self.one_in(2),
            x2apic: !self.one_in(4),
            tsc_deadline: !self.one_in(3),
            cmci: self.one_in(2),
            physical_bits: self.pick(&[36, 40, 46, 52]),
        }
    }

    /// The first moment: (ns, TSC).
    pub fn start(&mut self) -> (u64, u64) {
        (self.pick(&[0, 1, 1_000_000_007, 1 << 40, 1 << 62]), self.pick(&[0, 1, 1 << 32, 1 << 63, u64::MAX - 5_000]))
    }
}

/// The registers that do most, to be hit often.
const BUSY: [u64; 22] = [
    0x080, 0x080, 0x0b0, 0x0d0, 0x0e0, 0x0f0, 0x280, 0x280, 0x2f0, 0x300, 0x300, 0x310, 0x320, 0x320, 0x350, 0x350,
    0x360, 0x370, 0x370, 0x380, 0x380, 0x3e0,
];
const VECTORS: [u8; 14] = [0, 15, 16, 31, 0x20, 0x2f, 0x30, 0x3f, 0x40, 0x41, 0x80, 0xef, 0xfe, 0xff];

pub struct Generator {
    random: Random,
}

impl Generator {
    pub fn new(random: Random) -> Self {
        Generator { random }
    }

    pub fn next(&mut self, pair: &Pair) -> Op {
        let random = &mut self.random;
        match random.below(100) {
            0..6 => self.read(pair),
            6..40 => self.write(pair),
            40..44 => self.step(pair),
            44..50 => Op::Expire,
            50..54 => Op::Accept(self.vector(), self.random.one_in(2)),
            54..60 => Op::Post(self.vector(), self.random.one_in(2)),
            60..67 => Op::Collect,
            67..76 => Op::Acknowledge,
            76..82 => Op::Eoi,
            82..85 => Op::Cr8(self.random.below(16) as u8 >> self.random.below(4)),
            85..88 => Op::Pin(0, random.one_in(2)),
            88..90 => Op::Pin(1, random.one_in(2)),
            90..93 => Op::PostLint0(random.one_in(2)),
            93..95 => Op::TakeNmi,
            95 => Op::ExtIntAcknowledged,
            96 => random.pick(&[Op::PostNmi, Op::PostSmi, Op::PostExtInt, Op::PostExtInt]),
            97 if random.one_in(2) => random.pick(&[Op::Raise(0), Op::Raise(1), Op::Raise(2), Op::TakeInit]),
            97 => self.rare(pair),
            98 if random.one_in(4) => random.pick(&[Op::Snapshot, Op::AcknowledgeLate]),
            _ => self.step(pair),
        }
    }

    /// What throws state away, or is hardly ever right.
    fn rare(&mut self, pair: &Pair) -> Op {
        match self.random.below(16) {
            0 => Op::Init,
            1 => Op::PostInit,
            2 => Op::PostStartUp(self.random.next() as u8),
            3..6 if pair.reference.enabled => Op::VirtualWire,
            6 => Op::Cr8(self.random.next() as u8),
            _ => self.base(pair),
        }
    }

    fn base(&mut self, pair: &Pair) -> Op {
        let random = &mut self.random;
        let keep = pair.reference.base() & !0xc00;
        let mode = if pair.reference.enabled { random.pick(&[0xc00, 0xc00, 0x800, 0x800, 0x400, 0]) } else { 0x800 };
        let mut value = keep | if random.one_in(12) { random.pick(&[0, 0x400, 0x800, 0xc00]) } else { mode };
        match random.below(12) {
            0 => value ^= 1 << random.below(64),
            1 => value = value & 0xfff | random.below(1 << 24) << 12,
            2 => value ^= 0x100,
            3 => value = random.next(),
            _ => {}
        }
        Op::BaseWrite(value)
    }

    fn vector(&mut self) -> u8 {
        if self.random.one_in(8) { self.random.next() as u8 } else { self.random.pick(&VECTORS) }
    }

    fn offset(&mut self) -> u64 {
        match self.random.below(40) {
            0 => self.random.below(0x1000),
            1 => self.random.below(0x100) * 16,
            2..8 => self.random.below(0x40) * 16,
            _ => self.random.pick(&BUSY),
        }
    }

    fn read(&mut self, pair: &Pair) -> Op {
        let offset = self.offset();
        if self.by_msr(pair) {
            return Op::MsrRead(self.msr(offset));
        }
        let len = if self.random.one_in(6) { self.random.below(8) as usize + 1 } else { 4 };
        Op::MmioRead(offset, len)
    }

    fn by_msr(&mut self, pair: &Pair) -> bool {
        (pair.reference.enabled && pair.reference.extended) != self.random.one_in(16)
    }

    fn msr(&mut self, offset: u64) -> u32 {
        match self.random.below(24) {
            0 => self.random.pick(&[0x7ff, 0x840, 0x8ff, 0x900, 0x1b, 0x10, 0xc000_0080, u32::MAX]),
            1 | 2 => 0x6e0,
            3 => 0x83f,
            4 => 0x800 + self.random.below(0x100) as u32,
            _ => 0x800 + (offset / 16) as u32,
        }
    }

    fn write(&mut self, pair: &Pair) -> Op {
        if pair.reference.timer.mode == 2 && self.random.one_in(8) {
            let ahead = self.random.pick(&[0, 1, 50, 5_000, 1 << 40]);
            let at = if self.random.one_in(4) { 0 } else { pair.tsc.wrapping_add(ahead) };
            return Op::MsrWrite(0x6e0, at);
        }
        // A software-disabled APIC is dull: most of the time it is enabled again soon.
        let wake = pair.reference.spurious & 0x100 == 0 && self.random.one_in(6);
        let offset = if wake { 0xf0 } else { self.offset() };
        let mut value = if wake { 0x1ff } else { self.value(offset) };
        if self.random.one_in(40) {
            value ^= 1 << self.random.below(32);
        }
        if self.by_msr(pair) {
            let msr = self.msr(offset);
            let mut wide = u64::from(value);
            if msr == 0x830 {
                let to = self.random.pick(&[0, 1, 0xff, 0x1_0002, 0xffff_ffff, 0xff00_0000]);
                wide |= to << 32;
            } else if self.random.one_in(40) {
                wide ^= 1 << self.random.below(64);
            }
            return Op::MsrWrite(msr, wide);
        }
        let len = if self.random.one_in(30) { self.random.below(8) as usize + 1 } else { 4 };
        Op::MmioWrite(offset, len, u64::from(value))
    }

    /// A value that makes sense in the register at `offset`, mostly.
    fn value(&mut self, offset: u64) -> u32 {
        let vector = u32::from(self.vector());
        let random = &mut self.random;
        if random.one_in(16) {
            return random.next() as u32;
        }
        let masked = if random.one_in(3) { 0x1_0000 } else { 0 };
        match offset {
            0x080 => random.below(256) as u32 >> random.below(8),
            0x0b0 | 0x280 => 0,
            0x0d0 => (random.below(256) as u32) << 24,
            0x0e0 => random.pick(&[0xffff_ffff, 0x0fff_ffff, 0x1fff_ffff]),
            0x0f0 => random.pick(&[0x1ff, 0x1ff, 0x1ff, 0x11ff, 0x3ff, 0xff]),
            0x300 => {
                let mode = if random.one_in(2) { 0 } else { random.below(8) as u32 };
                let (shorthand, logical) = (random.below(4) as u32, random.below(2) as u32);
                let level = random.pick(&[0x4000, 0x4000, 0, 0x8000, 0xc000]);
                vector | (mode << 8) | (shorthand << 18) | (logical << 11) | level
            }
            0x310 => random.pick(&[0xff00_0000, 0x0100_0000, 0, 0x8000_0000]),
            0x320 => vector | masked | random.pick(&[0, 0, 0x2_0000, 0x2_0000, 0x4_0000, 0x6_0000]),
            0x350 | 0x360 => {
                let mode = random.pick(&[0, 0, 0, 0x700, 0x400, 0x200, 0x500, 0x100]);
                vector | masked | mode | random.pick(&[0, 0x8000, 0x8000]) | random.pick(&[0, 0, 0x2000])
            }
            0x2f0 | 0x330 | 0x340 | 0x370 => vector | masked | random.pick(&[0, 0, 0x400]),
            0x380 => random.pick(&[0, 1, 2, 3, 100, 5_000, 100_000, 1_000_000, u32::MAX]),
            0x3e0 => random.pick(&[0, 1, 2, 3, 8, 9, 10, 11, 11]),
            _ => random.next() as u32,
        }
    }

    fn step(&mut self, pair: &Pair) -> Op {
        let random = &mut self.random;
        let near = random.below(3).wrapping_sub(1);
        match pair.reference.timer.next() {
            Some((true, at)) if random.one_in(2) => {
                Op::Step(random.below(100), at.wrapping_sub(pair.tsc).wrapping_add(near))
            }
            Some((false, at)) if random.one_in(2) && at > pair.ns => {
                // At its end, or at that of one of the next periods.
                let periods = random.pick(&[0, 0, 0, 1, 2, 70]) * pair.reference.timer.period();
                Op::Step((at - pair.ns + periods).wrapping_add(near), random.below(100))
            }
            _ => {
                let ns = random.next() >> random.pick(&[63, 60, 57, 54, 50, 47, 44, 40, 36, 24]);
                let tsc = if random.one_in(20) { random.next() } else { ns * 3 };
                Op::Step(ns, tsc)
            }
        }
    }
}
