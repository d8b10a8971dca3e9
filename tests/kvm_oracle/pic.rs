//! The 8259A pair: ours and KVM's side by side, and the generator.
//!
//! KVM's INTR goes to the guest by LINT0 of its local APIC, in virtual-wire mode as KVM has it after reset; an
//! acknowledge is the guest with its interrupts on.

use std::collections::{BTreeSet, VecDeque};

use irqchip::pic::{ChipState, PicPair, PicPort};
use kvm::PicChip;
use kvm::bindings::kvm_pic_state;

use crate::common::{Random, Rig, Sights};
use crate::differences::{self, Quirk};
use crate::guest::Stub;
use crate::host::{Given, Machine, Outcome};

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Read(PicPort),
    Write(PicPort, u8),
    Line(u8, bool),
    Acknowledge,
}

/// The pairs.
pub struct PicRig {
    ours: PicPair,
    kvms: Machine,
    forgiven: BTreeSet<Quirk>,
    lines: u16,
    plan: VecDeque<Op>,
    seen: Sights,
}

const COMMANDS: [PicPort; 2] = [PicPort::MasterCommand, PicPort::SlaveCommand];
const DATA: [PicPort; 2] = [PicPort::MasterData, PicPort::SlaveData];
const PORTS: [PicPort; 6] = [
    PicPort::MasterCommand,
    PicPort::MasterData,
    PicPort::SlaveCommand,
    PicPort::SlaveData,
    PicPort::ElcrMaster,
    PicPort::ElcrSlave,
];
/// Input of the master that the slave is on.
const CASCADE: u8 = 1 << 2;

impl Rig for PicRig {
    type Op = Op;

    const OPERATIONS: u64 = 100_000;
    const EPISODE: u64 = 4_000;
    const REPLAY: &'static str = "replay_pics";
    const SIGHTS: &'static [&'static str] = &["of the master", "of the slave", "of nobody", "nested", "rotated"];

    fn new() -> Self {
        Self::forgiving(differences::known())
    }

    fn invent(&mut self, random: &mut Random) -> Op {
        if let Some(op) = self.plan.pop_front() {
            return op;
        }
        match random.below(1000) {
            0..=4 => {
                self.plan_initialisation(random);
                Op::Read(random.one_of(&PORTS))
            }
            5..=24 => Op::Write(random.one_of(&PORTS[4..]), random.byte()),
            25..=69 => Op::Write(random.one_of(&DATA), some_mask(random)),
            70..=299 => Op::Write(random.one_of(&COMMANDS), some_eoi(random)),
            300..=339 => Op::Write(random.one_of(&COMMANDS), random.byte() & 0xe7),
            340..=399 => Op::Write(random.one_of(&COMMANDS), random.byte() & 0x6b | 0x08),
            400..=499 => Op::Read(random.one_of(&PORTS)),
            500..=799 => Op::Line(random.below(16) as u8, random.chance(1, 2)),
            _ if self.ours.output() => Op::Acknowledge,
            800..=839 => Op::Acknowledge,
            _ => Op::Line(random.below(16) as u8, random.chance(3, 4)),
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        if let Some(quirk) = self.avoids(op) {
            self.saw(quirk.name());
            return Ok(());
        }
        let before = self.ours.save();
        let answer = self.ask_ours(op);
        let expected = self.ask_kvm(op).map_err(|e| e.to_string())?;
        if answer != expected {
            return Err(format!("{op:?}: we answer {answer:x?}, KVM {expected:x?}"));
        }
        let ours = self.ours.save();
        let mut reset = false;
        // The slave first: whatever KVM is given, it looks at what the slave asks of the master.
        let chips = [(PicChip::Slave, &before.slave, &ours.slave), (PicChip::Master, &before.master, &ours.master)];
        for (chip, was, is) in chips {
            let mut kvms = self.kvms.vm.pic(chip).map_err(|e| e.to_string())?;
            let wanted = in_kvms_form(is, &kvms);
            let found = kvms;
            self.forgive(op, chip, was, is, &mut kvms);
            if kvms != wanted {
                return Err(format!("{op:?}, {chip:?}: {}", unlike(&wanted, &found)));
            }
            if kvms != found {
                reset = true;
                self.kvms.vm.set_pic(chip, &kvms).map_err(|e| e.to_string())?;
            }
        }
        // Its output goes by what it was when it last thought about it.
        if !reset && self.forgiven.contains(&Quirk::PicOutputLags) && matches!(op, Op::Write(..) | Op::Read(_)) {
            let master = self.kvms.vm.pic(PicChip::Master).map_err(|e| e.to_string())?;
            self.kvms.vm.set_pic(PicChip::Master, &master).map_err(|e| e.to_string())?;
        }
        Ok(())
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
        for (what, count) in &self.seen {
            *seen.entry(what).or_default() += count;
        }
    }
}

