//! One pair, program and reference, that get the same operations; and what of them is compared.

use irqchip::destination::LogicalId;
use irqchip::lapic::{Config, Deadline, Effect, Gp, LocalApic, LocalSource, Mode, Now};
use irqchip::mailbox::Mailbox;
use irqchip::{Destination, Message};
use x86::apic::{Shorthand, TriggerMode};

use crate::model::{CMCI, LINT0, Outcome, PERFORMANCE, RefAddress, RefApic, THERMAL, To, Variant};

/// One operation, with everything that it needs: a trace of them is a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Offset, bytes.
    MmioRead(u64, usize),
    /// Offset, bytes, value.
    MmioWrite(u64, usize, u64),
    MsrRead(u32),
    MsrWrite(u32, u64),
    BaseWrite(u64),
    /// Vector, level.
    Accept(u8, bool),
    /// Vector, level: by the mailbox.
    Post(u8, bool),
    PostNmi,
    PostSmi,
    PostExtInt,
    PostInit,
    PostStartUp(u8),
    PostLint0(bool),
    Collect,
    Pin(usize, bool),
    ExtIntAcknowledged,
    TakeNmi,
    Init,
    Acknowledge,
    Eoi,
    Cr8(u8),
    VirtualWire,
    /// Nanoseconds, TSC ticks.
    Step(u64, u64),
    Expire,
    /// Something in the processor: 0 corrected machine checks, 1 thermal, 2 performance counter.
    Raise(u8),
    TakeInit,
    AcknowledgeLate,
    /// The program goes on from its snapshot.
    Snapshot,
}

/// How often what was met, by name.
#[derive(Debug, Clone, Default)]
pub struct Seen([u64; SEEN.len()]);

const SEEN: [&str; 16] = [
    "globally disabled",
    "x2APIC mode",
    "software-disabled",
    "#GP",
    "IPI",
    "level EOI told",
    "new address",
    "delivered",
    "blocked by TPR",
    "timer fired",
    "TSC deadline armed",
    "LINT0 remote IRR",
    "errors shown",
    "error interrupt sent",
    "ExtINT pending",
    "cluster model",
];

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SEEN.into_iter().zip(self.0)
    }

    fn outcome(&mut self, outcome: Outcome) {
        self.0[3] += u64::from(outcome == Outcome::Fault);
        self.0[4] += u64::from(matches!(outcome, Outcome::Ipi { .. }));
        self.0[5] += u64::from(matches!(outcome, Outcome::EndOfLevel(_)));
        self.0[6] += u64::from(outcome == Outcome::AddressChanged);
    }

    fn state(&mut self, apic: &RefApic) {
        let states = [
            (0, !apic.enabled),
            (1, apic.extended),
            (2, apic.spurious & 0x100 == 0),
            (8, apic.blocked_by_tpr()),
            (10, apic.timer.tsc != 0),
            (11, apic.lvt[LINT0] & 0x4000 != 0),
            (12, apic.esr_seen != 0),
            (13, apic.error_told),
            (14, apic.extint_pending()),
            (15, apic.model == 0),
        ];
        states.into_iter().filter(|&(_, so)| so).for_each(|(place, _)| self.0[place] += 1);
    }
}

/// What the mailbox holds, naively.
#[derive(Debug, Clone)]
struct Letters {
    edge: [bool; 256],
    level: [bool; 256],
    nmis: u8,
    smi: bool,
    extint: bool,
    init: bool,
    start_up: Option<u8>,
    waiting: bool,
    lint0: bool,
    lint0_news: bool,
    lint0_rose: bool,
}

pub struct Pair {
    pub program: LocalApic,
    pub reference: RefApic,
    mailbox: Mailbox,
    letters: Letters,
    pub start: (u64, u64),
    pub ns: u64,
    pub tsc: u64,
    /// Both as they were when last compared in full.
    compared: Option<(LocalApic, RefApic)>,
    pub seen: Seen,
}

macro_rules! same {
    ($what:expr, $program:expr, $reference:expr) => {{
        let (program, reference) = ($program, $reference);
        if program != reference {
            return Err(format!("{}: program {program:x?}, reference {reference:x?}", $what));
        }
    }};
}

fn config(variant: Variant) -> Config {
    let Variant { id, bsp, x2apic, tsc_deadline, cmci, physical_bits } = variant;
    Config { id, bsp, x2apic, tsc_deadline, cmci, physical_bits }
}

