//! The pair and its model side by side, and the generator.

use std::collections::VecDeque;
use std::marker::PhantomData;

use irqchip::pic::{Pic8259, PicPair, PicPort};

use crate::common::{Random, Rig, Sights};
use crate::model;

/// One operation.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    Read(PicPort),
    Write(PicPort, u8),
    Line(u8, bool),
    Acknowledge,
    Reset,
    /// The program goes on from its snapshot.
    Snapshot,
}

/// What of an operation reaches the program: for the drivers' own tests.
pub trait Ear {
    fn hears(op: &Op) -> bool;
}

/// The program hears all.
pub struct Faithful;
/// It does not hear the writes of the ELCR.
pub struct Deaf;

impl Ear for Faithful {
    fn hears(_op: &Op) -> bool {
        true
    }
}

impl Ear for Deaf {
    fn hears(op: &Op) -> bool {
        !matches!(op, Op::Write(PicPort::ElcrMaster | PicPort::ElcrSlave, _))
    }
}

pub struct PicRig<E> {
    program: PicPair,
    reference: model::Pair,
    /// Operations that belong together, to come next.
    plan: VecDeque<Op>,
    acknowledged: Sights,
    ear: PhantomData<E>,
}

const PORTS: [PicPort; 6] = [
    PicPort::MasterCommand,
    PicPort::MasterData,
    PicPort::SlaveCommand,
    PicPort::SlaveData,
    PicPort::ElcrMaster,
    PicPort::ElcrSlave,
];
const COMMANDS: [PicPort; 2] = [PicPort::MasterCommand, PicPort::SlaveCommand];
const DATA: [PicPort; 2] = [PicPort::MasterData, PicPort::SlaveData];

fn number(port: PicPort) -> u16 {
    match port {
        PicPort::MasterCommand => 0x20,
        PicPort::MasterData => 0x21,
        PicPort::SlaveCommand => 0xa0,
        PicPort::SlaveData => 0xa1,
        PicPort::ElcrMaster => 0x4d0,
        PicPort::ElcrSlave => 0x4d1,
    }
}

fn seen(chip: &Pic8259) -> [u8; 7] {
    [
        chip.irr(),
        chip.isr(),
        chip.imr(),
        chip.elcr(),
        chip.vector_base(),
        u8::from(chip.is_ready()),
        u8::from(chip.output()),
    ]
}

impl<E: Ear> Rig for PicRig<E> {
    type Op = Op;

