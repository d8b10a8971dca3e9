//! The reference: one local APIC as plain flags and bytes, from the Intel SDM vol. 3A, chapter "Advanced Programmable
//! Interrupt Controller (APIC)". Slow and literal on purpose; it shares nothing with the program.

use crate::choices::*;
use crate::timer::RefTimer;

/// Places in `RefApic::lvt`, in no order that means anything.
pub const TIMER: usize = 0;
pub const THERMAL: usize = 1;
pub const PERFORMANCE: usize = 2;
pub const LINT0: usize = 3;
pub const LINT1: usize = 4;
pub const ERROR: usize = 5;
pub const CMCI: usize = 6;

/// What a processor with this local APIC offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    pub id: u32,
    pub bsp: bool,
    pub x2apic: bool,
    pub tsc_deadline: bool,
    pub cmci: bool,
    pub physical_bits: u32,
}

/// Where an IPI goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Physical(u32),
    Logical(u32),
    All,
    Myself,
    Everyone,
    Others,
}

/// What a write does outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Ipi {
        to: To,
        mode: u8,
        vector: u8,
    },
    /// What no IPI may be; the reference never says it.
    LevelIpi,
    EndOfLevel(u8),
    AddressChanged,
    Fault,
}

/// What others must know: present, ID, logical model ('-', 'f', 'c', 'x') and logical ID, software-enabled.
pub type RefAddress = (bool, u32, char, u32, bool);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefApic {
    pub variant: Variant,
    pub page: u64,
    pub enabled: bool,
    pub extended: bool,
    pub irr: [bool; 256],
    pub isr: [bool; 256],
    pub tmr: [bool; 256],
    pub tpr: u8,
    pub ldr: u8,
    pub model: u8,
    pub spurious: u32,
    pub esr_seen: u8,
    pub esr_new: u8,
    pub error_told: bool,
    pub icr_low: u32,
    pub icr_high: u32,
    pub lvt: [u32; 7],
    pub timer: RefTimer,
    pub pins: [bool; 2],
    pub lint0_waits_for: u8,
    pub nmi: bool,
    pub init_by_pin: bool,
    pub extint_message: bool,
    pub smis: u64,
}

impl RefApic {
    pub fn new(variant: Variant) -> Self {
        RefApic {
            variant,
            page: 0xfee0_0000,
            enabled: true,
            extended: false,
            irr: [false; 256],
            isr: [false; 256],
            tmr: [false; 256],
            tpr: 0,
            ldr: 0,
            model: 15,
            spurious: 0xff,
            esr_seen: 0,
            esr_new: 0,
            error_told: false,
            icr_low: 0,
            icr_high: 0,
            lvt: [0x1_0000; 7],
            timer: RefTimer::default(),
            pins: [false; 2],
            lint0_waits_for: 0,
            nmi: false,
            init_by_pin: false,
            extint_message: false,
            smis: 0,
        }
    }

    /// Section "Local APIC State After It Has Received an INIT Reset": as after power-up, but for the ID (and the mode,
    /// section "x2APIC States"). What others drive onto the pins, and what was counted, are no state of the registers.
    pub fn init(&mut self) {
        let old = self.clone();
        *self = RefApic::new(old.variant);
        self.page = old.page;
        self.enabled = old.enabled;
        self.extended = old.extended;
        self.pins = old.pins;
        self.smis = old.smis;
        if INIT_KEEPS_LATCHED_NMI {
            self.nmi = old.nmi;
        }
    }

    pub fn base(&self) -> u64 {
        let mut value = self.page;
        if self.variant.bsp {
            value += 0x100;
        }
        if self.extended {
            value += 0x400;
        }
        if self.enabled {
            value += 0x800;
        }
        value
    }

    /// Sections "Local APIC Status and Location" and "x2APIC State Transitions".
    pub fn write_base(&mut self, value: u64) -> Outcome {
        for bit in 0..64 {
            let defined = match bit {
                8 | 11 => true,
                10 => self.variant.x2apic,
                12..64 => bit < self.variant.physical_bits,
                _ => false,
            };
            if !defined && value >> bit & 1 == 1 {
                return Outcome::Fault;
            }
        }
        let (en, extd) = (value & 0x800 == 0x800, value & 0x400 == 0x400);
        match ((self.enabled, self.extended), (en, extd)) {
            // The invalid state.
            (_, (false, true)) => return Outcome::Fault,
            // Not in the figure "Local x2APIC State Transitions with IA32_APIC_BASE, INIT, and Reset".
            ((false, false), (true, true)) | ((true, true), (true, false)) => return Outcome::Fault,
            _ => {}
        }
        let before = self.address();
        self.page = value & !0xfff;
        if BSP_FLAG_IS_WRITABLE {
            self.variant.bsp = value & 0x100 != 0;
        }
        if self.enabled && !en {
            // Section "Enabling or Disabling the Local APIC": "all local APIC registers are reset".
            self.enabled = false;
            self.extended = false;
            self.init();
        } else {
            if extd && !self.extended && X2APIC_CLEARS_DESTINATION {
                self.icr_high = 0;
            }
            self.enabled = en;
            self.extended = extd;
        }
        if before == self.address() { Outcome::Nothing } else { Outcome::AddressChanged }
    }

