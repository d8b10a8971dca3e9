//! What the `split` mode adds to a vCPU with KVM's local APIC: the I/O APIC hears of EOIs, and the 8259A pair's interrupts
//! get to the bootstrap processor.
//!
//! KVM takes one external vector at a time (KVM_INTERRUPT) and keeps it until LINT0 and the guest let it in, so it can't be
//! lost; but it is acknowledged at the PIC when it is given, so it is given only when KVM says that the guest can take it.

use std::sync::Arc;

use irqchip::mailbox::Events;

use crate::interrupts::{Interrupts, KvmApics};
use crate::stop::StopReason;

/// The chips on this side, as one vCPU knows them.
pub struct OwnChips {
    interrupts: Arc<Interrupts<KvmApics>>,
    /// Level of the 8259A pair's output, which only the bootstrap processor is told of.
    intr: bool,
}

impl OwnChips {
    /// For one vCPU.
    pub fn new(interrupts: &Arc<Interrupts<KvmApics>>) -> Self {
        Self { interrupts: Arc::clone(interrupts), intr: false }
    }

    /// The interrupt acknowledge cycle, if the 8259A pair asks and the guest is ready; else KVM is asked to say when.
    pub fn before_entry(&mut self, events: &Events, cpu: &mut kvm::Vcpu) -> Result<(), StopReason> {
        self.intr = events.lint0.as_ref().map_or(self.intr, |lint0| lint0.level);
        if self.intr
            && cpu.ready_for_interrupt()
            && let Some(vector) = self.interrupts.acknowledge_pic(false)
        {
            self.interrupts.processors().counts(0).extints.add();
            // The cycle has changed the output: that is in the mailbox, which is looked at before the guest is entered.
            cpu.give_external_interrupt(vector)?;
        }
        cpu.set_request_interrupt_window(self.intr);
        Ok(())
    }

    /// A level interrupt has ended; done when this returns.
    pub fn eoi(&self, vector: u8) {
        self.interrupts.eoi(vector);
    }
}
