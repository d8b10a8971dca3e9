//! What a vCPU does with an exit: the side that knows chips and devices, not KVM's vCPU.

use std::sync::Arc;

use bottom_half::CpuOwner;
use irqchip::lapic::{Effect, LocalApic, PvEoi};
use irqchip::mailbox::Mailbox;
use kvm::Exit;
use vm_memory::GuestMemoryMmap;
use x86::apic::reg;
use x86::msr;

use crate::bottom_halves::Inline;
use crate::clock::Clock;
use crate::interrupts::{Interrupts, Processors};
use crate::io_bus::IoBus;
use crate::monitor::Questions;
use crate::rest::Rest;
use crate::stop::Stopper;
use crate::trace::Watch;
use crate::trace::event::{Cause, Eoi};
use crate::wiring::Waker;

use super::Counts;

/// The EOI register in x2APIC mode.
const X2APIC_EOI: u32 = msr::X2APIC_FIRST + reg::EOI / 16;

/// What all vCPUs share.
pub struct Shared {
    /// The machine's clock.
    pub clock: Clock,
    /// Ports.
    pub ports: IoBus,
    /// Memory-mapped registers.
    pub mmio: IoBus,
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// The vCPUs' mailboxes and threads.
    pub processors: Arc<Processors>,
    /// How to end it.
    pub stopper: Arc<Stopper>,
    /// Who has halted for good; `None` if nobody wants to know.
    pub rest: Option<Rest>,
    /// What the monitor wants to know of the vCPUs.
    pub questions: Questions,
    /// The devices that may wake a vCPU which rests for good.
    pub wakers: Vec<Waker>,
    /// What an exit has to do itself, after its answer.
    pub inline: Vec<Arc<Inline>>,
}

impl Shared {
    /// An exit is a top half: answers it, does what is to be done inline, and leaves the rest to the softirqs that it has
    /// raised, which run when this returns.
    pub fn top_half(&self, owner: &CpuOwner, answer: impl FnOnce() -> After) -> After {
        owner.top_half(|_top| {
            let after = answer();
            self.run_inline();
            after
        })
    }

    fn run_inline(&self) {
        self.inline.iter().for_each(|inline| inline.run());
    }

    /// Runs softirqs that others have raised on this vCPU's CPU, and its timers that are due.
    pub fn run_deferred(&self, owner: &CpuOwner) {
        owner.top_half(|top| owner.expire(top));
    }

    /// Answers an exit that has nothing to do with the local APIC.
    pub fn handle(&self, exit: Exit<'_>) -> After {
        // Kicks that the exit leads to are sent when no device's lock is held any more.
        let _held = self.processors.hold_kicks();
        match exit {
            Exit::PioIn { port, size, data } => {
                let now = self.clock.now();
                for element in data.chunks_mut(size.into()) {
                    self.ports.read(now, port.into(), element);
                }
            }
            Exit::PioOut { port, size, data } => {
                let now = self.clock.now();
                for element in data.chunks(size.into()) {
                    self.ports.write(now, port.into(), element);
                }
            }
            Exit::MmioRead { addr, data } => self.mmio.read(self.clock.now(), addr, data),
            Exit::MmioWrite { addr, data } => self.mmio.write(self.clock.now(), addr, data),
            Exit::MsrRead { index, reply, .. } => {
                unknown_msr("read", index);
                reply.fault();
            }
            Exit::MsrWrite { index, reply, .. } => {
                unknown_msr("write", index);
                reply.fault();
            }
            Exit::Halt => return After::Halt,
            // The loop looks for interrupts after every exit.
            Exit::InterruptWindow | Exit::SetTpr | Exit::Interrupted | Exit::Debug { .. } => {}
            // None of ours: the I/O APIC that it is for is KVM's, or the route an old one.
            Exit::IoApicEoi { .. } => {}
            Exit::Shutdown => return After::TripleFault,
            Exit::FailEntry { reason } => return broken(format!("the processor refused its state ({reason:#x})")),
            Exit::InternalError { suberror, data } => {
                return broken(format!("KVM internal error {suberror}, data {data:x?}"));
            }
            Exit::MemoryFault { addr, size } => {
                return broken(format!("KVM could not access {size} bytes of memory at {addr:#x}"));
            }
            Exit::SystemEvent { kind } => return broken(format!("unexpected KVM system event {kind}")),
            Exit::Unknown(reason) => return broken(format!("unexpected KVM exit {reason}")),
        }
        After::Nothing
    }
}

/// What is left to do with KVM's vCPU after an exit.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Nothing,
    /// The processor halts until an interrupt.
    Halt,
    /// KVM is to learn of the new IA32_APIC_BASE.
    ApicBase(u64),
    /// IA32_TSC was written.
    Tsc(u64),
    /// IA32_TSC_ADJUST was written.
    TscAdjust(u64),
    /// Triple fault.
    TripleFault,
    /// KVM can't go on: why.
    Broken(String),
}

/// A vCPU's local APIC and its place in the machine.
pub struct Core {
    /// Its number.
    pub index: usize,
    /// Its local APIC.
    pub apic: LocalApic,
    /// Its paravirtual EOI, if CPUID offers it.
    pub pv_eoi: Option<PvEoi>,
    /// Its local APIC as the trace has last seen it.
    pub watch: Watch,
    /// PIC, I/O APIC, APIC bus.
    pub interrupts: Arc<Interrupts>,
    /// The rest of the machine.
    pub shared: Arc<Shared>,
}