    pub fn address(&self) -> RefAddress {
        if !self.enabled {
            return (false, 0, '-', 0, false);
        }
        let on = self.spurious & 0x100 == 0x100;
        let id = self.variant.id;
        if self.extended {
            return (true, id, 'x', self.x2apic_logical_id(), on);
        }
        match self.model {
            0b1111 => (true, id, 'f', self.ldr as u32, on),
            0b0000 => (true, id, 'c', self.ldr as u32, on),
            _ if !RESERVED_MODEL_MATCHES_NOTHING => (true, id, 'f', self.ldr as u32, on),
            _ => (true, id, '-', 0, on),
        }
    }

    /// Section "Deriving Logical x2APIC ID from the Local x2APIC ID".
    pub fn x2apic_logical_id(&self) -> u32 {
        let id = self.variant.id;
        ((id / 16) << 16) + (1 << (id % 16))
    }

    /// Section "Interrupt Acceptance for Fixed Interrupts".
    pub fn accept(&mut self, vector: u8, level: bool) {
        if !self.enabled {
            return;
        }
        if vector < 16 {
            self.error(0x40);
            return;
        }
        self.irr[vector as usize] = true;
        self.tmr[vector as usize] = level;
    }

    /// Section "Error Handling": what comes is noted; the interrupt is sent once until ESR is written.
    pub fn error(&mut self, bits: u8) {
        if !self.enabled {
            return;
        }
        self.esr_new |= bits;
        if !self.error_told && self.lvt[ERROR] & 0x1_0000 == 0 {
            self.error_told = true;
            self.accept((self.lvt[ERROR] & 0xff) as u8, false);
        }
    }

    fn top(set: &[bool; 256]) -> Option<u8> {
        for class in (0..16).rev() {
            let members = &set[class * 16..class * 16 + 16];
            if members != [false; 16] {
                return members.iter().rposition(|&member| member).map(|place| (class * 16 + place) as u8);
            }
        }
        None
    }

    /// Section "Task and Processor Priorities", tables for PPR[7:4] and PPR[3:0].
    pub fn ppr(&self) -> u8 {
        let isrv = RefApic::top(&self.isr).unwrap_or(0);
        let (task, service) = (self.tpr / 16, isrv / 16);
        if task > service {
            self.tpr
        } else if task < service {
            service * 16
        } else if PPR_SUBCLASS_IS_TPRS_ON_A_TIE {
            self.tpr
        } else {
            service * 16
        }
    }

    /// Section "Lowest Priority Delivery Mode", the rule for APR.
    pub fn apr(&self) -> u8 {
        let irrv = RefApic::top(&self.irr).unwrap_or(0) / 16;
        let isrv = RefApic::top(&self.isr).unwrap_or(0) / 16;
        let task = self.tpr / 16;
        if task >= irrv && task > isrv { self.tpr } else { task.max(isrv).max(irrv) * 16 }
    }

    pub fn deliverable(&self) -> Option<u8> {
        let request = RefApic::top(&self.irr)?;
        (self.enabled && request / 16 > self.ppr() / 16).then_some(request)
    }