impl Pair {
    pub fn new(variant: Variant, start: (u64, u64)) -> Self {
        let bsp = variant.bsp;
        let mailbox = Mailbox::default();
        if !bsp {
            mailbox.wait_for_start_up();
        }
        let letters = Letters {
            edge: [false; 256],
            level: [false; 256],
            nmis: 0,
            smi: false,
            extint: false,
            init: false,
            start_up: None,
            waiting: !bsp,
            lint0: false,
            lint0_news: false,
            lint0_rose: false,
        };
        Pair {
            program: LocalApic::new(config(variant)),
            reference: RefApic::new(variant),
            mailbox,
            letters,
            start,
            ns: start.0,
            tsc: start.1,
            compared: None,
            seen: Seen::default(),
        }
    }

    /// Does `op` to both, and compares what they answer and what they are afterwards.
    pub fn apply(&mut self, op: Op) -> Result<(), String> {
        let (ns, tsc) = (self.ns, self.tsc);
        let (program, reference, seen) = (&mut self.program, &mut self.reference, &mut self.seen);
        let mut same_effect = |a: Outcome, b: Outcome| {
            seen.outcome(b);
            same!("effect", a, b);
            Ok(())
        };
        match op {
            Op::MmioRead(offset, len) => {
                let (mut a, mut b) = ([0xa5; 8], [0xa5; 8]);
                program.read_mmio(ns, offset, &mut a[..len]);
                reference.read_mmio(ns, offset, &mut b[..len]);
                same!("bytes read", a, b);
            }
            Op::MmioWrite(offset, len, value) => {
                let data = value.to_le_bytes();
                let a = outcome(Ok(program.write_mmio(ns, offset, &data[..len])));
                same_effect(a, reference.write_mmio(ns, offset, &data[..len]))?;
            }
            Op::MsrRead(msr) => same!("MSR read", program.read_msr(ns, msr).ok(), reference.read_msr(ns, msr)),
            Op::MsrWrite(msr, value) => {
                same_effect(outcome(program.write_msr(ns, msr, value)), reference.write_msr(ns, msr, value))?;
            }
            Op::BaseWrite(value) => {
                same_effect(outcome(program.write_base(value)), reference.write_base(value))?;
            }
            Op::Accept(vector, level) => {
                program.accept(vector, trigger(level));
                reference.accept(vector, level);
            }
            Op::Post(vector, level) => {
                let _ = self.mailbox.post(vector, trigger(level));
                let set = if level { &mut self.letters.level } else { &mut self.letters.edge };
                set[vector as usize] = true;
            }
            Op::PostNmi => {
                let _ = self.mailbox.post_nmi();
                self.letters.nmis = (self.letters.nmis + 1).min(2);
            }
            Op::PostSmi => {
                let _ = self.mailbox.post_smi();
                self.letters.smi = true;
            }
            Op::PostExtInt => {
                let _ = self.mailbox.post_extint();
                self.letters.extint = true;
            }
            Op::PostInit => {
                let _ = self.mailbox.post_init();
                self.letters.init = true;
                self.letters.start_up = None;
            }
            Op::PostStartUp(vector) => {
                let _ = self.mailbox.post_start_up(vector);
                let letters = &mut self.letters;
                let open = letters.waiting || (letters.init && !reference.variant.bsp);
                if open && letters.start_up.is_none() {
                    letters.start_up = Some(vector);
                }
            }
            Op::PostLint0(level) => {
                let _ = self.mailbox.post_lint0(level);
                let letters = &mut self.letters;
                if letters.lint0 != level {
                    letters.lint0 = level;
                    letters.lint0_news = true;
                    letters.lint0_rose |= level;
                }
            }
            Op::Collect => self.collect()?,
            Op::Pin(pin, level) => {
                program.set_lint(pin, level);
                reference.set_pin(pin, level);
            }
            Op::ExtIntAcknowledged => {
                same!("latched", program.extint_acknowledged(), reference.extint_acknowledged());
            }
            Op::Raise(source) => {
                let source = match source {
                    0 => LocalSource::CorrectedMachineCheck,
                    1 => LocalSource::Thermal,
                    _ => LocalSource::PerformanceCounter,
                };
                program.raise(source);
                reference.raise(match source {
                    LocalSource::CorrectedMachineCheck => CMCI,
                    LocalSource::Thermal => THERMAL,
                    LocalSource::PerformanceCounter => PERFORMANCE,
                });
            }
            Op::TakeInit => same!("INIT by a pin", program.take_init(), reference.take_init()),
            Op::AcknowledgeLate => {
                same!("late acknowledge", program.acknowledge_late(), reference.acknowledge_late());
            }
            Op::Snapshot => {
                let restored = LocalApic::restore(config(reference.variant), &program.save());
                same!("snapshot", restored.as_ref(), Ok(&*program));
                // Compared is what is seen from now on: nothing may hang on what a snapshot leaves out.
                *program = restored.map_err(|e| e.to_string())?;
                self.mailbox = Mailbox::restore(&self.mailbox.save());
            }
            Op::TakeNmi => same!("NMI", program.take_nmi(), reference.take_nmi()),
            Op::Init => {
                program.init();
                reference.init();
            }
            Op::Acknowledge => {
                let vector = reference.acknowledge();
                self.seen.0[7] += u64::from(vector.is_some());
                same!("acknowledged", program.acknowledge(), vector);
            }
            Op::Eoi => same_effect(outcome(Ok(program.eoi())), reference.eoi())?,
            Op::Cr8(class) => {
                program.set_cr8(class);
                reference.set_cr8(class);
            }
            Op::VirtualWire => {
                same_effect(outcome(Ok(program.enter_virtual_wire_mode())), reference.virtual_wire())?;
            }
            Op::Step(more_ns, more_tsc) => {
                self.ns = ns + more_ns;
                self.tsc = tsc.wrapping_add(more_tsc);
            }
            Op::Expire => {
                program.expire(Now { ns, tsc });
                self.seen.0[9] += u64::from(reference.expire(ns, tsc));
            }
        }
        if self.compare()? {
            self.seen.state(&self.reference);
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), String> {
        let events = self.program.collect(&self.mailbox);
        let letters = &mut self.letters;
        let lint0 = letters.lint0_news.then_some((letters.lint0, letters.lint0_rose));
        self.reference.collect(&letters.edge, &letters.level, letters.extint, letters.smi, lint0);
        same!("NMI by message", events.nmis, letters.nmis);
        same!("INIT", events.init, letters.init);
        same!("start-up", events.start_up, letters.start_up);
        same!("attention", events.attention, false);
        // An INIT makes an application processor wait; a start-up, which comes after it, ends that.
        if letters.start_up.is_some() {
            letters.waiting = false;
        } else if letters.init {
            letters.waiting = !self.reference.variant.bsp;
        }
        (letters.edge, letters.level) = ([false; 256], [false; 256]);
        (letters.nmis, letters.smi, letters.extint, letters.init, letters.start_up) = (0, false, false, false, None);
        (letters.lint0_news, letters.lint0_rose) = (false, false);
        if events.init {
            self.program.init();
            self.reference.init();
        }
        Ok(())
    }

    /// Everything that shows; whether anything had changed. Registers are read again only if one of the two has changed
    /// in any bit since they were last found alike; the current count, which time alone changes, always.
    fn compare(&mut self) -> Result<bool, String> {
        let (program, reference) = (&mut self.program, &mut self.reference);
        let count = if reference.extended { 0x839 } else { 0x390 };
        let a = match program.mode() {
            Mode::Disabled => None,
            Mode::XApic => Some(mmio(program, self.ns, count)),
            Mode::X2Apic => program.read_msr(self.ns, count).ok(),
        };
        let b = if reference.enabled { reference.register(self.ns, 0x390).map(u64::from) } else { None };
        same!("current count", a, b);
        if self.compared.as_ref().is_some_and(|(a, b)| a == program && b == reference) {
            return Ok(false);
        }
        same!("IA32_APIC_BASE", program.base(), reference.base());
        let mode = match (reference.enabled, reference.extended) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
        };
        same!("mode", program.mode(), mode);
        same!("page", program.mmio_page(), (mode == Mode::XApic).then_some(reference.page));
        same!("address", address(program), reference.address());
        same!("PPR", program.ppr(), reference.ppr());
        same!("TPR", (program.tpr(), program.cr8()), (reference.tpr, reference.tpr / 16));
        same!("deliverable", program.deliverable(), reference.deliverable());
        same!("blocked by TPR", program.blocked_by_tpr(), reference.blocked_by_tpr());
        same!("ExtINT pending", program.extint_pending(), reference.extint_pending());
        let next = match program.next_deadline() {
            None => None,
            Some(Deadline::At(ns)) => Some((false, ns)),
            Some(Deadline::Tsc(tsc)) => Some((true, tsc)),
        };
        same!("deadline", next, reference.timer.next());
        same!("SMIs", program.smis(), reference.smis);
        let vectors_too = match &self.compared {
            None => true,
            Some((a, b)) => {
                (a.irr(), a.isr(), a.tmr()) != (program.irr(), program.isr(), program.tmr())
                    || (&b.irr, &b.isr, &b.tmr) != (&reference.irr, &reference.isr, &reference.tmr)
                    || a.mode() != mode
            }
        };
        compare_registers(program, reference, self.ns, mode, vectors_too)?;
        self.compared = Some((program.clone(), reference.clone()));
        Ok(true)
    }
}

