//! The pins LINT0 and LINT1 and the interrupts of the local vector table (Intel SDM vol. 3A, section "Local Vector
//! Table"): virtual wire, NMI, INIT, fixed edge and level; and the processor's own sources behind the other entries.

use fault::Fault;
use x86::apic::{DeliveryMode, Lvt, Svr, TriggerMode};

use super::lvt::LvtEntry;
use super::{Effect, LocalApic, Mode};
use crate::ledger::Source;

/// What in a processor, besides the timer and errors, has an entry in the local vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalSource {
    /// Corrected machine-check errors have reached their threshold; exists only with [`super::Config::cmci`].
    CorrectedMachineCheck,
    /// The thermal sensor has tripped.
    Thermal,
    /// A performance counter has overflowed.
    PerformanceCounter,
}

impl LocalApic {
    /// Something inside the processor asks for its interrupt.
    ///
    /// A performance counter's interrupt masks its own entry (Intel SDM vol. 3B, section "Generating an Interrupt on
    /// Overflow"): the handler unmasks it when it has dealt with the counter.
    pub fn raise(&mut self, source: LocalSource) {
        let (entry, source) = match source {
            LocalSource::CorrectedMachineCheck if !self.cmci => return,
            LocalSource::CorrectedMachineCheck => (LvtEntry::Cmci, Source::Cmci),
            LocalSource::Thermal => (LvtEntry::Thermal, Source::Thermal),
            LocalSource::PerformanceCounter => (LvtEntry::Perf, Source::Perf),
        };
        if self.mode == Mode::Disabled {
            return self.drop_from(source, |dropped| &mut dropped.disabled);
        }
        let lvt = self.lvt.get(entry);
        // "100 NMI" and "010 SMI" are for all, INIT and ExtINT for the pins only.
        if lvt.mode() != DeliveryMode::Init {
            self.fire(source, lvt);
        } else {
            self.drop_from(source, |dropped| &mut dropped.malformed);
        }
        if entry == LvtEntry::Perf {
            self.lvt.mask(entry);
        }
    }

    /// Drives pin LINT0 (`pin` 0) or LINT1 (`pin` 1).
    pub fn set_lint(&mut self, pin: usize, level: bool) {
        let rising = level && !self.lint[pin];
        self.lint[pin] = level;
        if self.mode == Mode::Disabled {
            // A processor without a local APIC: LINT1 is its NMI pin; LINT0, its INTR pin, is a level.
            if rising && pin == 1 {
                self.nmi_from(Source::Lint1);
            }
            return;
        }
        let lvt = self.lint_entry(pin);
        let source = if pin == 0 { Source::Lint0 } else { Source::Lint1 };
        match lvt.mode() {
            // "Level-sensitive interrupts are not supported for LINT1": there, the trigger mode does not count.
            DeliveryMode::Fixed if lvt.level() && pin == 0 => self.evaluate_lint0(),
            // Always level-sensitive: `extint_pending` looks at the pin.
            DeliveryMode::ExtInt => {}
            _ if rising => self.fire(source, lvt),
            _ => {}
        }
    }

    /// The 8259A pair may interrupt: an ExtINT request gets through to the processor (virtual-wire mode by a LINT pin
    /// or an I/O APIC pin; or the APIC is globally disabled and LINT0 is the INTR pin).
    pub fn extint_pending(&self) -> bool {
        let wired = |pin: usize| {
            let lvt = self.lint_entry(pin);
            let masked = lvt.masked() && !fault::is(Fault::Lint0MaskIgnored);
            self.lint[pin] && !masked && lvt.mode() == DeliveryMode::ExtInt
        };
        match self.mode {
            Mode::Disabled => self.lint[0],
            _ => self.extint || wired(0) || wired(1),
        }
    }

    /// Pin LINT0 is set to NMI or INIT and not masked: what drives it can wake a processor that takes no interrupt.
    pub fn lint0_gives_nmi(&self) -> bool {
        let lvt = self.lint_entry(0);
        let wakes = matches!(lvt.mode(), DeliveryMode::Nmi | DeliveryMode::Init);
        self.mode != Mode::Disabled && !lvt.masked() && wakes
    }

