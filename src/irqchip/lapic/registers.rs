//! Register access: the xAPIC page (section "The Local APIC Block Diagram", table "Local APIC Register Address Map")
//! and the x2APIC MSRs (section "x2APIC Register Address Space").

use fault::Fault;
use x86::Nanos;
use x86::apic::{Esr, Icr, Svr, TriggerMode, reg};
use x86::msr::{IA32_TSC_DEADLINE, X2APIC_FIRST, X2APIC_LAST};

use super::lvt::LvtEntry;
use super::{Effect, Gp, Ipi, LocalApic, Mode, SVR_WRITABLE};
use crate::Accepted;
use crate::ledger::Source;
use crate::message::Destination;

/// Version 0x14, EOI-broadcast suppression offered (our I/O APIC has the EOI register that it needs); the number of
/// the highest LVT entry goes into bits 23:16.
const VERSION: u32 = 0x14 | 1 << 24;
/// What an absent device drives.
const NOTHING_HERE: u8 = 0xff;

impl LocalApic {
    /// A read in the APIC's page; `offset` is below 0x1000.
    ///
    /// Each register is 32 bits on a 16-byte boundary; the bytes between read as 0. Narrow and unaligned reads, which
    /// the manual leaves undefined, give the bytes they name. In the other modes nothing answers.
    pub fn read_mmio(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        if self.mode != Mode::XApic {
            data.fill(NOTHING_HERE);
            return;
        }
        let mut cached: Option<(u32, u32)> = None;
        for (i, byte) in data.iter_mut().enumerate() {
            let at = (offset as u32 & 0xfff) + i as u32;
            let (register, lane) = (at & !0xf, at & 0xf);
            if lane >= 4 {
                *byte = 0;
                continue;
            }
            let value = match cached {
                Some((of, value)) if of == register => value,
                _ => self.read_xapic(now, register),
            };
            cached = Some((register, value));
            *byte = value.to_le_bytes()[lane as usize];
        }
    }

    /// A write in the APIC's page; `offset` is below 0x1000. Only aligned 32-bit writes count (section "The Local APIC
    /// Block Diagram": other loads and stores are undefined; here they do nothing).
    pub fn write_mmio(&mut self, now: Nanos, offset: u64, data: &[u8]) -> Effect {
        if self.mode != Mode::XApic || offset & 0xf != 0 {
            return Effect::None;
        }
        let Ok(bytes) = data.try_into() else { return Effect::None };
        self.write_xapic(now, offset as u32 & 0xff0, u32::from_le_bytes(bytes))
    }

    /// Reads an x2APIC register or IA32_TSC_DEADLINE.
    pub fn read_msr(&mut self, now: Nanos, msr: u32) -> Result<u64, Gp> {
        if msr == IA32_TSC_DEADLINE {
            return if self.lvt.has_tsc_deadline() { Ok(self.timer.tsc_deadline()) } else { Err(Gp) };
        }
        let offset = self.x2apic_offset(msr)?;
        match offset {
            reg::ICR_LOW => Ok(self.icr),
            reg::ID => Ok(self.id.into()),
            reg::LDR => Ok(self.ldr.into()),
            // Absent, or write only.
            reg::APR | reg::RRD | reg::DFR | reg::ICR_HIGH | reg::EOI | reg::SELF_IPI => Err(Gp),
            _ => self.read_common(now, offset).map(u64::from).ok_or(Gp),
        }
    }

    /// Writes an x2APIC register or IA32_TSC_DEADLINE. Reserved bits, read-only and absent registers give #GP (section
    /// "Reserved Bit Checking").
    pub fn write_msr(&mut self, now: Nanos, msr: u32, value: u64) -> Result<Effect, Gp> {
        if msr == IA32_TSC_DEADLINE {
            if !self.lvt.has_tsc_deadline() {
                return Err(Gp);
            }
            self.timer.set_tsc_deadline(value);
            return Ok(Effect::None);
        }
        let offset = self.x2apic_offset(msr)?;
        if value & self.x2apic_reserved(offset)? != 0 && !fault::is(Fault::ReservedBitsAccepted) {
            return Err(Gp);
        }
        let low = value as u32;
        match offset {
            reg::ICR_LOW => {
                // Bit 12 is not among the reserved ones: processors and KVM ignore it.
                let icr = Icr::from_bits(value).with_delivery_status(false);
                self.icr = icr.into_bits();
                Ok(self.send(icr, Destination::from_u32(icr.destination(), icr.logical())))
            }
            reg::SELF_IPI => Ok(self.send_ipi(Ipi::to_self(low as u8))),
            _ => Ok(self.write_common(now, offset, low)),
        }
    }

