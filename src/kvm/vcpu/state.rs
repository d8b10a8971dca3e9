//! A vCPU's registers, one KVM structure each. Setting any of them makes the run page stale until the next run.
//!
//! KVM applies a pending exit's completion to whatever registers it then finds, so complete it before setting them
//! ([`Vcpu::complete_pending`]).

use kvm_bindings::{
    CpuId, KVM_VCPUEVENT_VALID_SHADOW, KVM_X86_SHADOW_INT_STI, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_fpu,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events,
};

use super::{RFLAGS_IF, RFLAGS_TF, Vcpu};
use crate::Error;

impl Vcpu {
    /// The general registers, RIP and RFLAGS.
    pub fn regs(&self) -> Result<kvm_regs, Error> {
        self.fd().get_regs().map_err(Error::call("KVM_GET_REGS"))
    }

    /// Sets the general registers, RIP and RFLAGS. Clears a pending exception.
    pub fn set_regs(&mut self, regs: &kvm_regs) -> Result<(), Error> {
        self.stale();
        self.fd().set_regs(regs).map_err(Error::call("KVM_SET_REGS"))
    }

    /// Segments, control registers, EFER, IA32_APIC_BASE.
    pub fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd().get_sregs().map_err(Error::call("KVM_GET_SREGS"))
    }

    /// Sets segments, control registers, EFER, IA32_APIC_BASE. CR8 and the base go to the run page too.
    pub fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), Error> {
        self.stale();
        self.fd().set_sregs(sregs).map_err(Error::call("KVM_SET_SREGS"))?;
        // KVM_RUN takes CR8 from the page, whatever was set here.
        self.page.set_cr8(sregs.cr8);
        Ok(())
    }

    /// Tells KVM the guest's IA32_APIC_BASE, on which CPUID.1:EDX.APIC depends. KVM does not learn it by itself from a
    /// filtered write.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), Error> {
        let mut sregs = self.sregs()?;
        // The run page is newer than KVM's own copy: it may hold a task priority for the next entry.
        sregs.cr8 = self.page.cr8();
        sregs.apic_base = value;
        self.set_sregs(&sregs)
    }

    /// Pending and injected exceptions, interrupts and NMIs.
    pub fn events(&self) -> Result<kvm_vcpu_events, Error> {
        self.fd().get_vcpu_events().map_err(Error::call("KVM_GET_VCPU_EVENTS"))
    }

    /// KVM delivers something at the next entry: an exception, an interrupt, or an NMI, which until then may only be
    /// pending.
    pub fn has_something_to_deliver(&self) -> Result<bool, Error> {
        let events = self.events()?;
        let nmi = events.nmi.injected | events.nmi.pending;
        Ok(events.exception.injected | events.interrupt.injected | nmi != 0)
    }

    /// Goes on `length` bytes further, as if the instruction there had been executed; one that is traced is not passed over.
    pub fn skip(&mut self, length: u64) -> Result<(), Error> {
        let mut regs = self.regs()?;
        if regs.rflags & RFLAGS_TF == 0 {
            regs.rip = regs.rip.wrapping_add(length);
            self.set_regs(&regs)?;
        }
        Ok(())
    }

    /// As after STI: interrupts are enabled, but none may come before the next instruction has been executed.
    pub fn set_sti_executed(&mut self) -> Result<(), Error> {
        let mut regs = self.regs()?;
        regs.rflags |= RFLAGS_IF;
        self.set_regs(&regs)?;
        let mut events = self.events()?;
        events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        events.interrupt.shadow = KVM_X86_SHADOW_INT_STI as u8;
        self.set_events(&events)
    }

    /// Sets pending and injected exceptions, interrupts and NMIs, as far as `flags` says they are valid.
    pub fn set_events(&mut self, events: &kvm_vcpu_events) -> Result<(), Error> {
        self.stale();
        self.fd().set_vcpu_events(events).map_err(Error::call("KVM_SET_VCPU_EVENTS"))
    }

    /// x87 and SSE registers, but not MXCSR, which KVM leaves out of this call.
    pub fn fpu(&self) -> Result<kvm_fpu, Error> {
        self.fd().get_fpu().map_err(Error::call("KVM_GET_FPU"))
    }

    /// Sets x87 and SSE registers, but not MXCSR.
    pub fn set_fpu(&mut self, fpu: &kvm_fpu) -> Result<(), Error> {
        self.fd().set_fpu(fpu).map_err(Error::call("KVM_SET_FPU"))
    }

    /// Debug registers.
    pub fn debug_regs(&self) -> Result<kvm_debugregs, Error> {
        self.fd().get_debug_regs().map_err(Error::call("KVM_GET_DEBUGREGS"))
    }

    /// Sets debug registers.
    pub fn set_debug_regs(&mut self, regs: &kvm_debugregs) -> Result<(), Error> {
        self.fd().set_debug_regs(regs).map_err(Error::call("KVM_SET_DEBUGREGS"))
    }

    /// The guest-physical address behind a linear one, by the guest's page tables; `None` if nothing is mapped there.
    pub fn translate(&self, linear: u64) -> Option<u64> {
        let translation = self.fd().translate_gva(linear).ok()?;
        (translation.valid != 0).then_some(translation.physical_address)
    }

    /// One MSR; the filter does not apply. `None` if KVM does not have it.
    pub fn msr(&self, index: u32) -> Result<Option<u64>, Error> {
        let call = "KVM_GET_MSRS";
        let mut msrs = one_msr(index, 0)?;
        let got = self.fd().get_msrs(&mut msrs).map_err(Error::call(call))?;
        Ok(msrs.as_slice().first().filter(|_| got == 1).map(|m| m.data))
    }

    /// Sets one MSR; the filter does not apply. Fails with [`Error::Msr`] if KVM refuses it.
    pub fn set_msr(&mut self, index: u32, value: u64) -> Result<(), Error> {
        match self.fd().set_msrs(&one_msr(index, value)?) {
            Ok(1) => Ok(()),
            Ok(_) => Err(Error::Msr { index, value }),
            Err(e) => Err(Error::call("KVM_SET_MSRS")(e)),
        }
    }

    /// The CPUID table that the guest sees, as KVM holds it now.
    pub fn cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        let call = "KVM_GET_CPUID2";
        let cpuid = self.fd().get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(Error::call(call))?;
        Ok(cpuid.as_slice().to_vec())
    }

    /// Sets the CPUID table; before the first run.
    pub fn set_cpuid(&mut self, table: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        let cpuid = CpuId::from_entries(table).map_err(|_| Error::Unexpected("a CPUID table longer than KVM takes"))?;
        self.fd().set_cpuid2(&cpuid).map_err(Error::call("KVM_SET_CPUID2"))?;
        self.signature = table.iter().find(|e| e.function == 1).map_or(0, |e| e.eax);
        Ok(())
    }

    fn stale(&mut self) {
        self.ready = false;
        self.registers_synced = false;
    }
}

fn one_msr(index: u32, data: u64) -> Result<Msrs, Error> {
    let entry = kvm_msr_entry { index, data, ..Default::default() };
    Msrs::from_entries(&[entry]).map_err(|_| Error::Unexpected("an MSR list that cannot be made"))
}
