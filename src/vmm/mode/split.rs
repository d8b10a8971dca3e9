//! `split`: the local APICs are KVM's, the PIC and the I/O APIC this program's.

use std::sync::Arc;

use bottom_half::CpuOwner;
use irqchip::mailbox::Mailbox;
use kvm::Vm;

use super::{Mode, firmware};
use crate::Error;
use crate::boot::BootState;
use crate::clock::Clock;
use crate::host::Host;
use crate::interrupts::{EOI_ROUTES, Inputs, Interrupts, KvmApics, Processors};
use crate::machine::IOAPIC_ID;
use crate::monitor::Chips;
use crate::trace::Trace;
use crate::vcpu::{KernelApicVcpu, OwnChips, Processor, Shared};
use crate::wiring::Wiring;

/// The controllers in the making.
pub struct Split<'a> {
    vm: Vm,
    ids: Vec<u32>,
    host: &'a Host,
    interrupts: Arc<Interrupts<KvmApics>>,
}

impl<'a> Split<'a> {
    /// Local APICs with these IDs.
    pub fn new(vm: Vm, ids: Vec<u32>, host: &'a Host, clock: Clock, trace: &Trace) -> Result<Self, Error> {
        host.kvm.check_split_irqchip()?;
        super::check_ids(&ids, host.kvm.max_vcpu_ids(), "split")?;
        vm.create_local_apics(EOI_ROUTES as u32)?;
        vm.use_32_bit_apic_ids(super::is_wide(&ids))?;
        firmware::add(&vm)?;
        let processors = Processors::traced(ids.iter().map(|_| Mailbox::default()).collect(), trace.clone());
        let interrupts = Interrupts::with_apics(clock, IOAPIC_ID, KvmApics::new(vm.clone(), trace.clone()), processors);
        Ok(Self { vm, ids, host, interrupts: Arc::new(interrupts) })
    }
}

impl Mode for Split<'_> {
    fn vm(&self) -> &Vm {
        &self.vm
    }

    fn inputs(&self) -> Arc<dyn Inputs> {
        Arc::clone(&self.interrupts) as _
    }

    fn wire(&self, wiring: &mut Wiring) {
        wiring.interrupt_controllers(&self.interrupts);
    }

    fn chips(&self) -> Option<Arc<dyn Chips>> {
        Some(Arc::clone(&self.interrupts) as _)
    }

    fn processors(&self) -> Arc<Processors> {
        Arc::clone(self.interrupts.processors())
    }

    fn vcpus(
        self: Box<Self>,
        shared: &Arc<Shared>,
        owners: Vec<CpuOwner>,
        boot: &BootState,
    ) -> Result<Vec<Box<dyn Processor>>, Error> {
        // Our I/O APIC and `Message::from_msi` know the extension.
        let offer = self.host.kernel_apic_offer(true)?;
        let cpuid = |id| self.host.cpuid(id, &self.ids, &offer);
        let vcpus = super::kernel_apic_vcpus(&self.vm, &self.ids, boot, cpuid)?;
        let processor = |(cpu, owner)| -> Result<Box<dyn Processor>, Error> {
            let chips = Some(OwnChips::new(&self.interrupts));
            Ok(Box::new(KernelApicVcpu::new(cpu, owner, shared, chips, &self.host.features)?))
        };
        vcpus.into_iter().zip(owners).map(processor).collect()
    }
}
