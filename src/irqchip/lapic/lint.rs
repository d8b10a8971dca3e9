//! The pins LINT0 and LINT1 and the interrupts of the local vector table (Intel SDM vol. 3A, section "Local Vector
//! Table"): virtual wire, NMI, fixed edge and level.

use x86::apic::{DeliveryMode, Lvt, Svr, TriggerMode};

use super::lvt::LvtEntry;
use super::{Effect, LocalApic, Mode};

impl LocalApic {
    /// Drives pin LINT0 (`pin` 0) or LINT1 (`pin` 1).
    pub fn set_lint(&mut self, pin: usize, level: bool) {
        let rising = level && !self.lint[pin];
        self.lint[pin] = level;
        if self.mode == Mode::Disabled {
            // A processor without a local APIC: LINT1 is its NMI pin; LINT0, its INTR pin, is a level.
            self.nmi |= rising && pin == 1;
            return;
        }
        let lvt = self.lint_entry(pin);
        match lvt.mode() {
            // "Level-sensitive interrupts are not supported for LINT1": there, the trigger mode does not count.
            DeliveryMode::Fixed if lvt.level() && pin == 0 => self.evaluate_lint0(),
            // Always level-sensitive: `extint_pending` looks at the pin.
            DeliveryMode::ExtInt => {}
            _ if rising => self.fire(lvt),
            _ => {}
        }
    }

    /// The 8259A pair may interrupt: an ExtINT request gets through to the processor (virtual-wire mode by a LINT pin
    /// or an I/O APIC pin; or the APIC is globally disabled and LINT0 is the INTR pin).
    pub fn extint_pending(&self) -> bool {
        let wired = |pin: usize| {
            let lvt = self.lint_entry(pin);
            self.lint[pin] && !lvt.masked() && lvt.mode() == DeliveryMode::ExtInt
        };
        match self.mode {
            Mode::Disabled => self.lint[0],
            _ => self.extint || wired(0) || wired(1),
        }
    }

    /// The ExtINT request was acknowledged (the 8259A pair gave its vector).
    pub fn extint_acknowledged(&mut self) {
        self.extint = false;
    }

    /// Takes an NMI that a LINT pin or another LVT entry raised.
    pub fn take_nmi(&mut self) -> bool {
        std::mem::take(&mut self.nmi)
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
    fn fire(&mut self, lvt: Lvt) {
        if lvt.masked() {
            return;
        }
        match lvt.mode() {
            DeliveryMode::Fixed => self.accept(lvt.vector(), TriggerMode::Edge),
            DeliveryMode::Nmi => self.nmi = true,
            DeliveryMode::Smi => self.smis += 1,
            // INIT is not modelled, the others are reserved in an LVT.
            _ => {}
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
            self.accept(lvt.vector(), TriggerMode::Level);
            // An illegal vector was refused, and no EOI will come for it.
            self.lvt.set_remote_irr(LvtEntry::Lint0, self.irr.contains(lvt.vector()));
            self.lint0_vector = lvt.vector();
        }
    }

    /// A level interrupt with this vector has ended: if it was LINT0's, LINT0 may request again.
    pub(super) fn eoi_lint0(&mut self, vector: u8) {
        if self.lint_entry(0).remote_irr() && self.lint0_vector == vector {
            self.lvt.set_remote_irr(LvtEntry::Lint0, false);
            self.evaluate_lint0();
        }
    }
}
