//! `kernel`: every interrupt controller is KVM's.

use std::sync::Arc;

use bottom_half::CpuOwner;
use irqchip::mailbox::Mailbox;
use kvm::Vm;

use super::{Mode, firmware};
use crate::Error;
use crate::boot::BootState;
use crate::host::Host;
use crate::interrupts::{Inputs, KernelChips, Processors};
use crate::monitor::Chips;
use crate::trace::Trace;
use crate::vcpu::{KernelApicVcpu, Processor, Shared};
use crate::wiring::Wiring;

/// KVM's I/O APIC has destinations of 8 bits.
const IOAPIC_ID_LIMIT: u32 = 256;

/// The controllers in the making.
pub struct Kernel<'a> {
    vm: Vm,
    ids: Vec<u32>,
    host: &'a Host,
    chips: Arc<KernelChips>,
    processors: Arc<Processors>,
}

impl<'a> Kernel<'a> {
    /// Local APICs with these IDs.
    pub fn new(vm: Vm, ids: Vec<u32>, host: &'a Host, trace: &Trace) -> Result<Self, Error> {
        host.kvm.check_irqchip()?;
        super::check_ids(&ids, host.kvm.max_vcpu_ids().min(IOAPIC_ID_LIMIT), "kernel")?;
        let chips = Arc::new(KernelChips::create(&vm, trace.clone())?);
        vm.use_32_bit_apic_ids(super::is_wide(&ids))?;
        firmware::add(&vm)?;
        let processors = Processors::traced(ids.iter().map(|_| Mailbox::default()).collect(), trace.clone());
        Ok(Self { vm, ids, host, chips, processors })
    }
}

impl Mode for Kernel<'_> {
    fn vm(&self) -> &Vm {
        &self.vm
    }

    fn inputs(&self) -> Arc<dyn Inputs> {
        Arc::clone(&self.chips) as _
    }

    fn wire(&self, _wiring: &mut Wiring) {
        // Their registers are KVM's.
    }

    fn chips(&self) -> Option<Arc<dyn Chips>> {
        None
    }

    fn processors(&self) -> Arc<Processors> {
        Arc::clone(&self.processors)
    }

    fn vcpus(
        self: Box<Self>,
        shared: &Arc<Shared>,
        owners: Vec<CpuOwner>,
        boot: &BootState,
    ) -> Result<Vec<Box<dyn Processor>>, Error> {
        let offer = self.host.kernel_apic_offer(false)?;
        let cpuid = |id| self.host.cpuid(id, &self.ids, &offer);
        let vcpus = super::kernel_apic_vcpus(&self.vm, &self.ids, boot, cpuid)?;
        let processor = |(cpu, owner)| -> Result<Box<dyn Processor>, Error> {
            Ok(Box::new(KernelApicVcpu::new(cpu, owner, shared, None, &self.host.features)?))
        };
        vcpus.into_iter().zip(owners).map(processor).collect()
    }
}
