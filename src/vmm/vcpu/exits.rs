//! What a vCPU does with an exit: the side that knows chips and devices, not KVM's vCPU.

use std::sync::Arc;

use irqchip::lapic::{Effect, LocalApic};
use irqchip::mailbox::Mailbox;
use kvm::Exit;
use vm_memory::GuestMemoryMmap;
use x86::msr;

use crate::clock::Clock;
use crate::interrupts::Interrupts;
use crate::io_bus::IoBus;
use crate::stop::Stopper;

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
    /// PIC, I/O APIC, APIC bus.
    pub interrupts: Arc<Interrupts>,
    /// How to end it.
    pub stopper: Arc<Stopper>,
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
    /// The rest of the machine.
    pub shared: Arc<Shared>,
}

impl Core {
    /// Its mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        self.shared.interrupts.mailbox(self.index)
    }

    /// Answers an exit.
    pub fn handle(&mut self, exit: Exit<'_>) -> After {
        match exit {
            Exit::PioIn { port, size, data } => {
                let now = self.shared.clock.now();
                for element in data.chunks_mut(size.into()) {
                    self.shared.ports.read(now, port.into(), element);
                }
            }
            Exit::PioOut { port, size, data } => {
                let now = self.shared.clock.now();
                for element in data.chunks(size.into()) {
                    self.shared.ports.write(now, port.into(), element);
                }
            }
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
            Exit::Halt => return After::Halt,
            // The loop looks for interrupts after every exit.
            Exit::InterruptWindow | Exit::SetTpr | Exit::Interrupted | Exit::Debug { .. } => {}
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

    /// Carries an effect of the local APIC to the rest of the machine.
    pub fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Ipi(ipi) => self.shared.interrupts.send_ipi(&mut self.apic, self.index, &ipi),
            Effect::Eoi(vector) => self.shared.interrupts.eoi(vector),
            Effect::Readdressed => self.shared.interrupts.readdress(self.index, self.apic.address()),
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
            _ => unknown_msr("read", index),
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
                let effect = self.apic.write_msr(self.shared.clock.now(), index, value).ok()?;
                self.apply(effect);
                Some(After::Nothing)
            }
            msr::IA32_TSC => Some(After::Tsc(value)),
            msr::IA32_TSC_ADJUST => Some(After::TscAdjust(value)),
            _ => unknown_msr("write", index),
        }
    }
}

fn broken(why: String) -> After {
    After::Broken(why)
}

/// Registers that neither KVM nor we have: #GP, as hardware gives.
fn unknown_msr<T>(what: &str, index: u32) -> Option<T> {
    log::trace!("{what} of unknown MSR {index:#x}: #GP");
    None
}
