//! Local APICs and I/O APIC: ours and KVM's side by side.
//!
//! Three processors; what a guest does, KVM's guest does. What only a processor's pins could do is left to KVM: the 8259A
//! pair is masked. SMIs are not sent: neither side has anything to show for them.

use std::collections::{BTreeSet, VecDeque};

use kvm::Msi;
use x86::apic::reg;
use x86::ioapic::{EOI, IOREGSEL, IOWIN};
use x86::msr::{IA32_APIC_BASE, IA32_TSC, X2APIC_FIRST};
use x86::platform::{IOAPIC_BASE, LAPIC_BASE};

use crate::avoid;
use crate::common::{Random, Rig, Sights};
use crate::differences::{self, Quirk};
use crate::generate;
use crate::guest::Stub;
use crate::host::{FIRST_PIN, Given, Machine, Outcome};
use crate::ours::Ours;
use crate::timers;

/// Processors.
pub const CPUS: usize = 3;
/// How far in the future a TSC deadline is that is not to be met, in cycles: minutes, and KVM's arithmetic holds.
const FAR: u64 = 1 << 41;
/// What an access gets that faults.
const GP: u8 = 13;
const NMI: u8 = 2;

/// One operation. The first number is the processor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Drives a pin of the I/O APIC.
    Line(u8, bool),
    /// Writes an I/O APIC register.
    IoWrite(usize, u8, u32),
    /// Reads one.
    IoRead(usize, u8),
    /// Writes the I/O APIC's EOI register.
    IoEoi(usize, u8),
    /// A device's write of data to an address.
    Msi(u32, u32),
    /// Reads the register at an offset, whatever the mode.
    Read(usize, u32),
    /// Writes it.
    Write(usize, u32, u32),
    /// Sends an IPI: destination and lower half of ICR.
    Ipi(usize, u32, u32),
    /// Reads an MSR.
    ReadMsr(usize, u32),
    /// Writes one.
    WriteMsr(usize, u32, u64),
    /// Arms IA32_TSC_DEADLINE far in the future.
    FarDeadline(usize, u32),
    ReadCr8(usize),
    WriteCr8(usize, u8),
    /// Takes the interrupt that can be taken.
    Accept(usize),
    /// Lets a count of so many ticks end.
    CountEnds(usize, u32),
    /// Lets a TSC deadline pass.
    DeadlinePasses(usize),
    /// Of two counts the one that ends first.
    Race(usize, usize),
}

/// What an operation gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    Value(u64),
    Fault,
    Vector(u8),
}

/// The controllers.
pub struct ApicRig {
    pub ours: Ours,
    pub kvms: Machine,
    pub forgiven: BTreeSet<Quirk>,
    pub plan: VecDeque<Op>,
    pub lines: u32,
    /// Pins that are high and that KVM is kept from seeing so: nobody accepts, and it would think somebody had.
    pub parked: u32,
    /// The set-up has been planned.
    pub begun: bool,
    /// Who got an NMI while its guest ran.
    nmis: [bool; CPUS],
    /// MAXPHYADDR.
    pub physical_bits: u32,
    far: u64,
    seen: Sights,
}

impl Rig for ApicRig {
    type Op = Op;

