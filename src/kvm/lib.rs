//! A thin, safe layer over the KVM API for virtual machines, above all those without an in-kernel interrupt controller.
//!
//! Follows the Linux kernel's "The Definitive KVM (Kernel-based Virtual Machine) API Documentation" (api.rst). It
//! knows processors, memory and exits; it never knows a chip or a device. What the host's KVM really delivers is found
//! out by [`probe`], and the CPUID table that a guest may see is made by [`cpuid`].
//!
//! Not modelled: SMM, nested virtualization, dirty logging.

// One of the two homes of `unsafe` (the other is `src/sys`): the shared run page, memory slots, and the few ioctls
// that kvm-ioctls has no wrapper for. Every block says why it is sound; nothing unsafe is public.
#![allow(unsafe_code)]

pub mod cpuid;
mod error;
mod exit;
pub mod probe;
mod run_page;
mod system;
mod vcpu;
mod vm;

#[cfg(test)]
mod testing;

pub use error::Error;
pub use exit::{Exit, MsrReadReply, MsrReason, MsrWriteReply};
pub use system::{Kvm, kvm_available};
pub use vcpu::{KickGuard, LapicPage, MpState, Reset, Vcpu};
pub use vm::{IoApicState, Match, Msi, MsrRange, PicChip, Route, Vm, refault};

/// KVM's own structures, as far as they appear in this crate's interface.
pub mod bindings {
    pub use kvm_bindings::{
        kvm_cpuid_entry2, kvm_debugregs, kvm_dtable, kvm_fpu, kvm_pic_state, kvm_regs, kvm_segment, kvm_sregs,
        kvm_vcpu_events,
    };
}