impl PicRig {
    /// Pairs just initialised (KVM serves one that is not); these differences are forgiven.
    pub fn forgiving(forgiven: BTreeSet<Quirk>) -> Self {
        let kvms = Machine::new(1).unwrap_or_else(|e| panic!("no machine with KVM's controllers: {e}"));
        let mut rig =
            Self { ours: PicPair::new(), kvms, forgiven, lines: 0, plan: VecDeque::new(), seen: Sights::new() };
        for (command, data, words) in [
            (PicPort::MasterCommand, PicPort::MasterData, [0x30, 0x04, 0x01]),
            (PicPort::SlaveCommand, PicPort::SlaveData, [0x38, 0x02, 0x01]),
        ] {
            let words = words.map(|word| Op::Write(data, word));
            for op in [Op::Write(command, 0x11)].iter().chain(&words) {
                rig.step(op).unwrap_or_else(|what| panic!("initialisation differs: {what}"));
            }
        }
        rig
    }

    fn ask_ours(&mut self, op: &Op) -> Option<u8> {
        match *op {
            Op::Read(port) => Some(self.ours.read(port)),
            Op::Write(port, value) => {
                self.ours.write(port, value);
                None
            }
            Op::Line(input, level) => {
                self.ours.set_line(input, level);
                None
            }
            Op::Acknowledge => {
                let (state, asks) = (self.ours.save(), self.ours.output());
                let vector = asks.then(|| self.ours.acknowledge());
                let slave = self.ours.save().slave.isr != state.slave.isr;
                self.saw(match vector {
                    None => "of nobody",
                    Some(_) if slave => "of the slave",
                    Some(_) => "of the master",
                });
                if asks && state.master.isr != 0 {
                    self.saw("nested");
                }
                if asks && state.master.lowest != 7 {
                    self.saw("rotated");
                }
                vector
            }
        }
    }

    fn ask_kvm(&mut self, op: &Op) -> Result<Option<u8>, kvm::Error> {
        let io = |port, value: u8| Given { rdx: number(port), rax: value.into(), ..Given::default() };
        match *op {
            Op::Read(port) => match self.kvms.run(0, Stub::In, io(port, 0))? {
                Outcome::Done(value) => Ok(Some(value as u8)),
                Outcome::Vector(_) => Err(kvm::Error::Unexpected("an interrupt with interrupts off")),
            },
            Op::Write(port, value) => match self.kvms.run(0, Stub::Out, io(port, value))? {
                Outcome::Done(_) => Ok(None),
                Outcome::Vector(_) => Err(kvm::Error::Unexpected("an interrupt with interrupts off")),
            },
            Op::Line(input, level) => {
                // A level that it has is no change of a wire, and nobody is told.
                let bit = 1 << input;
                if input != 2 && (self.lines & bit != 0) != level {
                    self.lines ^= bit;
                    self.kvms.vm.set_line(input.into(), level)?;
                }
                Ok(None)
            }
            Op::Acknowledge => {
                match self.kvms.run(0, Stub::Nothing, Given { interruptible: true, ..Given::default() })? {
                    Outcome::Done(_) => Ok(None),
                    Outcome::Vector(vector) => Ok(Some(vector)),
                }
            }
        }
    }

