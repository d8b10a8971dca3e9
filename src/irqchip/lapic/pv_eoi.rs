//! Paravirtual EOI: a byte in guest memory that lets the guest end an edge interrupt without an exit (Linux kernel,
//! Documentation/virt/kvm/x86/msr.rst, MSR_KVM_EOI_EN).
//!
//! While the byte's bit 0 is set, the guest may clear it in place of writing the EOI register. The EOI takes effect when
//! its owner next looks. So the bit is set ([`PvEoi::arm`]) only for an EOI that would change nothing at once: one
//! interrupt in service, edge, and none requested that its end could set free. It is taken back ([`PvEoi::disarm`])
//! after *every* exit, before anything looks at IRR or ISR. A request that comes while the guest runs with the bit set
//! kicks it out as always, so it waits for the EOI no longer than without the bit.
//!
//! The byte belongs to the vCPU's thread, and is touched only while the guest does not run on it.

use fault::Fault;
use x86::msr::PV_EOI_ENABLE;

use super::{Effect, Gp, LocalApic};

/// Bits that are neither the enable bit nor the address of a 4-byte field.
const RESERVED: u64 = 0b10;

/// Access to the byte in guest memory. An address that has stopped being memory neither takes nor gives anything.
pub trait EoiFlag {
    /// Sets the byte to 1; false if that did not work.
    fn set(&self, address: u64) -> bool;
    /// Sets the byte to 0; whether bit 0 was still set.
    fn take(&self, address: u64) -> bool;
}

/// One vCPU's side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PvEoi {
    msr: u64,
    armed: bool,
    spared: u64,
}

impl PvEoi {
    /// Switched off: as after INIT or reset, whose fault or merit it must not outlive.
    pub fn new() -> Self {
        Self::default()
    }

    /// MSR_KVM_EOI_EN as the guest reads it.
    pub fn msr(&self) -> u64 {
        self.msr
    }

    /// Writes MSR_KVM_EOI_EN. Bit 1 set, or an enabled field that `is_memory` says no to (given its address, 4 bytes from
    /// there), gives #GP and changes nothing. To be called only while disarmed, as it is after an exit.
    pub fn write_msr(&mut self, value: u64, is_memory: impl FnOnce(u64) -> bool) -> Result<(), Gp> {
        let enabled = value & PV_EOI_ENABLE != 0;
        if value & RESERVED != 0 || enabled && !is_memory(value & !PV_EOI_ENABLE) {
            return Err(Gp);
        }
        self.msr = value;
        Ok(())
    }

    /// About to enter the guest, after the last look: sets the byte if the guest may end its interrupt that way.
    pub fn arm(&mut self, apic: &LocalApic, flag: &impl EoiFlag) {
        if let Some(address) = self.address()
            && apic.eoi_can_wait()
        {
            self.armed = flag.set(address);
        }
    }

    /// Back from the guest: takes the byte back, and does the EOI if the guest has.
    pub fn disarm(&mut self, apic: &mut LocalApic, flag: &impl EoiFlag) {
        if !std::mem::take(&mut self.armed) || fault::is(Fault::PvEoiLeftArmed) {
            return;
        }
        if let Some(address) = self.address()
            && !flag.take(address)
        {
            // An edge interrupt: nobody else has to know. The guest was shown the bit for this one only.
            let effect = apic.eoi();
            debug_assert_eq!(effect, Effect::None);
            self.spared += 1;
        }
    }

    /// INIT or reset: switched off. To be called only while disarmed.
    pub fn reset(&mut self) {
        *self = Self { spared: self.spared, ..Self::new() };
    }

    /// The byte is set.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// How many EOIs came without an exit of their own.
    pub fn spared(&self) -> u64 {
        self.spared
    }

    fn address(&self) -> Option<u64> {
        (self.msr & PV_EOI_ENABLE != 0).then_some(self.msr & !PV_EOI_ENABLE)
    }
}

impl LocalApic {
    /// Whether the EOI that is due next could as well be done later: one interrupt in service, edge, nothing requested, and
    /// nothing that asks again at the EOI.
    fn eoi_can_wait(&self) -> bool {
        let is_level = |vector| self.tmr.contains(vector) || self.lint0_waits_for(vector);
        let is_edge = |vector| !is_level(vector) || fault::is(Fault::PvEoiForLevels);
        let edge = self.isr.highest().is_some_and(is_edge);
        edge && self.isr.len() == 1 && self.irr.is_empty()
    }
}