fn compare_registers(
    program: &mut LocalApic,
    reference: &mut RefApic,
    ns: u64,
    mode: Mode,
    vectors_too: bool,
) -> Result<(), String> {
    for offset in (0x20..0x400).step_by(0x10) {
        let vectors = (0x100..0x280).contains(&offset);
        // The end-of-interrupt register shows nothing.
        if offset == 0xb0 || (vectors && !vectors_too) {
            continue;
        }
        match mode {
            // Nothing shows; what is held would after the next enabling.
            Mode::Disabled if vectors => {
                let set = [program.isr(), program.tmr(), program.irr()][(offset as usize - 0x100) / 0x80];
                same!(format!("held {offset:#x}"), Some(set.register(offset / 16 % 8)), reference.register(ns, offset));
            }
            Mode::Disabled => {}
            Mode::XApic => {
                if let Some(shown) = reference.register(ns, offset) {
                    same!(format!("register {offset:#x}"), mmio(program, ns, offset), u64::from(shown));
                }
            }
            Mode::X2Apic => {
                let msr = 0x800 + offset / 16;
                same!(format!("MSR {msr:#x}"), program.read_msr(ns, msr).ok(), reference.read_msr(ns, msr));
            }
        }
    }
    Ok(())
}

fn mmio(program: &mut LocalApic, ns: u64, offset: u32) -> u64 {
    let mut data = [0; 4];
    program.read_mmio(ns, u64::from(offset), &mut data);
    u64::from(u32::from_le_bytes(data))
}

