//! The guest's time-stamp counter against the machine's clock.

use irqchip::lapic::{Deadline, Now};
use x86::{Nanos, msr};

use crate::clock::Clock;

/// Reads the guest's TSC from the host's, and turns a TSC deadline into a time. Belongs to one vCPU.
#[derive(Debug, Clone, Copy)]
pub struct GuestTsc {
    /// Guest TSC less host TSC, modulo 2^64.
    offset: u64,
    khz: u64,
    /// The host can give the guest a TSC of its own; if not, the guest reads the host's.
    adjustable: bool,
    /// The offset stays what it was set to. On a host whose TSC is not steady, KVM changes it whenever the vCPU moves
    /// to another processor.
    steady: bool,
}

impl GuestTsc {
    /// The TSC of `cpu` as KVM runs it; `adjustable` is what the probe says.
    pub fn of(cpu: &kvm::Vcpu, adjustable: bool) -> Result<Self, kvm::Error> {
        let offset = if adjustable { cpu.guest_tsc_offset()? } else { 0 };
        let steady = !adjustable || sys::clock::tsc_is_steady();
        Ok(Self { offset, khz: u64::from(cpu.tsc_khz()?).max(1), adjustable, steady })
    }

    /// What to add to the host's TSC to get the guest's, where that stays what it is.
    pub fn lasting_offset(&self) -> Option<u64> {
        self.steady.then_some(self.offset)
    }

    /// Whether a deadline's time, once computed, stays right.
    pub fn is_steady(&self) -> bool {
        self.steady
    }

    /// Asks KVM for the offset again, where it may have changed.
    pub fn refresh(&mut self, cpu: &kvm::Vcpu) -> Result<(), kvm::Error> {
        if !self.steady {
            self.offset = cpu.guest_tsc_offset()?;
        }
        Ok(())
    }

    /// The moment.
    pub fn now(&self, clock: &Clock) -> Now {
        Now { ns: clock.now(), tsc: sys::clock::rdtsc().wrapping_add(self.offset) }
    }

    /// When `deadline` is on the machine's clock; for a TSC deadline rounded up, and good for one look only, since the
    /// two clocks may drift apart.
    pub fn time_of(&self, deadline: Deadline, now: Now) -> Nanos {
        match deadline {
            Deadline::At(at) => at,
            Deadline::Tsc(tsc) => {
                let cycles = u128::from(tsc.saturating_sub(now.tsc));
                let ns = (cycles * 1_000_000).div_ceil(u128::from(self.khz));
                now.ns.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
            }
        }
    }

    /// The guest wrote IA32_TSC. IA32_TSC_ADJUST moves along (Intel SDM vol. 3B, section "Time-Stamp Counter
    /// Adjustment").
    pub fn write(&mut self, cpu: &mut kvm::Vcpu, value: u64) -> Result<(), kvm::Error> {
        if !self.adjustable {
            return Ok(());
        }
        self.refresh(cpu)?;
        let before = self.offset;
        self.offset = cpu.set_guest_tsc(value)?;
        match cpu.msr(msr::IA32_TSC_ADJUST)? {
            Some(adjust) => cpu.set_msr(msr::IA32_TSC_ADJUST, adjust.wrapping_add(self.offset).wrapping_sub(before)),
            None => Ok(()),
        }
    }

    /// The guest wrote IA32_TSC_ADJUST: the TSC moves by the difference.
    pub fn write_adjust(&mut self, cpu: &mut kvm::Vcpu, value: u64) -> Result<(), kvm::Error> {
        let Some(before) = cpu.msr(msr::IA32_TSC_ADJUST)?.filter(|_| self.adjustable) else { return Ok(()) };
        self.refresh(cpu)?;
        self.offset = cpu.set_guest_tsc_offset(self.offset.wrapping_add(value).wrapping_sub(before))?;
        cpu.set_msr(msr::IA32_TSC_ADJUST, value)
    }
}