    pub fn blocked_by_tpr(&self) -> bool {
        let Some(request) = RefApic::top(&self.irr) else { return false };
        let service = RefApic::top(&self.isr).unwrap_or(0);
        self.enabled && request / 16 > service / 16 && request / 16 <= self.tpr / 16
    }

    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        self.irr[vector as usize] = false;
        self.isr[vector as usize] = true;
        Some(vector)
    }

    /// Section "Signaling Interrupt Servicing Completion".
    pub fn eoi(&mut self) -> Outcome {
        let Some(vector) = RefApic::top(&self.isr) else { return Outcome::Nothing };
        self.isr[vector as usize] = false;
        let broadcast = self.tmr[vector as usize];
        // Remote IRR "is reset when an EOI command is received": TMR has no part in it.
        if self.lvt[LINT0] & 0x4000 != 0 && self.lint0_waits_for == vector {
            self.lvt[LINT0] &= !0x4000;
            self.look_at_level_lint0();
        }
        if !broadcast {
            return Outcome::Nothing;
        }
        if EOI_SUPPRESSION_OFFERED && self.spurious & 0x1000 != 0 {
            return Outcome::Nothing;
        }
        Outcome::EndOfLevel(vector)
    }

    pub fn set_cr8(&mut self, class: u8) {
        // CR8 has four bits; the same value again is no write (a choice, as KVM reports values, not writes).
        if class % 16 != self.tpr / 16 {
            self.tpr = class % 16 * 16;
        }
    }

    /// Section "Local Vector Table": what an edge on a pin does.
    pub fn set_pin(&mut self, pin: usize, level: bool) {
        let rose = level && !self.pins[pin];
        self.pins[pin] = level;
        if !self.enabled {
            // Section "Enabling or Disabling the Local APIC": the pins are INTR and NMI.
            if pin == 1 && rose {
                self.nmi = true;
            }
            return;
        }
        if pin == 0 {
            self.look_at_level_lint0();
        }
        if rose {
            self.pin_rose(if pin == 0 { LINT0 } else { LINT1 });
        }
    }

    fn pin_rose(&mut self, entry: usize) {
        let value = self.lvt[entry];
        if value & 0x1_0000 != 0 {
            return;
        }
        match value >> 8 & 7 {
            0 if entry == LINT0 && value & 0x8000 != 0 => {}
            0 => self.accept((value & 0xff) as u8, false),
            2 => self.smis += 1,
            4 => self.nmi = true,
            5 => self.init_by_pin = true,
            // ExtINT is looked at, not latched; the others are reserved.
            _ => {}
        }
    }

    /// Fixed, level: asserted, not masked, not being served.
    pub fn look_at_level_lint0(&mut self) {
        let value = self.lvt[LINT0];
        if self.pins[0] && value & 0x1_0000 == 0 && value & 0x700 == 0 && value & 0x8000 != 0 && value & 0x4000 == 0 {
            let vector = (value & 0xff) as u8;
            if vector >= 16 {
                self.lvt[LINT0] |= 0x4000;
                self.lint0_waits_for = vector;
            }
            self.accept(vector, true);
        }
    }

    pub fn extint_pending(&self) -> bool {
        if !self.enabled {
            return self.pins[0];
        }
        let wired = self.lvt[LINT0] & 0x1_0700 == 0x700 && self.pins[0];
        let wired1 = EXTINT_ON_LINT1 && self.lvt[LINT1] & 0x1_0700 == 0x700 && self.pins[1];
        wired || wired1 || self.extint_message
    }

    pub fn extint_acknowledged(&mut self) -> bool {
        let was = self.extint_message;
        self.extint_message = false;
        was
    }

    pub fn take_init(&mut self) -> bool {
        let was = self.init_by_pin;
        self.init_by_pin = false;
        was
    }

    /// Section "Local Vector Table": thermal, performance and CMCI entries know Fixed, SMI and NMI.
    pub fn raise(&mut self, entry: usize) {
        if !self.enabled || (entry == CMCI && !self.variant.cmci) {
            return;
        }
        let value = self.lvt[entry];
        if value & 0x1_0000 == 0 {
            match value / 0x100 % 8 {
                0 => self.accept((value % 0x100) as u8, false),
                2 => self.smis += 1,
                4 => self.nmi = true,
                _ => {}
            }
        }
        // Vol. 3B, "Generating an Interrupt on Overflow": the handler has to unmask.
        if entry == PERFORMANCE {
            self.lvt[entry] |= 0x1_0000;
        }
    }

    /// Section "Spurious Interrupt".
    pub fn acknowledge_late(&mut self) -> u8 {
        match self.acknowledge() {
            Some(vector) => vector,
            None => (self.spurious % 0x100) as u8,
        }
    }

    pub fn take_nmi(&mut self) -> bool {
        let was = self.nmi;
        self.nmi = false;
        was
    }

    pub fn virtual_wire(&mut self) -> Outcome {
        let before = self.address();
        self.spurious = 0x1ff;
        self.lvt[LINT0] = 0x700;
        self.lvt[LINT1] = 0x400;
        if before == self.address() && !EQUAL_ADDRESS_IS_REPORTED { Outcome::Nothing } else { Outcome::AddressChanged }
    }

    /// Whether the timer fired.
    pub fn expire(&mut self, ns: u64, tsc: u64) -> bool {
        let fired = self.timer.expire(ns, tsc);
        if fired && self.lvt[TIMER] & 0x1_0000 == 0 {
            self.accept((self.lvt[TIMER] & 0xff) as u8, false);
        }
        fired
    }

    /// What came by messages: edge and level requests, ExtINT, SMI, LINT0 as (level, rose).
    pub fn collect(
        &mut self,
        edge: &[bool; 256],
        level: &[bool; 256],
        extint: bool,
        smi: bool,
        lint0: Option<(bool, bool)>,
    ) {
        let legal_first = (16..=255u8).chain(0..16);
        let illegal_first = 0..=255u8;
        let order: &mut dyn Iterator<Item = u8> =
            if ILLEGAL_VECTORS_ARE_NOTED_LAST { &mut { legal_first } } else { &mut { illegal_first } };
        for vector in order {
            let (by_edge, by_level) = (edge[vector as usize], level[vector as usize]);
            if by_edge || by_level {
                self.accept(vector, by_level && (LEVEL_BEATS_EDGE || !by_edge));
            }
        }
        if extint && self.enabled {
            self.extint_message = true;
        }
        if smi {
            self.smis += 1;
        }
        if let Some((level, rose)) = lint0 {
            if rose && self.pins[0] {
                // Fell and rose in between: an edge.
                self.set_pin(0, false);
            }
            if rose {
                self.set_pin(0, true);
            }
            self.set_pin(0, level);
        }
    }
}
