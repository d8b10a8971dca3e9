//! Processor state after power-up, INIT and start-up.
//!
//! Follows the Intel SDM vol. 3A, section "Processor State After Reset", table "IA-32 and Intel 64 Processor States
//! Following Power-up, Reset, or INIT", and section "MP Initialization" for the start-up address. KVM without its own
//! local APIC has no wait-for-start-up state: not running the vCPU is the caller's part.

use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment,
    kvm_sregs, kvm_vcpu_events, kvm_xcr, kvm_xcrs, kvm_xsave,
};
use x86::msr::{ApicBase, IA32_MTRR_DEF_TYPE};
use x86::platform::LAPIC_BASE;

use super::Vcpu;
use crate::{Error, Exit};

#[cfg(test)]
mod tests;

/// Which state to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Power-up or RESET: everything.
    PowerOn {
        /// This is the bootstrap processor (the BSP bit of IA32_APIC_BASE).
        bsp: bool,
    },
    /// INIT: keeps FPU and SSE, MTRRs, the TSC, most MSRs, CR0.CD and CR0.NW, and the local APIC's base, mode and ID.
    Init,
}

const CR0_ET: u64 = 1 << 4;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;

const IA32_PAT: u32 = 0x277;
/// PAT after power-up.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// MSRs that are zero after power-up and that INIT leaves alone: SYSENTER_*, MTRR default type, STAR, LSTAR, CSTAR,
/// SFMASK, KERNEL_GS_BASE, TSC_AUX.
const ZERO_AT_POWER_ON: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    IA32_MTRR_DEF_TYPE,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0xc000_0103,
];
/// Paravirtual MSRs by which KVM writes to guest memory (kvmclock old and new, steal time): a restarted guest must not
/// find its memory written to on behalf of the one before. The wall clock's are one-shot.
const PARAVIRTUAL: [u32; 3] = [0x12, 0x4b56_4d01, 0x4b56_4d03];

/// Completions of one exit that may themselves exit; an access has at most a few parts.
const MOST_COMPLETIONS: usize = 64;

impl Vcpu {
    /// Puts the processor into the state after power-up or INIT, at the reset vector. What the last exit left to do is
    /// done first and forgotten; pending exceptions, interrupts and NMIs are gone.
    pub fn reset_state(&mut self, reset: Reset) -> Result<(), Error> {
        self.drop_pending()?;
        self.clear_events()?;

        let old = self.sregs()?;
        let (cache, apic_base) = match reset {
            Reset::PowerOn { bsp } => {
                let mut base = ApicBase::ENABLE;
                base.set(ApicBase::BSP, bsp);
                (CR0_CD | CR0_NW, LAPIC_BASE | base.bits())
            }
            Reset::Init => (old.cr0 & (CR0_CD | CR0_NW), old.apic_base),
        };
        self.set_sregs(&system_registers(CR0_ET | cache, apic_base))?;
        self.set_regs(&kvm_regs { rip: 0xfff0, rflags: 2, rdx: self.signature.into(), ..Default::default() })?;
        self.set_debug_regs(&kvm_debugregs { dr6: 0xffff_0ff0, dr7: 0x400, ..Default::default() })?;
        for index in PARAVIRTUAL {
            self.set_msr_if_there(index, 0)?;
        }
        if reset != Reset::Init {
            self.reset_fpu()?;
            self.set_msr_if_there(IA32_PAT, PAT_RESET)?;
            for index in ZERO_AT_POWER_ON {
                self.set_msr_if_there(index, 0)?;
            }
        }
        self.set_request_interrupt_window(false);
        Ok(())
    }

    /// Start-up message: a processor after INIT begins in real mode at `vector << 12`.
    pub fn start_up(&mut self, vector: u8) -> Result<(), Error> {
        let mut sregs = self.sregs()?;
        sregs.cs.base = u64::from(vector) << 12;
        sregs.cs.selector = u16::from(vector) << 8;
        self.set_sregs(&sregs)?;
        let regs = kvm_regs { rip: 0, ..self.regs()? };
        self.set_regs(&regs)
    }

    fn reset_fpu(&mut self) -> Result<(), Error> {
        let first = kvm_xcr { xcr: 0, value: 1, ..Default::default() };
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0] = first;
        match self.fd().set_xcrs(&xcrs) {
            // A processor without XSAVE has no XCR0.
            Err(e) if e.errno() != libc::EINVAL => return Err(Error::call("KVM_SET_XCRS")(e)),
            _ => {}
        }
        // KVM_SET_FPU leaves MXCSR out.
        // SAFETY: KVM reads 4096 bytes, the size of kvm_xsave, unless this process asked for larger dynamic XSAVE
        // features for guests (arch_prctl), which it never does.
        unsafe { self.fd().set_xsave(&power_on_fpu()) }.map_err(Error::call("KVM_SET_XSAVE"))
    }

    fn drop_pending(&mut self) -> Result<(), Error> {
        for _ in 0..MOST_COMPLETIONS {
            match self.complete_pending()? {
                // #GP rather than a register that does not exist: the state is thrown away anyway.
                Some(Exit::MsrRead { reply, .. }) => reply.fault(),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        Err(Error::Unexpected("an access that never ends"))
    }

    fn clear_events(&mut self) -> Result<(), Error> {
        let flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
        self.set_events(&kvm_vcpu_events { flags, ..Default::default() })
    }

    /// Hosts differ in which of these they have; a guest cannot have set one that is not there.
    fn set_msr_if_there(&mut self, index: u32, value: u64) -> Result<(), Error> {
        match self.set_msr(index, value) {
            Err(Error::Msr { .. }) => Ok(()),
            other => other,
        }
    }
}

fn system_registers(cr0: u64, apic_base: u64) -> kvm_sregs {
    let data = kvm_segment { limit: 0xffff, type_: 3, present: 1, s: 1, ..Default::default() };
    let code = kvm_segment { base: 0xffff_0000, selector: 0xf000, type_: 0xb, ..data };
    let table = kvm_dtable { base: 0, limit: 0xffff, ..Default::default() };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment { type_: 0xb, s: 0, ..data },
        ldt: kvm_segment { type_: 2, s: 0, ..data },
        gdt: table,
        idt: table,
        cr0,
        apic_base,
        ..Default::default()
    }
}

/// FCW 0040h, tag word 5555h (abridged: every register in use, all zero), MXCSR 1f80h; the rest of the XSAVE area in
/// its initial state.
fn power_on_fpu() -> kvm_xsave {
    /// Word of the XSTATE_BV field: the x87 and SSE parts are what is in the area.
    const XSTATE_BV: usize = 512 / 4;
    let mut xsave = kvm_xsave::default();
    xsave.region[0] = 0x40;
    xsave.region[1] = 0xff;
    xsave.region[6] = 0x1f80;
    xsave.region[XSTATE_BV] = 3;
    xsave
}