    /// The ExtINT request is being acknowledged. True: it came as a message, from an I/O APIC pin. Then the acknowledge
    /// cycle runs whatever the 8259A pair asks by now, while a LINT pin that has fallen asks for none.
    pub fn extint_acknowledged(&mut self) -> bool {
        let kept = self.extint && fault::now_and_then(Fault::ExtIntKept);
        std::mem::replace(&mut self.extint, kept)
    }

    /// Takes an INIT that a LINT pin raised.
    pub fn take_init(&mut self) -> bool {
        std::mem::take(&mut self.init_raised)
    }

    /// Takes an NMI that a LINT pin or another LVT entry raised.
    pub fn take_nmi(&mut self) -> bool {
        let nmi = std::mem::take(&mut self.nmi);
        self.ledger.nmis.delivered += u64::from(nmi);
        nmi
    }

    /// What firmware leaves on the bootstrap processor: software-enabled, LINT0 in ExtINT and LINT1 in NMI mode
    /// (MultiProcessor Specification, section "Virtual Wire Mode").
    pub fn enter_virtual_wire_mode(&mut self) -> Effect {
        self.svr = Svr::from_bits(0xff).with_enabled(true);
        let mode = |mode: DeliveryMode| Lvt::new().with_delivery_mode(mode as u8).into_bits();
        self.lvt.write(LvtEntry::Lint0, mode(DeliveryMode::ExtInt), true);
        self.lvt.write(LvtEntry::Lint1, mode(DeliveryMode::Nmi), true);
        Effect::Readdressed
    }

    /// An LVT entry's interrupt.
    fn fire(&mut self, source: Source, lvt: Lvt) {
        if lvt.masked() {
            return self.drop_from(source, |dropped| &mut dropped.masked);
        }
        match lvt.mode() {
            DeliveryMode::Fixed => {
                self.accept_from(source, lvt.vector(), TriggerMode::Edge);
            }
            DeliveryMode::Nmi => self.nmi_from(source),
            DeliveryMode::Smi => {
                self.event_from(source);
                self.smis += 1;
            }
            DeliveryMode::Init => {
                self.event_from(source);
                self.init_raised = true;
            }
            // ExtINT is looked at, not raised; the others are reserved in an LVT.
            _ => self.drop_from(source, |dropped| &mut dropped.malformed),
        }
    }

    fn lint_entry(&self, pin: usize) -> Lvt {
        self.lvt.get(if pin == 0 { LvtEntry::Lint0 } else { LvtEntry::Lint1 })
    }

    /// A level-triggered fixed LINT0 requests while it is high and its remote IRR is clear.
    pub(super) fn evaluate_lint0(&mut self) {
        let lvt = self.lint_entry(0);
        let level = lvt.level() && lvt.mode() == DeliveryMode::Fixed;
        if level && self.lint[0] && !lvt.masked() && !lvt.remote_irr() {
            self.accept_from(Source::Lint0, lvt.vector(), TriggerMode::Level);
            // An illegal vector was refused, and no EOI will come for it.
            self.lvt.set_remote_irr(LvtEntry::Lint0, self.irr.contains(lvt.vector()));
            self.lint0_vector = lvt.vector();
        }
    }

    /// An interrupt with this vector has ended: if it was LINT0's, LINT0 may request again. Remote IRR "is reset when an EOI
    /// command is received" (section "Local Vector Table"), whatever TMR says by then: an edge request with the same vector may
    /// have come since.
    pub(super) fn eoi_lint0(&mut self, vector: u8) {
        if self.lint0_waits_for(vector) {
            self.lvt.set_remote_irr(LvtEntry::Lint0, false);
            self.evaluate_lint0();
        }
    }

    /// LINT0's remote IRR ends with an EOI of this vector.
    pub(super) fn lint0_waits_for(&self, vector: u8) -> bool {
        self.lint_entry(0).remote_irr() && self.lint0_vector == vector
    }
}