    const EPISODE: u64 = 5_000;
    const SIGHTS: &'static [&'static str] =
        &["of the master", "of the slave", "nested in the slave", "of nobody", "spurious", "spurious in the slave"];

    fn new() -> Self {
        Self {
            program: PicPair::new(),
            reference: model::Pair::new(),
            plan: VecDeque::new(),
            acknowledged: Sights::new(),
            ear: PhantomData,
        }
    }

    fn invent(&mut self, random: &mut Random) -> Op {
        // What belongs together is now and then interrupted.
        if random.chance(15, 16)
            && let Some(op) = self.plan.pop_front()
        {
            return op;
        }
        match random.below(1000) {
            0..=4 => {
                self.plan_initialisation(random);
                Op::Read(random.one_of(&PORTS))
            }
            5..=6 => Op::Write(random.one_of(&COMMANDS), random.byte() | 0x10),
            7 => Op::Reset,
            8 => Op::Snapshot,
            9..=29 => Op::Write(random.one_of(&PORTS[4..]), random.byte()),
            30..=99 => Op::Write(random.one_of(&DATA), some_mask(random)),
            100..=299 => Op::Write(random.one_of(&COMMANDS), some_eoi(random)),
            300..=319 => Op::Write(random.one_of(&COMMANDS), random.byte() & 0xe7),
            320..=399 => Op::Write(random.one_of(&COMMANDS), random.byte() & 0x6f | 0x08),
            400..=404 => Op::Write(random.one_of(&COMMANDS), random.byte() & 0xef),
            405..=479 => Op::Read(random.one_of(&PORTS)),
            480..=499 => Op::Line(random.byte(), random.chance(1, 2)),
            500..=799 => Op::Line(random.below(16) as u8, random.chance(1, 2)),
            800..=819 => Op::Acknowledge,
            _ if self.reference.int() => Op::Acknowledge,
            _ => Op::Line(random.below(16) as u8, random.chance(3, 4)),
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        let heard = E::hears(op);
        match *op {
            Op::Read(port) => {
                let expected = self.reference.read(number(port));
                same("read", self.program.read(port), expected)?;
            }
            Op::Write(port, value) => {
                self.reference.write(number(port), value);
                if heard {
                    self.program.write(port, value);
                }
            }
            Op::Line(input, level) => {
                self.reference.line(input, level);
                self.program.set_line(input, level);
            }
            Op::Acknowledge => {
                let expected = self.reference.acknowledge();
                *self.acknowledged.entry(self.reference.last).or_default() += 1;
                same("vector", self.program.acknowledge(), expected)?;
            }
            Op::Snapshot => {
                let restored = PicPair::restore(&self.program.save());
                same("snapshot", restored.as_ref(), Ok(&self.program))?;
                self.program = restored.map_err(|e| e.to_string())?;
            }
            Op::Reset => {
                self.reference.reset();
                self.program.reset();
            }
        }
        same("INTR", self.program.output(), self.reference.int())?;
        same(
            "master [IRR, ISR, IMR, ELCR, base, ready, INT]",
            seen(self.program.master()),
            self.reference.master.seen(),
        )?;
        same("slave [IRR, ISR, IMR, ELCR, base, ready, INT]", seen(self.program.slave()), self.reference.slave.seen())
    }

    fn simpler(op: &Op) -> Vec<Op> {
        match *op {
            Op::Write(port, value) => {
                (0..8).filter(|bit| value >> bit & 1 == 1).map(|bit| Op::Write(port, value & !(1 << bit))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn sights(&self, seen: &mut Sights) {
        for (what, count) in &self.acknowledged {
            *seen.entry(what).or_default() += count;
        }
    }
}

impl<E> PicRig<E> {
    /// ICW1 to ICW4 of one chip or both, mostly sensible.
    fn plan_initialisation(&mut self, random: &mut Random) {
        let chips = random.one_of(&[&[0][..], &[1], &[0, 1], &[0, 1], &[0, 1]]);
        for chip in chips {
            let icw1 =
                if random.chance(1, 2) { 0x11 } else { random.byte() & 0xed | 0x10 | random.one_of(&[0, 0, 0, 0x02]) };
            self.plan.push_back(Op::Write(COMMANDS[*chip], icw1));
            self.plan.push_back(Op::Write(DATA[*chip], random.byte()));
            if icw1 & 0x02 == 0 {
                let usual = [0x04, 0x02][*chip];
                let odd = [random.byte(), random.below(8) as u8][*chip];
                self.plan.push_back(Op::Write(DATA[*chip], random.one_of(&[usual, usual, usual, odd, odd | usual])));
            }
            if icw1 & 0x01 == 1 {
                let odd = random.byte();
                let icw4 = random.one_of(&[0x01, 0x01, 0x03, 0x11, 0x11, 0x13, odd]);
                self.plan.push_back(Op::Write(DATA[*chip], icw4));
            }
        }
    }
}

fn some_mask(random: &mut Random) -> u8 {
    let few = random.byte() & random.byte() & random.byte();
    let many = random.byte();
    random.one_of(&[0, few, few, few, many, 0xff])
}

fn some_eoi(random: &mut Random) -> u8 {
    let level = random.below(8) as u8;
    random.one_of(&[0x20, 0x20, 0x20, 0xa0, 0x60 | level, 0x60 | level, 0xe0 | level])
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, program: T, reference: T) -> Result<(), String> {
    if program == reference {
        Ok(())
    } else {
        Err(format!("{what}: the program has {program:x?}, the reference {reference:x?}"))
    }
}