    /// The difference that `op` would run into and that can't be undone afterwards.
    fn avoids(&self, op: &Op) -> Option<Quirk> {
        let state = self.ours.save();
        let chip = |port| {
            if matches!(port, PicPort::MasterCommand | PicPort::MasterData) { &state.master } else { &state.slave }
        };
        let initialised = |chip: &ChipState| chip.phase == 5;
        let quirk = match *op {
            Op::Write(port, value) if COMMANDS.contains(&port) && value & 0x10 != 0 => {
                if value & 0x02 != 0 {
                    Quirk::PicNoSingleMode
                } else if value & 0x08 != 0 {
                    Quirk::PicNoLevelMode
                } else if port == PicPort::MasterCommand && state.master.lines & CASCADE != 0 {
                    // The next pulse would be an edge again.
                    Quirk::PicCascadeIsPulsed
                } else {
                    return None;
                }
            }
            Op::Write(port, value) if COMMANDS.contains(&port) && value & 0x18 == 0x08 => {
                if value & 0x60 == 0x60 {
                    Quirk::PicNoSpecialMask
                } else if value & 0x04 != 0 {
                    Quirk::PicPollAnswer
                } else {
                    return None;
                }
            }
            // ICW3.
            Op::Write(port, value) if DATA.contains(&port) && chip(port).phase == 3 => {
                let usual = if port == PicPort::MasterData { value == 4 } else { value & 7 == 2 };
                if usual { return None } else { Quirk::PicCascadeIsFixed }
            }
            // The slave's request shows in the master's IRR.
            Op::Read(PicPort::MasterCommand) if !initialised(&state.slave) => Quirk::PicServesUninitialised,
            Op::Acknowledge => {
                if !initialised(&state.master) || !initialised(&state.slave) {
                    Quirk::PicServesUninitialised
                } else if state.master.icw4 & 0x10 != 0 && state.master.isr & CASCADE != 0 {
                    Quirk::PicNestsBelowTheSlave
                } else {
                    return None;
                }
            }
            _ => return None,
        };
        self.forgiven.contains(&quirk).then_some(quirk)
    }

    /// Takes out of KVM's state what the list of differences explains.
    fn forgive(&mut self, op: &Op, chip: PicChip, was: &ChipState, is: &ChipState, kvms: &mut kvm_pic_state) {
        let mine = COMMANDS[chip as usize];
        let icw1 = matches!(*op, Op::Write(port, value) if port == mine && value & 0x10 != 0);
        let level = is.elcr;
        let wanted = in_kvms_form(is, kvms);
        let own = if chip == PicChip::Master { !CASCADE } else { 0xff };
        // An edge of a line that is low again.
        let stale = kvms.irr & !wanted.irr & !is.lines & !level & own;
        self.undo(Quirk::PicEdgeOutlivesTheLine, &mut kvms.irr, wanted.irr, stale);
        if chip == PicChip::Master {
            self.undo(Quirk::PicCascadeIsPulsed, &mut kvms.irr, wanted.irr, CASCADE);
        }
        if matches!(op, Op::Write(PicPort::ElcrMaster | PicPort::ElcrSlave, _)) {
            let changed = was.elcr ^ is.elcr;
            self.undo(Quirk::PicElcrIsSeenLate, &mut kvms.irr, wanted.irr, changed);
        }
        if icw1 {
            self.undo(Quirk::PicIcw1KeepsIsr, &mut kvms.isr, wanted.isr, 0xff);
            self.undo(Quirk::PicIcw1KeepsModes, &mut kvms.auto_eoi, wanted.auto_eoi, 0xff);
            self.undo(
                Quirk::PicIcw1KeepsModes,
                &mut kvms.special_fully_nested_mode,
                wanted.special_fully_nested_mode,
                0xff,
            );
            self.undo(Quirk::PicIcw1KeepsModes, &mut kvms.rotate_on_auto_eoi, wanted.rotate_on_auto_eoi, 0xff);
        }
    }

