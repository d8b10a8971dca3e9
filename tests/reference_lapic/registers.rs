//! The reference's registers: table "Local APIC Register Address Map" and section "x2APIC Register Address Space".

use crate::choices::*;
use crate::model::*;

/// Figure "Interrupt Command Register (ICR)": vector, delivery mode, destination mode, level, trigger, shorthand.
const ICR_KEEPS: u32 = 0x000c_cfff;

/// Bits that only hardware sets, as a write of an x2APIC register may have them.
fn read_only(bits: u64) -> u64 {
    if STATUS_BITS_ARE_NOT_RESERVED { bits } else { 0 }
}

impl RefApic {
    fn word(set: &[bool; 256], offset: u32) -> u32 {
        let first = (offset as usize & 0x70) * 2;
        (0..32).map(|bit| (set[first + bit] as u32) << bit).sum()
    }

    fn lvt_at(&self, offset: u32) -> Option<usize> {
        match offset {
            0x2f0 => self.variant.cmci.then_some(CMCI),
            0x320 => Some(TIMER),
            0x330 => Some(THERMAL),
            0x340 => Some(PERFORMANCE),
            0x350 => Some(LINT0),
            0x360 => Some(LINT1),
            0x370 => Some(ERROR),
            _ => None,
        }
    }

    /// Figure "Local Vector Table": what software may set.
    fn lvt_writable(&self, entry: usize) -> u32 {
        match entry {
            TIMER if self.variant.tsc_deadline => 0x7_00ff,
            TIMER => 0x3_00ff,
            LINT0 | LINT1 => 0x1_a7ff,
            ERROR => 0x1_00ff,
            _ => 0x1_07ff,
        }
    }

    /// What the register at `offset` shows; `None` where there is none.
    pub fn register(&self, ns: u64, offset: u32) -> Option<u32> {
        Some(match offset {
            0x020 if self.extended => self.variant.id,
            0x020 => (self.variant.id & 0xff) << 24,
            0x030 => {
                let entries = if self.variant.cmci { 7 } else { 6 };
                0x14 | (entries - 1) << 16 | (EOI_SUPPRESSION_OFFERED as u32) << 24
            }
            0x080 => self.tpr as u32,
            0x090 => self.apr() as u32,
            0x0a0 => self.ppr() as u32,
            0x0b0 | 0x0c0 => 0,
            0x0d0 if self.extended => self.x2apic_logical_id(),
            0x0d0 => (self.ldr as u32) << 24,
            0x0e0 => (self.model as u32) << 28 | 0x0fff_ffff,
            0x0f0 => self.spurious,
            0x100 | 0x110 | 0x120 | 0x130 | 0x140 | 0x150 | 0x160 | 0x170 => RefApic::word(&self.isr, offset),
            0x180 | 0x190 | 0x1a0 | 0x1b0 | 0x1c0 | 0x1d0 | 0x1e0 | 0x1f0 => RefApic::word(&self.tmr, offset - 0x180),
            0x200 | 0x210 | 0x220 | 0x230 | 0x240 | 0x250 | 0x260 | 0x270 => RefApic::word(&self.irr, offset),
            0x280 => self.esr_seen as u32,
            0x300 => self.icr_low,
            0x310 => self.icr_high,
            0x380 => self.timer.initial,
            0x390 => self.timer.current(ns),
            0x3e0 => self.timer.divide as u32,
            _ => return self.lvt_at(offset).map(|entry| self.lvt[entry]),
        })
    }

    pub fn read_mmio(&mut self, ns: u64, offset: u64, data: &mut [u8]) {
        if !self.enabled || self.extended {
            data.fill(0xff);
            return;
        }
        for place in 0..data.len() as u64 {
            if !NARROW_READS_WORK && (offset & 15 != 0 || data.len() != 4) {
                break;
            }
            let at = offset + place;
            let shown = if at % 16 < 4 { self.register(ns, (at - at % 16) as u32) } else { Some(0) };
            // Once for each register touched.
            if shown.is_none() && (at & 15 == 0 || place == 0) {
                self.error(0x80);
            }
            data[place as usize] = shown.unwrap_or(0).to_le_bytes()[(at % 4) as usize];
        }
    }

    pub fn write_mmio(&mut self, ns: u64, offset: u64, data: &[u8]) -> Outcome {
        if !self.enabled || self.extended || data.len() != 4 || offset & 15 != 0 {
            return Outcome::Nothing;
        }
        let value = data[0] as u32 | (data[1] as u32) << 8 | (data[2] as u32) << 16 | (data[3] as u32) << 24;
        let offset = offset as u32;
        let before = self.address();
        match offset {
            0x0d0 | 0x0e0 => {
                if offset == 0x0d0 {
                    self.ldr = (value >> 24) as u8;
                } else {
                    self.model = (value >> 28) as u8;
                }
                if EQUAL_ADDRESS_IS_REPORTED {
                    return Outcome::AddressChanged;
                }
            }
            0x310 => self.icr_high = value & 0xff00_0000,
            0x300 => {
                self.icr_low = value & ICR_KEEPS;
                return self.send();
            }
            // Read-only.
            0x020 | 0x030 | 0x090 | 0x0a0 | 0x0c0 | 0x100..=0x270 | 0x390 => {}
            _ => return self.write_common(ns, offset, value),
        }
        if before == self.address() { Outcome::Nothing } else { Outcome::AddressChanged }
    }

