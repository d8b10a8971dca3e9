//! The I/O APIC and its model side by side, and the generator.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::marker::PhantomData;

use irqchip::ioapic::IoApic;
use irqchip::{Accepted, Destination, Message};
use x86::apic::TriggerMode;

use crate::common::{Random, Rig, Sights};
use crate::model::{Chip, Sent};

/// One operation. `u32`s are the answers of the local APICs to the messages that it sends: bit n that the n-th is
/// accepted.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// Offset and size.
    Read(u64, usize),
    /// Offset, size and the bytes, little endian.
    Write(u64, usize, u64, u32),
    Line(u8, bool, u32),
    Eoi(u8, u32),
    /// So many EOIs of one vector, one after the other.
    Eois(u8, u32, u32),
    DestinationsChanged(u32),
    Expire(u32),
    /// So many nanoseconds later.
    Wait(u64),
    Reset,
    /// The program goes on from its snapshot.
    Snapshot,
}

/// What of an operation reaches the program: for the driver's own tests.
pub trait Ear {
    fn hears(op: &Op) -> bool;
}

/// The program hears all.
pub struct Faithful;
/// It does not hear that there are other destinations.
pub struct Deaf;

impl Ear for Faithful {
    fn hears(_op: &Op) -> bool {
        true
    }
}

impl Ear for Deaf {
    fn hears(op: &Op) -> bool {
        !matches!(op, Op::DestinationsChanged(_))
    }
}

pub struct IoApicRig<E> {
    program: IoApic,
    reference: Chip,
    now: u64,
    /// Messages of the operation at hand.
    sent: Vec<Sent>,
    expected: Vec<Sent>,
    /// Operations that belong together, to come next.
    plan: VecDeque<Op>,
    was_busy: (u64, u64),
    ear: PhantomData<E>,
}

const ALL: u32 = u32::MAX;
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;
/// Few, so that pins share them.
const VECTORS: [u8; 5] = [0x31, 0x31, 0x41, 0x05, 0xff];
const STRAPPED_ID: u8 = 0xa3;

impl<E: Ear> Rig for IoApicRig<E> {
    type Op = Op;

    const EPISODE: u64 = 20_000;
    const SIGHTS: &'static [&'static str] =
        &["sent", "edges dropped", "levels refused", "damped", "pins in service", "pins pending"];

    fn new() -> Self {
        Self {
            program: IoApic::new(STRAPPED_ID),
            reference: Chip::new(STRAPPED_ID),
            now: 0,
            sent: Vec::new(),
            expected: Vec::new(),
            plan: VecDeque::new(),
            was_busy: (0, 0),
            ear: PhantomData,
        }
    }

    fn invent(&mut self, random: &mut Random) -> Op {
        // What belongs together is now and then interrupted.
        if random.chance(31, 32)
            && let Some(op) = self.plan.pop_front()
        {
            return op;
        }
        let answers = random.bits() as u32;
        let accept = random.one_of(&[ALL, ALL, ALL, 0, answers]);
        let ended = || self.reference.in_service(answers as usize % 24).unwrap_or(0x31);
        match random.below(10_000) {
            0 => random.one_of(&[Op::Reset, Op::Snapshot, Op::Snapshot, Op::Snapshot]),
            1 if answers.is_multiple_of(2) => {
                self.plan_storm(random);
                Op::Wait(random.below(1_000))
            }
            1..=399 => {
                let offset = random.one_of(&[SELECT, WINDOW, WINDOW, EOI, random_offset(answers)]);
                Op::Read(offset, random_size(random))
            }
            400..=599 => {
                let offset = random.one_of(&[SELECT, WINDOW, EOI, random_offset(answers)]);
                Op::Write(offset, random_size(random), random.bits(), accept)
            }
            600..=699 => {
                let register = random.below(4);
                self.plan
                    .push_back(random.one_of(&[Op::Write(WINDOW, 4, u64::from(answers), ALL), Op::Read(WINDOW, 4)]));
                Op::Write(SELECT, 1, register, ALL)
            }
            700..=2499 => {
                let register = 0x10 + random.below(48);
                let value = if register.is_multiple_of(2) { some_low(random) } else { some_high(random) };
                self.plan.push_back(Op::Write(WINDOW, 4, value, accept));
                if random.chance(1, 4) {
                    self.plan.push_back(Op::Read(WINDOW, 4));
                }
                Op::Write(SELECT, random.one_of(&[1, 1, 2, 4]), register, ALL)
            }
            2500..=4999 => Op::Eoi(ended(), accept),
            5000..=5499 => Op::Write(EOI, 4, u64::from(ended()) | u64::from(answers) << 8, accept),
            5500..=5699 => Op::Eoi(random.one_of(&VECTORS), accept),
            5700..=5749 => Op::Eoi(random.byte(), accept),
            5750..=5999 => Op::DestinationsChanged(accept),
            6000..=6199 => Op::Expire(accept),
            6200..=6399 => Op::Wait(random.one_of(&[1, 999, 1_000_000, 9_999_999, 10_000_000, u64::from(answers)])),
            6400..=6449 => Op::Line(random.byte(), random.chance(1, 2), accept),
            _ => Op::Line(random.below(24) as u8, random.chance(1, 2), accept),
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match *op {
            Op::Eois(vector, count, accept) => {
                for _ in 0..count {
                    self.one(&Op::Eoi(vector, accept))?;
                }
            }
            _ => self.one(op)?,
        }
        self.compare()
    }

    fn size(op: &Op) -> u64 {
        match op {
            Op::Eois(_, count, _) => u64::from(*count),
            _ => 1,
        }
    }

    fn simpler(op: &Op) -> Vec<Op> {
        // The answers: all yes, all no, or only the first few.
        let fewer = |accept: u32| match accept {
            0 => Vec::new(),
            1 => vec![0],
            _ => vec![0, 1, accept >> 16 & accept, accept & 0xff],
        };
        let fewer = |accept: u32| fewer(accept).into_iter().filter(move |less| *less != accept);
        match *op {
            Op::Write(offset, size, value, accept) => {
                let bits = (0..64).filter(|bit| value >> bit & 1 == 1);
                bits.map(|bit| Op::Write(offset, size, value & !(1 << bit), accept))
                    .chain(fewer(accept).map(|less| Op::Write(offset, size, value, less)))
                    .collect()
            }
            Op::Line(pin, level, accept) => fewer(accept).map(|less| Op::Line(pin, level, less)).collect(),
            Op::Eoi(vector, accept) => fewer(accept).map(|less| Op::Eoi(vector, less)).collect(),
            Op::DestinationsChanged(accept) => fewer(accept).map(Op::DestinationsChanged).collect(),
            Op::Expire(accept) => fewer(accept).map(Op::Expire).collect(),
            Op::Eois(vector, count, accept) if count > 1 => {
                let counts = [1, count / 2, count - count / 16, count - 1];
                let shorter = counts.into_iter().filter(|shorter| *shorter != count);
                shorter
                    .map(|shorter| Op::Eois(vector, shorter, accept))
                    .chain(fewer(accept).map(|less| Op::Eois(vector, count, less)))
                    .collect()
            }
            Op::Eois(vector, _, accept) => vec![Op::Eoi(vector, accept)],
            Op::Read(..) | Op::Wait(_) | Op::Reset | Op::Snapshot => Vec::new(),
        }
    }

    fn sights(&self, seen: &mut Sights) {
        for pin in &self.reference.pins {
            for (what, count) in Self::SIGHTS.iter().zip(pin.counts) {
                *seen.entry(what).or_default() += count;
            }
        }
        *seen.entry("pins in service").or_default() += self.was_busy.0;
        *seen.entry("pins pending").or_default() += self.was_busy.1;
    }
}