    /// Gives `bits` of `kvms` the values that they have in `wanted`.
    fn undo(&mut self, quirk: Quirk, kvms: &mut u8, wanted: u8, bits: u8) {
        if (*kvms ^ wanted) & bits != 0 && self.forgiven.contains(&quirk) {
            *kvms = *kvms & !bits | wanted & bits;
            self.saw(quirk.name());
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// ICW1 to ICW4 of one chip or both.
    fn plan_initialisation(&mut self, random: &mut Random) {
        for chip in random.one_of(&[&[0][..], &[1], &[0, 1], &[0, 1]]) {
            let icw1 = random.one_of(&[0x11, 0x11, 0x11, 0x10]);
            self.plan.push_back(Op::Write(COMMANDS[*chip], icw1));
            if random.chance(1, 8) {
                self.plan.push_back(Op::Line(random.below(16) as u8, random.chance(1, 2)));
            }
            self.plan.push_back(Op::Write(DATA[*chip], random.byte().max(0x20)));
            self.plan.push_back(Op::Write(DATA[*chip], [0x04, 0x02][*chip]));
            if icw1 & 1 != 0 {
                let icw4 = random.one_of(&[0x01, 0x01, 0x03, 0x11, 0x13]);
                self.plan.push_back(Op::Write(DATA[*chip], icw4));
            }
        }
    }
}

/// Our state as KVM would show it. What KVM has and we have not is taken from its own.
fn in_kvms_form(ours: &ChipState, kvms: &kvm_pic_state) -> kvm_pic_state {
    let level = if ours.icw1 & 0x08 != 0 { 0xff } else { ours.elcr };
    kvm_pic_state {
        last_irr: kvms.last_irr,
        irr: ours.lines & level | ours.latch & !level,
        imr: ours.imr,
        isr: ours.isr,
        priority_add: ours.lowest.wrapping_add(1) & 7,
        irq_base: ours.base,
        read_reg_select: ours.read_isr.into(),
        poll: ours.poll.into(),
        special_mask: ours.special_mask.into(),
        init_state: match ours.phase {
            2..=4 => ours.phase - 1,
            _ => 0,
        },
        auto_eoi: ours.icw4 >> 1 & 1,
        rotate_on_auto_eoi: ours.rotate_on_aeoi.into(),
        special_fully_nested_mode: ours.icw4 >> 4 & 1,
        init4: kvms.init4,
        elcr: ours.elcr,
        elcr_mask: kvms.elcr_mask,
    }
}

/// The fields in which they differ.
fn unlike(ours: &kvm_pic_state, kvms: &kvm_pic_state) -> String {
    let fields =
        |state| format!("{state:#x?}").lines().map(|line| line.trim().trim_end_matches(',').to_owned()).collect();
    let (ours, kvms): (Vec<String>, Vec<String>) = (fields(ours), fields(kvms));
    let lines = ours.iter().zip(&kvms).filter(|(ours, kvms)| ours != kvms);
    lines.map(|(ours, kvms)| format!("we have {ours}, KVM {kvms}")).collect::<Vec<_>>().join("; ")
}

fn number(port: PicPort) -> u64 {
    match port {
        PicPort::MasterCommand => 0x20,
        PicPort::MasterData => 0x21,
        PicPort::SlaveCommand => 0xa0,
        PicPort::SlaveData => 0xa1,
        PicPort::ElcrMaster => 0x4d0,
        PicPort::ElcrSlave => 0x4d1,
    }
}

fn some_mask(random: &mut Random) -> u8 {
    let few = random.byte() & random.byte() & random.byte();
    let many = random.byte();
    random.one_of(&[0, 0, 0, few, few, few, many, 0xff])
}

fn some_eoi(random: &mut Random) -> u8 {
    let level = random.below(8) as u8;
    random.one_of(&[0x20, 0x20, 0x20, 0xa0, 0x60 | level, 0x60 | level, 0xe0 | level])
}
