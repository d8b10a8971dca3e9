//! Paravirtual EOI: the byte in guest memory, and when it is set and taken back (see [`irqchip::lapic::PvEoi`]).

use std::sync::atomic::Ordering;

use irqchip::lapic::EoiFlag;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::Core;
use crate::trace::event::{Cause, Eoi};

/// Bytes of the field that the guest names; only the first is used.
const FIELD: usize = 4;

/// The byte, by one-byte atomic accesses: the guest uses them too, and another of its vCPUs may read along.
struct Byte<'a>(&'a GuestMemoryMmap);

impl EoiFlag for Byte<'_> {
    fn set(&self, address: u64) -> bool {
        self.0.store(1_u8, GuestAddress(address), Ordering::Release).is_ok()
    }

    fn take(&self, address: u64) -> bool {
        // Not an exchange: nobody but this vCPU's guest has a reason to write it, and it does not run.
        let set = self.0.load::<u8>(GuestAddress(address), Ordering::Acquire).is_ok_and(|byte| byte & 1 != 0);
        set && self.0.store(0_u8, GuestAddress(address), Ordering::Release).is_ok()
    }
}

impl Core {
    /// The last thing before the guest runs: lets it end its interrupt without an exit, where that is as good.
    pub(crate) fn arm_pv_eoi(&mut self) {
        if let Some(pv_eoi) = &mut self.pv_eoi {
            pv_eoi.arm(&self.apic, &Byte(&self.shared.memory));
        }
    }

    /// The first thing after it ran, before anything looks at IRR or ISR.
    pub(crate) fn disarm_pv_eoi(&mut self) {
        if let Some(pv_eoi) = &mut self.pv_eoi {
            let before = pv_eoi.spared();
            pv_eoi.disarm(&mut self.apic, &Byte(&self.shared.memory));
            let spared = pv_eoi.spared();
            self.shared.processors.counts(self.index).spared_eois.set(spared);
            if spared != before {
                self.look(Cause::Other, Eoi::Paravirtual);
            }
        }
    }

    /// `None` is #GP.
    pub(super) fn write_pv_eoi(&mut self, value: u64) -> Option<()> {
        let memory = &self.shared.memory;
        self.pv_eoi.as_mut()?.write_msr(value, |at| memory.check_range(GuestAddress(at), FIELD)).ok()
    }
}
