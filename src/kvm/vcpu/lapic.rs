//! KVM's own local APIC of a vCPU, for machines that have one ([`crate::Vm::create_irqchip`],
//! [`crate::Vm::create_local_apics`]).

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_SIPI_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED, kvm_lapic_state, kvm_mp_state,
};

use super::Vcpu;
use crate::Error;

/// What a vCPU with KVM's local APIC does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MpState {
    /// It runs.
    Runnable,
    /// An application processor that has not been started.
    Uninitialized,
    /// After INIT: waits for a start-up message.
    InitReceived,
    /// After HLT.
    Halted,
    /// A start-up message has come.
    SipiReceived,
}

/// The 4 KiB page of registers, as in xAPIC mode; in x2APIC mode the ID register is KVM's.
#[derive(Debug, Clone)]
pub struct LapicPage(kvm_lapic_state);

impl LapicPage {
    /// The register at byte `offset`, a multiple of 16 below 0x400; others read as 0.
    pub fn register(&self, offset: u32) -> u32 {
        let bytes = self.0.regs.get(offset as usize..offset as usize + 4).unwrap_or(&[0; 4]);
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte as u8))
    }

    /// Sets the register at byte `offset`; others are left alone.
    pub fn set_register(&mut self, offset: u32, value: u32) {
        if let Some(bytes) = self.0.regs.get_mut(offset as usize..offset as usize + 4) {
            bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from as _);
        }
    }
}

impl Vcpu {
    /// The local APIC's registers.
    pub fn lapic(&self) -> Result<LapicPage, Error> {
        self.fd().get_lapic().map(LapicPage).map_err(Error::call("KVM_GET_LAPIC"))
    }

    /// Sets the local APIC's registers.
    pub fn set_lapic(&mut self, page: &LapicPage) -> Result<(), Error> {
        self.fd().set_lapic(&page.0).map_err(Error::call("KVM_SET_LAPIC"))
    }

    /// Gives KVM an external interrupt of an 8259A pair outside KVM (KVM_INTERRUPT), which it keeps until LINT0 and the
    /// guest let it in. Fails with [`Error::NotReady`] unless [`Self::ready_for_interrupt`].
    pub fn give_external_interrupt(&mut self, vector: u8) -> Result<(), Error> {
        if !self.ready {
            return Err(Error::NotReady { vcpu: self.index });
        }
        self.queue_interrupt(vector)
    }

    /// Starts a processor that waits for INIT or start-up as it is, without either.
    pub fn set_runnable(&mut self) -> Result<(), Error> {
        let state = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
        self.fd.set_mp_state(state).map_err(Error::call("KVM_SET_MP_STATE"))
    }

    /// What the vCPU does. KVM takes an INIT or start-up that has come in before it answers.
    pub fn mp_state(&self) -> Result<MpState, Error> {
        match self.fd().get_mp_state().map_err(Error::call("KVM_GET_MP_STATE"))?.mp_state {
            KVM_MP_STATE_RUNNABLE => Ok(MpState::Runnable),
            KVM_MP_STATE_UNINITIALIZED => Ok(MpState::Uninitialized),
            KVM_MP_STATE_INIT_RECEIVED => Ok(MpState::InitReceived),
            KVM_MP_STATE_HALTED => Ok(MpState::Halted),
            KVM_MP_STATE_SIPI_RECEIVED => Ok(MpState::SipiReceived),
            _ => Err(Error::Unexpected("a vCPU in a state that this architecture does not have")),
        }
    }
}
