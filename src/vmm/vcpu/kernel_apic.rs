//! A vCPU whose local APIC is KVM's: enter the guest, handle the exit. HLT, IPIs, INIT and start-up, timers and priorities
//! stay in KVM; what comes from outside is a kick (the machine stops, an NMI, the 8259A pair's request).
//!
//! The order of the steps is that of the other loop (see [`super`]): `immediate_exit` is cleared before the last look at
//! the mailbox. As far as a poster knows, this thread is in the guest all the time, halted or not: KVM_RUN does not end
//! with HLT, so each kick is a signal.

use std::sync::Arc;

use bottom_half::CpuOwner;
use irqchip::mailbox::{Events, Mailbox};
use kvm::probe::HostFeatures;
use kvm::{Exit, MpState};
use x86::msr;

use super::split::OwnChips;
use super::thread::Processor;
use super::tsc::GuestTsc;
use super::{After, ExitKind, Shared, dump};
use crate::Error;
use crate::monitor::{Answer, ApicRegisters};
use crate::stop::StopReason;
use crate::trace::event::Event;

/// A vCPU with KVM's local APIC.
pub struct KernelApicVcpu {
    index: usize,
    cpu: kvm::Vcpu,
    /// Its half of its CPU of the bottom halves.
    owner: CpuOwner,
    shared: Arc<Shared>,
    /// The PIC and the I/O APIC, if they are not KVM's as well.
    chips: Option<OwnChips>,
}

impl KernelApicVcpu {
    /// The vCPU of `owner`'s number. `chips` are the PIC and the I/O APIC, if they are not KVM's as well.
    pub fn new(
        cpu: kvm::Vcpu,
        owner: CpuOwner,
        shared: &Arc<Shared>,
        chips: Option<OwnChips>,
        host: &HostFeatures,
    ) -> Result<Self, Error> {
        let index = owner.cpu().index();
        // A guest that writes its TSC changes this behind our back: KVM has the register.
        let tsc = GuestTsc::of(&cpu, host.tsc_offset)?;
        shared.processors.set_tsc_offset(index, tsc.lasting_offset());
        Ok(Self { index, cpu, owner, shared: Arc::clone(shared), chips })
    }

    fn mailbox(&self) -> &Mailbox {
        self.shared.processors.mailbox(self.index)
    }

    /// Takes what others have posted.
    fn collect(&mut self) -> Result<(), StopReason> {
        // Requests are none of the mailbox's business here: KVM has the local APIC.
        let events = self.mailbox().take(|_, _, _| {});
        if events.attention {
            match self.shared.questions.take(self.index) {
                Some(asker) => asker.answer(self.answer()),
                None => log::info!("{}", self.summary()),
            }
        }
        for _ in 0..events.nmis {
            let vcpu = self.index as u32;
            self.shared.processors.trace().record(|| Event::NmiInjected { vcpu });
            self.nmi()?;
        }
        if events.deferred {
            self.shared.run_deferred(&self.owner);
        }
        self.tell_chips(&events)
    }

    /// What the monitor is told.
    fn answer(&self) -> Answer {
        let registers = || -> Result<ApicRegisters, kvm::Error> {
            let page = self.cpu.lapic()?;
            Ok(ApicRegisters {
                base: self.cpu.sregs()?.apic_base,
                page: std::array::from_fn(|entry| page.register((entry as u32) << 4)),
                tsc_deadline: self.cpu.msr(msr::IA32_TSC_DEADLINE)?.unwrap_or(0),
            })
        };
        Answer { summary: self.summary(), apic: registers().ok() }
    }

    fn tell_chips(&mut self, events: &Events) -> Result<(), StopReason> {
        match &mut self.chips {
            Some(chips) => chips.before_entry(events, &mut self.cpu),
            None => Ok(()),
        }
    }

    /// A processor that waits for a start-up message has no use for an NMI, and KVM would not let its thread sleep.
    fn nmi(&mut self) -> Result<(), StopReason> {
        match self.cpu.mp_state()? {
            MpState::Uninitialized | MpState::InitReceived => Ok(()),
            MpState::Runnable | MpState::Halted | MpState::SipiReceived => Ok(self.cpu.nmi()?),
        }
    }

    fn enter(&mut self) -> Result<(), StopReason> {
        let mailbox = self.shared.processors.mailbox(self.index);
        if !mailbox.enter_guest() {
            return Ok(());
        }
        let trace = self.shared.processors.trace();
        let entered = trace.entering();
        let outcome = self.cpu.run();
        mailbox.leave();
        let (exit, shared, chips) = (outcome?, &self.shared, &self.chips);
        trace.left(self.index, entered, || ExitKind::of(&exit));
        shared.processors.counts(self.index).exit(&exit);
        let after = shared.top_half(&self.owner, || match (exit, chips) {
            (Exit::IoApicEoi { vector }, Some(chips)) => {
                chips.eoi(vector);
                After::Nothing
            }
            (exit, _) => shared.handle(exit),
        });
        self.finish(after)
    }

    fn finish(&self, after: After) -> Result<(), StopReason> {
        let state = |why: &str| dump::state(self.index, &self.cpu, &self.shared.memory, why);
        match after {
            After::TripleFault => Err(StopReason::TripleFault(state("triple fault"))),
            After::Broken(why) => Err(StopReason::InternalError(state(&why))),
            // KVM has these registers, and halts by itself.
            After::Nothing | After::Halt | After::ApicBase(_) | After::Tsc(_) | After::TscAdjust(_) => Ok(()),
        }
    }
}

impl Processor for KernelApicVcpu {
    fn index(&self) -> usize {
        self.index
    }

    fn cpu(&mut self) -> &mut kvm::Vcpu {
        &mut self.cpu
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn run_loop(&mut self) -> Result<(), StopReason> {
        while !self.shared.stopper.is_stopped() {
            self.cpu.set_immediate_exit(false);
            self.collect()?;
            self.enter()?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let state = self.cpu.mp_state().map_or_else(|e| e.to_string(), |state| format!("{state:?}"));
        let rip = self.cpu.regs().map_or(0, |regs| regs.rip);
        format!("vCPU {}: {state}, IF {}, RIP {rip:#x}, {}", self.index, self.cpu.if_flag(), dump::events(&self.cpu))
    }
}