impl Core {
    /// Its mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        self.interrupts.mailbox(self.index)
    }

    /// What it has done.
    pub fn counts(&self) -> &Counts {
        self.shared.processors.counts(self.index)
    }

    /// This vCPU goes to rest. True: it is the last, and nothing will happen any more.
    pub fn is_the_end(&self, rest: &Rest) -> bool {
        let interrupts = &self.interrupts;
        let can_wake = || interrupts.can_give_nmi() || self.shared.wakers.iter().any(|waker| waker());
        rest.begin(self.index, can_wake, |index| interrupts.mailbox(index).is_pending())
    }

    /// Answers an exit, which is a top half.
    pub fn top_half(&mut self, owner: &CpuOwner, exit: Exit<'_>) -> After {
        owner.top_half(|_top| {
            let after = self.handle(exit);
            self.shared.run_inline();
            after
        })
    }

    /// Answers an exit.
    pub fn handle(&mut self, exit: Exit<'_>) -> After {
        self.counts().exit(&exit);
        // Kicks that the exit leads to are sent when no device's lock is held any more.
        let _held = self.shared.processors.hold_kicks();
        match exit {
            Exit::MmioRead { addr, data } => self.read_mmio(addr, data),
            Exit::MmioWrite { addr, data } => self.write_mmio(addr, data),
            Exit::MsrRead { index, reply, .. } => match self.read_msr(index) {
                Some(value) => reply.value(value),
                None => reply.fault(),
            },
            Exit::MsrWrite { index, value, reply, .. } => match self.write_msr(index, value) {
                Some(after) => {
                    reply.accept();
                    return after;
                }
                None => reply.fault(),
            },
            exit => return self.shared.handle(exit),
        }
        After::Nothing
    }

    /// Carries an effect of the local APIC to the rest of the machine.
    pub fn apply(&mut self, effect: Effect) {
        self.look(Cause::Register, Eoi::Register);
        match effect {
            Effect::None => {}
            Effect::Ipi(ipi) => {
                self.interrupts.send_ipi(&mut self.apic, self.index, &ipi);
                self.look(Cause::Mailbox, Eoi::Register);
            }
            Effect::Eoi(vector) => self.interrupts.eoi(vector),
            Effect::Readdressed => self.interrupts.readdress(self.index, self.apic.address()),
        }
    }

    /// Has the trace see what a step has done to the local APIC.
    #[inline]
    pub(super) fn look(&mut self, cause: Cause, eoi: Eoi) {
        if self.interrupts.trace().is_on() {
            self.watch.look(self.interrupts.trace(), self.index, &self.apic, cause, eoi);
        }
    }

    fn read_mmio(&mut self, address: u64, data: &mut [u8]) {
        let now = self.shared.clock.now();
        match self.apic_offset(address) {
            Some(offset) => self.apic.read_mmio(now, offset, data),
            None => self.shared.mmio.read(now, address, data),
        }
    }

    fn write_mmio(&mut self, address: u64, data: &[u8]) {
        let now = self.shared.clock.now();
        match self.apic_offset(address) {
            Some(offset) => {
                if offset == u64::from(reg::EOI) {
                    self.counts().eois.add();
                }
                let effect = self.apic.write_mmio(now, offset, data);
                self.apply(effect);
            }
            None => self.shared.mmio.write(now, address, data),
        }
    }

    fn apic_offset(&self, address: u64) -> Option<u64> {
        (self.apic.mmio_page() == Some(address & !0xfff)).then_some(address & 0xfff)
    }

    /// `None` is #GP.
    fn read_msr(&mut self, index: u32) -> Option<u64> {
        match index {
            msr::IA32_APIC_BASE => Some(self.apic.base()),
            msr::IA32_TSC_DEADLINE | msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
                self.apic.read_msr(self.shared.clock.now(), index).ok()
            }
            msr::KVM_PV_EOI => self.pv_eoi.as_ref().map(PvEoi::msr),
            _ => {
                unknown_msr("read", index);
                None
            }
        }
    }

    /// `None` is #GP.
    fn write_msr(&mut self, index: u32, value: u64) -> Option<After> {
        match index {
            msr::IA32_APIC_BASE => {
                let effect = self.apic.write_base(value).ok()?;
                self.apply(effect);
                Some(After::ApicBase(self.apic.base()))
            }
            msr::IA32_TSC_DEADLINE | msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
                if index == X2APIC_EOI {
                    self.counts().eois.add();
                }
                let effect = self.apic.write_msr(self.shared.clock.now(), index, value).ok()?;
                self.apply(effect);
                Some(After::Nothing)
            }
            msr::IA32_TSC => Some(After::Tsc(value)),
            msr::IA32_TSC_ADJUST => Some(After::TscAdjust(value)),
            msr::KVM_PV_EOI => self.write_pv_eoi(value).map(|()| After::Nothing),
            _ => {
                unknown_msr("write", index);
                None
            }
        }
    }
}

fn broken(why: String) -> After {
    After::Broken(why)
}

/// Registers that neither KVM nor we have: #GP, as hardware gives.
fn unknown_msr(what: &str, index: u32) {
    log::trace!("{what} of unknown MSR {index:#x}: #GP");
}