fn trigger(level: bool) -> TriggerMode {
    if level { TriggerMode::Level } else { TriggerMode::Edge }
}

fn address(program: &LocalApic) -> RefAddress {
    let address = program.address();
    let (kind, logical) = match address.logical {
        LogicalId::None => ('-', 0),
        LogicalId::Flat(id) => ('f', u32::from(id)),
        LogicalId::Cluster(id) => ('c', u32::from(id)),
        LogicalId::X2Apic(id) => ('x', id),
    };
    (address.present, address.id, kind, logical, address.enabled)
}

/// The program's effect in the reference's words. An IPI that is not an edge has none.
fn outcome(effect: Result<Effect, Gp>) -> Outcome {
    let ipi = match effect {
        Err(Gp) => return Outcome::Fault,
        Ok(Effect::None) => return Outcome::Nothing,
        Ok(Effect::Eoi(vector)) => return Outcome::EndOfLevel(vector),
        Ok(Effect::Readdressed) => return Outcome::AddressChanged,
        Ok(Effect::Ipi(ipi)) => ipi,
    };
    let Message { destination, mode, vector, trigger } = ipi.message;
    if trigger != TriggerMode::Edge {
        return Outcome::LevelIpi;
    }
    let to = match (ipi.shorthand, destination) {
        (Shorthand::Myself, _) => To::Myself,
        (Shorthand::All, _) => To::Everyone,
        (Shorthand::AllButSelf, _) => To::Others,
        (Shorthand::None, Destination::Broadcast) => To::All,
        (Shorthand::None, Destination::Byte255 { .. }) => panic!("no ICR has such a destination: {ipi:?}"),
        (Shorthand::None, Destination::Physical(id)) => To::Physical(id),
        (Shorthand::None, Destination::Logical(id)) => To::Logical(id),
    };
    Outcome::Ipi { to, mode: mode as u8, vector }
}