impl<E: Ear> IoApicRig<E> {
    /// Runs one operation on both and compares what it sent or read.
    fn one(&mut self, op: &Op) -> Result<(), String> {
        let Self { program, reference, now, sent, expected, .. } = self;
        sent.clear();
        expected.clear();
        let accept = match *op {
            Op::Write(.., accept)
            | Op::Line(.., accept)
            | Op::Eoi(_, accept)
            | Op::Eois(.., accept)
            | Op::DestinationsChanged(accept)
            | Op::Expire(accept) => accept,
            Op::Read(..) | Op::Wait(_) | Op::Reset | Op::Snapshot => 0,
        };
        let mut to_program = |message: &Message| {
            sent.push(told(message));
            if accept >> (sent.len() - 1) & 1 == 1 { Accepted::Yes } else { Accepted::No }
        };
        let mut to_reference = |message: Sent| {
            expected.push(message);
            accept >> (expected.len() - 1) & 1 == 1
        };
        let heard = E::hears(op);
        match *op {
            Op::Read(offset, size) => {
                // Filled, so that a byte that is not written shows.
                let (mut ours, mut theirs) = ([0xa5; 16], [0xa5; 16]);
                program.read(offset, &mut ours[..size]);
                reference.read(offset, &mut theirs[..size]);
                return same("read", &ours, &theirs);
            }
            Op::Write(offset, size, value, _) => {
                let mut data = [0x5a; 16];
                data[..8].copy_from_slice(&value.to_le_bytes());
                reference.write(*now, offset, &data[..size], &mut to_reference);
                program.write(*now, offset, &data[..size], &mut to_program);
            }
            Op::Line(pin, level, _) => {
                reference.drive(pin, level, &mut to_reference);
                program.set_line(pin, level, &mut to_program);
            }
            Op::Eoi(vector, _) | Op::Eois(vector, ..) => {
                reference.eoi(*now, vector, &mut to_reference);
                program.eoi(*now, vector, &mut to_program);
            }
            Op::DestinationsChanged(_) => {
                reference.destinations_changed(&mut to_reference);
                if heard {
                    program.destinations_changed(&mut to_program);
                }
            }
            Op::Expire(_) => {
                reference.expire(*now, &mut to_reference);
                program.expire(*now, &mut to_program);
            }
            Op::Wait(time) => *now = now.saturating_add(time),
            Op::Snapshot => {
                let restored = IoApic::restore(STRAPPED_ID, &program.save());
                same("snapshot", &restored.as_ref(), &Ok(&*program))?;
                *program = restored.map_err(|e| e.to_string())?;
            }
            Op::Reset => {
                reference.reset();
                program.reset();
            }
        }
        same("messages", &self.sent, &self.expected)?;
        same("deadline", &self.program.next_deadline(), &self.reference.deadline())
    }

