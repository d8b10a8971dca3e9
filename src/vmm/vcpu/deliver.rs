//! From the local APIC into the guest: NMIs, interrupts, the interrupt window.

use fault::Fault;

use super::{Activity, Core, UserApicVcpu, dump};
use crate::stop::StopReason;
use crate::trace::event::{Cause, Eoi, Event};

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

impl UserApicVcpu {
    /// Gives KVM what can be delivered now, and asks to be told when the rest can.
    ///
    /// At most one interrupt is queued for an entry, and never for one that completes an exit which may raise an
    /// exception: KVM would deliver the exception and forget the interrupt. Such an exit is completed first, at the
    /// price of one call without guest execution, paid only when there is an interrupt to deliver.
    pub(super) fn deliver(&mut self) -> Result<(), StopReason> {
        let twice = if fault::is(Fault::NmiTwice) { 2 } else { 1 };
        for _ in 0..self.nmis.take(self.core.apic.take_nmi()) {
            for _ in 0..twice {
                self.cpu.nmi()?;
            }
            self.nmi_given = true;
            self.core.counts().nmis.add();
            let vcpu = self.core.index as u32;
            self.core.interrupts.trace().record(|| Event::NmiInjected { vcpu });
            if !fault::is(Fault::NmiDoesNotWake) {
                self.activity = Activity::Running;
            }
        }
        if self.wants_to_interrupt() && self.cpu.ready_for_interrupt() {
            // May handle another exit, which may change everything: all is asked anew.
            if !self.cpu.injection_safe() {
                self.complete()?;
            }
            if self.early_windows && self.activity == Activity::Running && self.cpu.can_inject() {
                self.step_over_halt()?;
            }
            if self.cpu.can_inject()
                && let Some(vector) = self.core.acknowledge()
            {
                if !fault::now_and_then(Fault::InjectionLost) {
                    self.cpu.inject(vector)?;
                    self.core.counts().interrupt(vector);
                }
                self.activity = Activity::Running;
            }
        }
        let more = self.wants_to_interrupt() && !fault::is(Fault::WindowNotAsked);
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
    /// an exception, or KVM has something to deliver at the entry, be it an NMI that is only pending yet: its frame would
    /// keep our trap flag, and the return from it would trap in the guest.
    fn can_step(&self) -> Result<bool, StopReason> {
        let user = self.cpu.sregs()?.cs.selector & 3 != 0;
        if user || !self.cpu.injection_safe() || self.cpu.has_something_to_deliver()? {
            return Ok(false);
        }
        Ok(self.next_opcode()? != Some(HLT))
    }

    /// Has the guest execute the HLT that it is about to, if it is: the interrupt at hand ends it at once.
    ///
    /// That is what a processor does with an interrupt that waits for the end of STI's shadow (Intel SDM vol. 2, "STI"). A host
    /// that forgets the shadow at an exit opens the window before the HLT; the guest, which has looked for work before STI,
    /// would then sleep through what the interrupt has brought. No harm where there was no STI: an interrupt may always
    /// come just after a HLT instead of just before it.
    fn step_over_halt(&mut self) -> Result<(), StopReason> {
        if self.cpu.sregs()?.cs.selector & 3 == 0 && self.next_opcode()? == Some(HLT) {
            // Nothing is ready for an interrupt now; the window opens anew, behind the HLT.
            self.cpu.skip(1)?;
        }
        Ok(())
    }

    /// The first byte of the guest's next instruction, if it can be read.
    fn next_opcode(&self) -> Result<Option<u8>, StopReason> {
        let linear = self.cpu.sregs()?.cs.base.wrapping_add(self.cpu.regs()?.rip);
        let code = dump::code(&self.cpu, &self.core.shared.memory, linear);
        Ok(code.and_then(|code| code.first().copied()))
    }

    fn wants_to_interrupt(&self) -> bool {
        self.core.apic.deliverable().is_some() || self.core.apic.extint_pending()
    }
}

impl Core {
    /// The acknowledge cycle: the 8259A pair's vector for an ExtINT request, else the local APIC's. ExtINT does not take
    /// part in the local APIC's priorities (Intel SDM vol. 3A, section "Interrupt, Task, and Processor Priority").
    pub(crate) fn acknowledge(&mut self) -> Option<u8> {
        if self.apic.extint_pending() {
            let latched = self.apic.extint_acknowledged();
            if let Some(vector) = self.interrupts.acknowledge_pic(latched) {
                self.counts().extints.add();
                let vcpu = self.index as u32;
                self.interrupts.trace().record(|| Event::ExtIntInjected { vcpu, vector });
                return Some(vector);
            }
        }
        let vector = self.apic.acknowledge();
        self.look(Cause::Other, Eoi::Register);
        vector
    }
}
