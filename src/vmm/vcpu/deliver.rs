//! From the local APIC into the guest: NMIs, interrupts, the interrupt window.

use super::{Activity, VcpuThread};
use crate::stop::StopReason;

/// The most single steps towards an interrupt window before the guest runs freely again.
const MOST_STEPS: u32 = 128;
/// Opcode of HLT.
const HLT: u8 = 0xf4;

/// Single-stepping towards an interrupt window, on hosts that report one late: a few thousand instructions late where
/// KVM interprets the guest's kernel, and by chance never for a guest that opens it for moments only.
#[derive(Debug, Default)]
pub(super) struct Steps {
    on: bool,
    /// Steps since the guest last ran freely.
    taken: u32,
}

impl VcpuThread {
    /// Gives KVM what can be delivered now, and asks to be told when the rest can.
    ///
    /// At most one interrupt is queued for an entry, and never for one that completes an exit which may raise an
    /// exception: KVM would deliver the exception and forget the interrupt. Such an exit is completed first, at the
    /// price of one call without guest execution, paid only when there is an interrupt to deliver.
    pub(super) fn deliver(&mut self) -> Result<(), StopReason> {
        if std::mem::take(&mut self.nmi) | self.core.apic.take_nmi() {
            self.cpu.nmi()?;
            self.nmi_given = true;
            self.activity = Activity::Running;
        }
        if self.wants_to_interrupt() && self.cpu.ready_for_interrupt() {
            // May handle another exit, which may change everything: all is asked anew.
            if !self.cpu.injection_safe() {
                self.complete()?;
            }
            if self.cpu.can_inject()
                && let Some(vector) = self.acknowledge()
            {
                self.cpu.inject(vector)?;
                self.activity = Activity::Running;
            }
        }
        let more = self.wants_to_interrupt();
        self.cpu.set_request_interrupt_window(more);
        if !self.exact_windows {
            self.look_again = more || self.core.apic.blocked_by_tpr();
            self.step(more && self.activity == Activity::Running)?;
        }
        Ok(())
    }

    /// Single-steps while something waits for a window, where that changes nothing for the guest.
    fn step(&mut self, waiting: bool) -> Result<(), StopReason> {
        let wanted = waiting && self.steps.taken < MOST_STEPS && self.can_step()?;
        self.steps.taken = if wanted { self.steps.taken + 1 } else { 0 };
        if wanted != self.steps.on {
            self.cpu.set_debug(wanted)?;
            self.steps.on = wanted;
        }
        Ok(())
    }

    /// Not in user mode, where a step's trap would reach the guest on such hosts. Not over a HLT: they report the step
    /// first, and the HLT one instruction late, in the handler of what has ended it. Not while the last exit may end in
    /// an exception: its frame would keep our trap flag.
    fn can_step(&self) -> Result<bool, StopReason> {
        let cs = self.cpu.sregs()?.cs;
        if cs.selector & 3 != 0 || !self.cpu.injection_safe() {
            return Ok(false);
        }
        let code = self.code(cs.base.wrapping_add(self.cpu.regs()?.rip));
        Ok(code.is_none_or(|code| code.first() != Some(&HLT)))
    }

    fn wants_to_interrupt(&self) -> bool {
        self.core.apic.deliverable().is_some() || self.core.apic.extint_pending()
    }

    /// The acknowledge cycle: the 8259A pair's vector for an ExtINT request, else the local APIC's. ExtINT does not take
    /// part in the local APIC's priorities (Intel SDM vol. 3A, section "Interrupt, Task, and Processor Priority").
    fn acknowledge(&mut self) -> Option<u8> {
        if self.core.apic.extint_pending() {
            self.core.apic.extint_acknowledged();
            if let Some(vector) = self.core.shared.interrupts.acknowledge_pic() {
                return Some(vector);
            }
        }
        self.core.apic.acknowledge()
    }
}