    /// Compares all that can be seen without a change.
    fn compare(&mut self) -> Result<(), String> {
        for number in 0..24 {
            let pin = &self.reference.pins[usize::from(number)];
            let entry = self.program.entry(number).map(u64::from);
            if entry != Some(pin.entry()) {
                same(&format!("entry of pin {number}"), &entry, &Some(pin.entry()))?;
            }
            let counts = self.program.counters(number).map(|c| [c.sent, c.edges_dropped(), c.levels_refused, c.damped]);
            if counts != Some(pin.counts) {
                same(&format!("counters of pin {number}"), &counts, &Some(pin.counts))?;
            }
            if self.program.line(number) != Some(pin.line()) {
                same(&format!("line of pin {number}"), &self.program.line(number), &Some(pin.line()))?;
            }
        }
        self.was_busy = self.reference.busy();
        Ok(())
    }

    /// A pin, maybe two, that ask again after each EOI until the damper holds them; and what a guest does about it.
    fn plan_storm(&mut self, random: &mut Random) {
        let pin = random.below(24);
        let vector = 0x71;
        let entry = vector | 0x8000 | random.one_of(&[0, 0x100, 0x800, 0x2000]);
        let pins = random.one_of(&[1, 1, 2]);
        for pin in (pin..24).take(pins) {
            self.plan.push_back(Op::Line(pin as u8, true, ALL));
            self.plan.push_back(Op::Write(SELECT, 1, 0x10 + 2 * pin, ALL));
            self.plan.push_back(Op::Write(WINDOW, 4, entry, ALL));
        }
        let vector = vector as u8;
        let count = random.one_of(&[9_998, 9_999, 10_000, 10_001, 10_001, 10_001]);
        self.plan.push_back(Op::Eois(vector, count, ALL));
        for _ in 0..random.below(4) {
            let op = match random.below(9) {
                0 => Op::Eoi(vector, ALL),
                1 => Op::Eoi(vector, 0),
                2 => Op::DestinationsChanged(ALL),
                3 => Op::Line(pin as u8, random.chance(1, 2), ALL),
                4 => Op::Write(WINDOW, 4, entry, random.one_of(&[0, ALL])),
                5 => Op::Wait(random.below(10_000_001)),
                6 => {
                    self.plan.push_back(Op::Write(SELECT, 1, 0x11 + 2 * pin, ALL));
                    Op::Write(WINDOW, 4, some_high(random), random.one_of(&[0, ALL]))
                }
                _ => Op::Expire(random.one_of(&[0, ALL])),
            };
            self.plan.push_back(op);
        }
        self.plan.push_back(Op::Wait(random.one_of(&[9_999_999, 10_000_000, 20_000_000])));
        self.plan.push_back(Op::Expire(random.one_of(&[0, ALL, ALL, ALL])));
        self.plan.push_back(Op::Eois(vector, random.one_of(&[1, 2, 100, 100, 10_001]), ALL));
    }
}

fn told(message: &Message) -> Sent {
    let (everyone, id, logical) = match message.destination {
        Destination::Broadcast | Destination::Byte255 { .. } => (true, 0xff, false),
        Destination::Physical(id) => (false, id, false),
        Destination::Logical(id) => (false, id, true),
    };
    let level = message.trigger == TriggerMode::Level;
    Sent { everyone, id, logical, mode: message.mode as u8, vector: message.vector, level }
}

fn random_offset(bits: u32) -> u64 {
    u64::from(bits) & if bits >> 31 == 1 { 0xfff } else { 0x5f }
}

fn random_size(random: &mut Random) -> usize {
    random.one_of(&[4, 4, 4, 4, 1, 2, 8, 3, 0, 16])
}

/// Mostly fixed or lowest priority, level and unmasked; now and then anything.
fn some_low(random: &mut Random) -> u64 {
    if random.chance(1, 8) {
        return random.bits() & 0xffff_ffff;
    }
    let vector = u64::from(random.one_of(&VECTORS));
    let mode = random.one_of(&[0, 0, 0, 1, 1, random_mode(vector)]) << 8;
    let level = random.one_of(&[0, 0x8000, 0x8000]);
    let masked = random.one_of(&[0, 0, 0, 0x1_0000]);
    vector | mode | level | masked | random.bits() & 0x7800
}

fn random_mode(bits: u64) -> u64 {
    bits % 8
}

fn some_high(random: &mut Random) -> u64 {
    let any = random.bits() & 0xffff_ffff;
    random.one_of(&[0, 0x0100_0000, 0xff00_0000, 0xff02_0000, any, any & 0xff00_0000])
}

fn same<T: PartialEq + Debug>(what: &str, program: &T, reference: &T) -> Result<(), String> {
    if program == reference {
        Ok(())
    } else {
        Err(format!("{what}: the program has {program:x?}, the reference {reference:x?}"))
    }
}