    /// The xAPIC offset of the register that `msr` is in x2APIC mode.
    fn x2apic_offset(&self, msr: u32) -> Result<u32, Gp> {
        match msr {
            X2APIC_FIRST..=X2APIC_LAST if self.mode == Mode::X2Apic => Ok((msr - X2APIC_FIRST) << 4),
            _ => Err(Gp),
        }
    }

    /// The registers at the offsets of the xAPIC page, in whatever mode: entry `n` is at offset `16 n`. The ID is as its
    /// mode shows it. Looking changes nothing.
    pub fn page(&self, now: Nanos) -> [u32; 64] {
        std::array::from_fn(|entry| match (entry as u32) << 4 {
            reg::ID if self.mode == Mode::X2Apic => self.id,
            reg::ID => (self.id & 0xff) << 24,
            reg::APR => self.apr().into(),
            reg::LDR => self.ldr,
            reg::DFR => self.dfr,
            reg::ICR_LOW => self.icr as u32,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            offset => self.read_common(now, offset).unwrap_or(0),
        })
    }

    /// IA32_TSC_DEADLINE, for those who look.
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline()
    }

    fn read_xapic(&mut self, now: Nanos, offset: u32) -> u32 {
        match offset {
            reg::ID => (self.id & 0xff) << 24,
            reg::APR => self.apr().into(),
            // Remote read is not modelled; EOI is write only.
            reg::RRD | reg::EOI => 0,
            reg::LDR => self.ldr,
            reg::DFR => self.dfr,
            reg::ICR_LOW => self.icr as u32,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            _ => self.read_common(now, offset).unwrap_or_else(|| {
                self.error(Esr::ILLEGAL_REGISTER);
                0
            }),
        }
    }

    fn write_xapic(&mut self, now: Nanos, offset: u32, value: u32) -> Effect {
        match offset {
            // Model specific whether the ID can be written; here it can't. The rest is read only.
            reg::ID | reg::VERSION | reg::APR | reg::PPR | reg::RRD | reg::TIMER_CURRENT => Effect::None,
            reg::ISR..reg::ESR => Effect::None,
            reg::LDR => {
                self.ldr = value & 0xff00_0000;
                Effect::Readdressed
            }
            reg::DFR => {
                self.dfr = value | 0x0fff_ffff;
                Effect::Readdressed
            }
            reg::ICR_HIGH => {
                self.icr = self.icr & u64::from(u32::MAX) | u64::from(value & 0xff00_0000) << 32;
                Effect::None
            }
            reg::ICR_LOW => {
                let written = u64::from(value) & !Icr::X2APIC_RESERVED;
                let icr = Icr::from_bits(self.icr & !u64::from(u32::MAX) | written).with_delivery_status(false);
                self.icr = icr.into_bits();
                self.send(icr, Destination::from_u8((icr.destination() >> 24) as u8, icr.logical()))
            }
            _ if self.is_common(offset) => self.write_common(now, offset, value),
            _ => {
                self.error(Esr::ILLEGAL_REGISTER);
                Effect::None
            }
        }
    }

    /// Registers that both modes show alike; `None` for those that don't exist.
    fn read_common(&self, now: Nanos, offset: u32) -> Option<u32> {
        Some(match offset {
            reg::VERSION => VERSION | if self.cmci { 6 << 16 } else { 5 << 16 },
            reg::TPR => self.tpr.into(),
            reg::PPR => self.ppr().into(),
            reg::SVR => self.svr.into_bits(),
            reg::ISR..reg::TMR => self.isr.register((offset - reg::ISR) >> 4),
            reg::TMR..reg::IRR => self.tmr.register((offset - reg::TMR) >> 4),
            reg::IRR..reg::ESR => self.irr.register((offset - reg::IRR) >> 4),
            reg::ESR => self.esr.bits(),
            reg::TIMER_INITIAL => self.timer.initial(),
            reg::TIMER_CURRENT => self.timer.current(now),
            reg::TIMER_DIVIDE => self.timer.divide(),
            _ => self.lvt.get(self.lvt_at(offset)?).into_bits(),
        })
    }

    /// Whether [`LocalApic::write_common`] knows the register.
    fn is_common(&self, offset: u32) -> bool {
        matches!(offset, reg::TPR | reg::EOI | reg::SVR | reg::ESR | reg::TIMER_INITIAL | reg::TIMER_DIVIDE)
            || self.lvt_at(offset).is_some()
    }

    fn write_common(&mut self, now: Nanos, offset: u32, value: u32) -> Effect {
        match offset {
            reg::TPR => self.tpr = value as u8,
            reg::EOI => return self.eoi(),
            reg::SVR => return self.write_svr(value),
            reg::ESR => self.latch_errors(),
            reg::TIMER_INITIAL => self.timer.set_initial(now, value),
            reg::TIMER_DIVIDE => self.timer.set_divide(now, value),
            _ => {
                if let Some(entry) = self.lvt_at(offset) {
                    self.write_lvt(entry, value);
                }
            }
        }
        Effect::None
    }

    /// The reserved bits of an x2APIC register; `Err` for registers that can't be written.
    fn x2apic_reserved(&self, offset: u32) -> Result<u64, Gp> {
        Ok(match offset {
            reg::TPR | reg::SELF_IPI => !0xff,
            reg::EOI | reg::ESR => !0,
            reg::SVR => !u64::from(SVR_WRITABLE),
            reg::ICR_LOW => Icr::X2APIC_RESERVED,
            reg::TIMER_INITIAL => !u64::from(u32::MAX),
            reg::TIMER_DIVIDE => !0b1011,
            _ => self.lvt.reserved(self.lvt_at(offset).ok_or(Gp)?),
        })
    }

    fn lvt_at(&self, offset: u32) -> Option<LvtEntry> {
        LvtEntry::from_offset(offset).filter(|&entry| self.cmci || entry != LvtEntry::Cmci)
    }

    /// "All LVT mask bits are set" when the APIC is software-disabled, and stay so (section "Local APIC State After It
    /// Has Been Software Disabled").
    fn write_svr(&mut self, value: u32) -> Effect {
        let old = self.svr;
        let fixed = if fault::is(Fault::SpuriousVectorLowBits) { 0xf } else { 0 };
        self.svr = Svr::from_bits(value & SVR_WRITABLE | fixed);
        if !self.svr.enabled() && !fault::is(Fault::DisableKeepsTable) {
            self.lvt.mask_all();
        }
        if old.enabled() == self.svr.enabled() { Effect::None } else { Effect::Readdressed }
    }

    fn write_lvt(&mut self, entry: LvtEntry, value: u32) {
        self.lvt.write(entry, value, self.svr.enabled());
        match entry {
            LvtEntry::Timer => self.timer.set_mode(self.lvt.get(entry).timer_mode()),
            LvtEntry::Lint0 => self.evaluate_lint0(),
            _ => {}
        }
    }

    /// A write of ESR, of whatever value, shows the errors since the last one and rearms the error interrupt.
    fn latch_errors(&mut self) {
        self.esr = std::mem::take(&mut self.esr_pending);
        self.error_sent = false;
    }

    fn send(&mut self, icr: Icr, destination: Destination) -> Effect {
        match Ipi::from_icr(icr, destination) {
            Some(ipi) => self.send_ipi(ipi),
            None => {
                self.ledger.ipis.asserted += 1;
                self.ledger.ipis.dropped.malformed += 1;
                Effect::None
            }
        }
    }

    /// An illegal vector is noted here, and again by each APIC that receives it; none sets an IRR bit.
    fn send_ipi(&mut self, ipi: Ipi) -> Effect {
        self.ledger.ipis.asserted += 1;
        if ipi.has_illegal_vector() {
            self.error(Esr::SEND_ILLEGAL_VECTOR);
        }
        if ipi.shorthand == x86::apic::Shorthand::Myself {
            self.accept_own(ipi.message.vector);
            return Effect::None;
        }
        Effect::Ipi(ipi)
    }

    /// A software-disabled APIC accepts no fixed interrupt, its own included.
    fn accept_own(&mut self, vector: u8) {
        let accepted = match self.svr.enabled() || fault::is(Fault::DisabledStillTakes) {
            false => Accepted::Disabled,
            true if self.accept_from(Source::SelfIpi, vector, TriggerMode::Edge) => Accepted::Merged,
            true => Accepted::Yes,
        };
        self.ledger.ipis.count(accepted);
    }

    /// The arbitration priority (section "Lowest Priority Delivery Mode").
    fn apr(&self) -> u8 {
        let class = |vector: Option<u8>| vector.unwrap_or(0) & 0xf0;
        let (irr, isr) = (class(self.irr.highest()), class(self.isr.highest()));
        let tpr = self.tpr & 0xf0;
        if tpr >= irr && tpr > isr { self.tpr } else { tpr.max(isr).max(irr) }
    }
}