    /// Registers that both modes write alike.
    fn write_common(&mut self, ns: u64, offset: u32, value: u32) -> Outcome {
        let before = self.address();
        match offset {
            0x080 => self.tpr = (value & 0xff) as u8,
            0x0b0 => return self.eoi(),
            0x0f0 => {
                self.spurious = value & if EOI_SUPPRESSION_OFFERED { 0x13ff } else { 0x3ff };
                if value & 0x100 == 0 {
                    for entry in &mut self.lvt {
                        *entry |= 0x1_0000;
                    }
                }
            }
            0x280 => {
                self.esr_seen = self.esr_new;
                self.esr_new = 0;
                self.error_told = false;
            }
            0x380 => self.timer.set_initial(ns, value),
            0x3e0 => self.timer.set_divide(ns, value),
            _ => match self.lvt_at(offset) {
                Some(entry) => self.write_lvt(entry, value),
                None => self.error(0x80),
            },
        }
        if before == self.address() { Outcome::Nothing } else { Outcome::AddressChanged }
    }

    fn write_lvt(&mut self, entry: usize, value: u32) {
        let writable = self.lvt_writable(entry);
        let mut new = value & writable | self.lvt[entry] & 0x4000;
        if REMOTE_IRR_NEEDS_FIXED_LEVEL && new & 0x8700 != 0x8000 {
            new &= !0x4000;
        }
        if self.spurious & 0x100 == 0 {
            new |= 0x1_0000;
        }
        self.lvt[entry] = new;
        match entry {
            TIMER => self.timer.set_mode((new >> 17 & 3) as u8),
            LINT0 => self.look_at_level_lint0(),
            _ => {}
        }
    }

    /// Section "Interrupt Command Register (ICR)".
    fn send(&mut self) -> Outcome {
        let (low, high) = (self.icr_low, self.icr_high);
        let vector = (low & 0xff) as u8;
        let mode = (low >> 8 & 7) as u8;
        let logical = low & 0x800 != 0;
        let to = match low >> 18 & 3 {
            1 => To::Myself,
            2 => To::Everyone,
            3 => To::Others,
            _ if self.extended && high == 0xffff_ffff => To::All,
            _ if !self.extended && high >> 24 == 0xff => To::All,
            _ => {
                let id = if self.extended { high } else { high >> 24 };
                if logical { To::Logical(id) } else { To::Physical(id) }
            }
        };
        // Table "Valid Combinations": with oneself among the destinations only Fixed.
        if mode != 0 && (to == To::Myself || to == To::Everyone) {
            return Outcome::Nothing;
        }
        match mode {
            // Reserved in an ICR (remote read is not modelled).
            3 | 7 => return Outcome::Nothing,
            // INIT level de-assert: not since the Pentium 4.
            5 if low & 0x8000 != 0 && low & 0x4000 == 0 => return Outcome::Nothing,
            _ => {}
        }
        self.put_on_the_bus(to, mode, vector)
    }

    fn put_on_the_bus(&mut self, to: To, mode: u8, vector: u8) -> Outcome {
        if mode < 2 && vector < 16 {
            self.error(0x20);
            if !ILLEGAL_VECTOR_IS_SENT {
                return Outcome::Nothing;
            }
        }
        if to != To::Myself {
            return Outcome::Ipi { to, mode, vector };
        }
        // Section "Local APIC State After It Has Been Software Disabled": no fixed interrupt is accepted.
        if self.spurious & 0x100 != 0 {
            self.accept(vector, false);
        }
        Outcome::Nothing
    }

    pub fn read_msr(&mut self, ns: u64, msr: u32) -> Option<u64> {
        if msr == 0x6e0 {
            return self.variant.tsc_deadline.then_some(self.timer.tsc);
        }
        if !self.enabled || !self.extended || !(0x800..=0x8ff).contains(&msr) {
            return None;
        }
        match msr {
            // Not in x2APIC mode, or write-only.
            0x809 | 0x80b | 0x80c | 0x80e | 0x831 | 0x83f => None,
            0x830 => Some((self.icr_high as u64) << 32 | self.icr_low as u64),
            _ => self.register(ns, (msr - 0x800) * 16).map(|value| value as u64),
        }
    }

    pub fn write_msr(&mut self, ns: u64, msr: u32, value: u64) -> Outcome {
        if msr == 0x6e0 {
            if !self.variant.tsc_deadline {
                return Outcome::Fault;
            }
            self.timer.set_tsc_deadline(value);
            return Outcome::Nothing;
        }
        if !self.enabled || !self.extended || !(0x800..=0x8ff).contains(&msr) {
            return Outcome::Fault;
        }
        let offset = (msr - 0x800) * 16;
        // Section "Reserved Bit Checking".
        let allowed: u64 = match msr {
            0x808 => 0xff,
            0x80b | 0x828 => 0,
            0x80f => {
                if EOI_SUPPRESSION_OFFERED {
                    0x13ff
                } else {
                    0x3ff
                }
            }
            0x830 => 0xffff_ffff_0000_0000 | ICR_KEEPS as u64 | read_only(0x1000),
            0x838 => 0xffff_ffff,
            0x83e => 0b1011,
            0x83f => 0xff,
            _ => match self.lvt_at(offset) {
                Some(LINT0 | LINT1) => 0x1_a7ff | read_only(0x5000),
                Some(entry) => self.lvt_writable(entry) as u64 | read_only(0x1000),
                None => return Outcome::Fault,
            },
        };
        if value & !allowed != 0 {
            return Outcome::Fault;
        }
        match msr {
            0x830 => {
                self.icr_low = value as u32 & ICR_KEEPS;
                self.icr_high = (value >> 32) as u32;
                self.send()
            }
            0x83f => self.put_on_the_bus(To::Myself, 0, value as u8),
            _ => self.write_common(ns, offset, value as u32),
        }
    }
}