    const OPERATIONS: u64 = 100_000;
    const EPISODE: u64 = 2_000;
    const REPLAY: &'static str = "replay_apics";
    const SIGHTS: &'static [&'static str] = &[
        "level interrupts in service",
        "interrupts accepted in xAPIC mode",
        "interrupts accepted in x2APIC mode",
        "general protection faults",
        "NMIs",
        "INITs and start-ups",
        "counts that ended",
        "TSC deadlines that passed",
        "races",
    ];

    fn new() -> Self {
        Self::forgiving(differences::known())
    }

    fn invent(&mut self, random: &mut Random) -> Op {
        generate::next(self, random)
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        if let Some(quirk) = avoid::difference(self, op) {
            self.saw(quirk.name());
            return Ok(());
        }
        if avoid::out_of_reach(self, op) {
            return Ok(());
        }
        self.ours.forget_events();
        self.nmis = [false; CPUS];
        let on_kvm = |e: kvm::Error| format!("{op:?}: {e}");
        let (ours, kvms) = match *op {
            Op::CountEnds(cpu, count) => return timers::count_ends(self, op, cpu, count),
            Op::DeadlinePasses(cpu) => return timers::deadline_passes(self, op, cpu),
            Op::Race(slow, fast) => return timers::race(self, op, slow, fast),
            _ => (self.ask_ours(op), self.ask_kvm(op).map_err(on_kvm)?),
        };
        self.ours.settle();
        if ours != kvms && !self.forgives_answer(op, ours, kvms) {
            return Err(format!("{op:?}: we answer {ours:x?}, KVM {kvms:x?}"));
        }
        match ours {
            Answer::Vector(_) if matches!(op, Op::Accept(cpu) if self.ours.is_x2apic(*cpu)) => {
                self.saw("interrupts accepted in x2APIC mode");
            }
            Answer::Vector(_) => self.saw("interrupts accepted in xAPIC mode"),
            Answer::Fault => self.saw("general protection faults"),
            _ => {}
        }
        self.compare(op)
    }

    fn simpler(op: &Op) -> Vec<Op> {
        let fewer = |value: u32| (0..32).filter(move |bit| value >> bit & 1 == 1).map(move |bit| value & !(1 << bit));
        match *op {
            Op::IoWrite(cpu, register, value) => fewer(value).map(|value| Op::IoWrite(cpu, register, value)).collect(),
            Op::Write(cpu, offset, value) => fewer(value).map(|value| Op::Write(cpu, offset, value)).collect(),
            Op::Msi(address, data) => fewer(data).map(|data| Op::Msi(address, data)).collect(),
            Op::Ipi(cpu, to, low) => {
                let shorter = fewer(low).map(|low| Op::Ipi(cpu, to, low));
                shorter.chain(fewer(to).map(|to| Op::Ipi(cpu, to, low))).collect()
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

impl ApicRig {
    /// Controllers just powered on, all processors running; these differences are forgiven.
    pub fn forgiving(forgiven: BTreeSet<Quirk>) -> Self {
        Self::try_new(forgiven).unwrap_or_else(|e| panic!("no machine with KVM's controllers: {e}"))
    }

    fn try_new(forgiven: BTreeSet<Quirk>) -> Result<Self, kvm::Error> {
        let kvms = Machine::new(CPUS as u32)?;
        kvms.vm.mask_pics()?;
        let far = kvms.cpus[0].msr(IA32_TSC)?.unwrap_or(0) + FAR;
        let physical_bits = kvms.physical_bits()?;
        let ours = Ours::new(CPUS as u32, physical_bits);
        let mut rig = Self {
            ours,
            kvms,
            forgiven,
            plan: VecDeque::new(),
            lines: 0,
            parked: 0,
            begun: false,
            nmis: [false; CPUS],
            physical_bits,
            far,
            seen: Sights::new(),
        };
        if rig.forgiven.contains(&Quirk::ApicLint0IsOpenAfterReset) {
            rig.close_lint0()?;
        }
        Ok(rig)
    }

    /// Notes that it has happened.
    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn ask_ours(&mut self, op: &Op) -> Answer {
        let ours = &mut self.ours;
        let value = |result: Result<u64, _>| result.map_or(Answer::Fault, Answer::Value);
        let done = |result: Result<(), _>| result.map_or(Answer::Fault, |()| Answer::Nothing);
        match *op {
            Op::Line(pin, level) => ours.set_line(pin, level),
            Op::IoWrite(_, register, value) => ours.write_ioapic(register, value),
            Op::IoRead(_, register) => return Answer::Value(ours.read_ioapic(register).into()),
            Op::IoEoi(_, vector) => ours.write_ioapic_window(EOI, vector.into()),
            Op::Msi(address, data) => return Answer::Value(ours.send_msi(address, data).into()),
            Op::Read(cpu, offset) if ours.is_x2apic(cpu) => return value(ours.read_msr(cpu, msr(offset))),
            Op::Read(cpu, offset) => return Answer::Value(ours.read(cpu, offset).into()),
            Op::Write(cpu, offset, value) if ours.is_x2apic(cpu) => {
                return done(ours.write_msr(cpu, msr(offset), value.into()));
            }
            Op::Write(cpu, offset, value) => ours.write(cpu, offset, value),
            Op::Ipi(cpu, to, low) if ours.is_x2apic(cpu) => {
                return done(ours.write_msr(cpu, msr(reg::ICR_LOW), u64::from(to) << 32 | u64::from(low)));
            }
            Op::Ipi(cpu, to, low) => {
                ours.write(cpu, reg::ICR_HIGH, to << 24);
                ours.write(cpu, reg::ICR_LOW, low);
            }
            Op::ReadMsr(cpu, msr) => return value(ours.read_msr(cpu, msr)),
            Op::WriteMsr(cpu, msr, value) => return done(ours.write_msr(cpu, msr, value)),
            Op::FarDeadline(cpu, more) => {
                return done(ours.write_msr(cpu, x86::msr::IA32_TSC_DEADLINE, self.far + u64::from(more)));
            }
            Op::ReadCr8(cpu) => return Answer::Value(ours.apics[cpu].cr8().into()),
            Op::WriteCr8(cpu, class) => ours.apics[cpu].set_cr8(class),
            Op::Accept(cpu) => return ours.apics[cpu].acknowledge().map_or(Answer::Nothing, Answer::Vector),
            Op::CountEnds(..) | Op::DeadlinePasses(_) | Op::Race(..) => {}
        }
        Answer::Nothing
    }

    fn ask_kvm(&mut self, op: &Op) -> Result<Answer, kvm::Error> {
        let x2apic = |rig: &Self, cpu: usize| rig.ours.is_x2apic(cpu);
        match *op {
            Op::Line(pin, level) => {
                let bit = 1 << pin;
                self.lines = if level { self.lines | bit } else { self.lines & !bit };
                self.parked &= !bit;
                self.kvms.vm.set_line(FIRST_PIN + u32::from(pin), level)?;
            }
            Op::IoWrite(cpu, register, value) => return self.write_ioapic(cpu, register, value),
            Op::IoRead(cpu, register) => {
                self.select(cpu, register)?;
                return self.load(cpu, IOAPIC_BASE + IOWIN);
            }
            Op::IoEoi(cpu, vector) => return self.store(cpu, IOAPIC_BASE + EOI, vector.into()),
            Op::Msi(address, data) => {
                let taken = self.kvms.vm.send_msi(Msi { address: address.into(), data })?;
                return Ok(Answer::Value(taken.into()));
            }
            Op::Read(cpu, offset) if x2apic(self, cpu) => return self.read_msr(cpu, msr(offset)),
            Op::Read(cpu, offset) => return self.load(cpu, LAPIC_BASE + u64::from(offset)),
            Op::Write(cpu, offset, value) => return self.write_register(cpu, offset, value),
            Op::Ipi(cpu, to, low) if x2apic(self, cpu) => {
                return self.write_msr(cpu, msr(reg::ICR_LOW), u64::from(to) << 32 | u64::from(low));
            }
            Op::Ipi(cpu, to, low) => {
                self.store(cpu, LAPIC_BASE + u64::from(reg::ICR_HIGH), to << 24)?;
                return self.store(cpu, LAPIC_BASE + u64::from(reg::ICR_LOW), low);
            }
            Op::ReadMsr(cpu, msr) => return self.read_msr(cpu, msr),
            Op::WriteMsr(cpu, msr, value) => return self.write_msr(cpu, msr, value),
            Op::FarDeadline(cpu, more) => {
                return self.write_msr(cpu, x86::msr::IA32_TSC_DEADLINE, self.far + u64::from(more));
            }
            Op::ReadCr8(cpu) => return self.run(cpu, Stub::ReadCr8, Given::default(), true),
            Op::WriteCr8(cpu, class) => {
                return self.run(cpu, Stub::WriteCr8, Given { rax: class.into(), ..Given::default() }, false);
            }
            Op::Accept(cpu) => return self.accept(cpu),
            Op::CountEnds(..) | Op::DeadlinePasses(_) | Op::Race(..) => {}
        }
        Ok(Answer::Nothing)
    }

    /// KVM's guest writes a register of its local APIC, in whatever mode that is.
    pub fn write_register(&mut self, cpu: usize, offset: u32, value: u32) -> Result<Answer, kvm::Error> {
        if self.ours.is_x2apic(cpu) {
            return self.write_msr(cpu, msr(offset), value.into());
        }
        self.store(cpu, LAPIC_BASE + u64::from(offset), value)
    }

    /// KVM's guest writes an MSR.
    pub fn write_msr(&mut self, cpu: usize, msr: u32, value: u64) -> Result<Answer, kvm::Error> {
        let given = Given { rcx: msr.into(), rax: value & 0xffff_ffff, rdx: value >> 32, ..Given::default() };
        self.run(cpu, Stub::WriteMsr, given, false)
    }

    /// KVM's guest reads an MSR.
    pub fn read_msr(&mut self, cpu: usize, msr: u32) -> Result<Answer, kvm::Error> {
        self.run(cpu, Stub::ReadMsr, Given { rcx: msr.into(), ..Given::default() }, true)
    }

    /// KVM's guest writes an I/O APIC register.
    pub fn write_ioapic(&mut self, cpu: usize, register: u8, value: u32) -> Result<Answer, kvm::Error> {
        self.select(cpu, register)?;
        self.store(cpu, IOAPIC_BASE + IOWIN, value)
    }

    /// KVM's guest selects an I/O APIC register.
    pub fn select(&mut self, cpu: usize, register: u8) -> Result<(), kvm::Error> {
        self.store(cpu, IOAPIC_BASE + IOREGSEL, register.into()).map(drop)
    }

    fn store(&mut self, cpu: usize, address: u64, value: u32) -> Result<Answer, kvm::Error> {
        self.run(cpu, Stub::Store, Given { rbx: address, rax: value.into(), ..Given::default() }, false)
    }

    fn load(&mut self, cpu: usize, address: u64) -> Result<Answer, kvm::Error> {
        self.run(cpu, Stub::Load, Given { rbx: address, ..Given::default() }, true)
    }

    fn run(&mut self, cpu: usize, stub: Stub, given: Given, reads: bool) -> Result<Answer, kvm::Error> {
        Ok(match self.kvms.run(cpu, stub, given)? {
            Outcome::Done(value) if reads => Answer::Value(value),
            Outcome::Done(_) => Answer::Nothing,
            // It has sent itself one; only its own ICR can, and that has done its work.
            Outcome::Vector(NMI) if !given.interruptible => {
                self.nmis[cpu] = true;
                self.kvms.end_nmi(cpu)?;
                Answer::Nothing
            }
            Outcome::Vector(GP) if !given.interruptible => Answer::Fault,
            Outcome::Vector(vector) => Answer::Vector(vector),
        })
    }

    fn accept(&mut self, cpu: usize) -> Result<Answer, kvm::Error> {
        let given = Given { interruptible: true, ..Given::default() };
        if !self.forgiven.contains(&Quirk::SoftwareEndsWhatItDelivers) {
            return self.run(cpu, Stub::Nothing, given, false);
        }
        // The end that nobody asked for is made one of an edge, which the I/O APIC does not hear of, and is undone.
        let mut page = self.kvms.lapic(cpu)?;
        let modes: [u32; 8] = std::array::from_fn(|set| page.register(reg::TMR + 0x10 * set as u32));
        for set in 0..8 {
            page.set_register(reg::TMR + 0x10 * set, 0);
        }
        self.kvms.cpus[cpu].set_lapic(&page)?;
        let answer = self.run(cpu, Stub::Nothing, given, false)?;
        let mut page = self.kvms.lapic(cpu)?;
        for (set, modes) in (0..).zip(modes) {
            page.set_register(reg::TMR + 0x10 * set, modes);
        }
        if let Answer::Vector(vector) = answer {
            let register = reg::ISR + u32::from(vector >> 5) * 0x10;
            page.set_register(register, page.register(register) | 1 << (vector & 31));
            self.saw(Quirk::SoftwareEndsWhatItDelivers.name());
        }
        self.kvms.cpus[cpu].set_lapic(&page)?;
        // KVM works out the processor priority when it runs.
        self.run(cpu, Stub::Nothing, Given::default(), false)?;
        Ok(answer)
    }

    /// Whether an NMI has come for KVM's processor since the operation began.
    pub fn take_nmi(&mut self, cpu: usize) -> Result<bool, kvm::Error> {
        Ok(self.kvms.take_nmi(cpu)? | self.nmis[cpu])
    }

    /// Closes LINT0 of KVM's bootstrap processor.
    pub fn close_lint0(&mut self) -> Result<(), kvm::Error> {
        let mut page = self.kvms.lapic(0)?;
        page.set_register(reg::LVT_LINT0, 1 << 16);
        self.kvms.cpus[0].set_lapic(&page)
    }
}

/// The MSR that a register is in x2APIC mode.
pub const fn msr(offset: u32) -> u32 {
    X2APIC_FIRST + (offset >> 4)
}

/// Bits of IA32_APIC_BASE that enable x2APIC mode.
pub fn x2apic_base(cpu: usize) -> u64 {
    LAPIC_BASE | 0xc00 | if cpu == 0 { 0x100 } else { 0 }
}

/// The MSR itself, for operations.
pub const BASE: u32 = IA32_APIC_BASE;
