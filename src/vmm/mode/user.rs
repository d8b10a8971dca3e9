//! `user`: every interrupt controller is this program's; KVM has none.

use std::sync::Arc;

use bottom_half::CpuOwner;
use irqchip::lapic::LocalApic;
use kvm::cpuid::Paravirtual;
use kvm::{MsrRange, Vm};
use x86::msr;

use super::Mode;
use crate::Error;
use crate::boot::BootState;
use crate::clock::Clock;
use crate::host::{Host, Offer};
use crate::interrupts::{Inputs, Interrupts, Processors};
use crate::machine::IOAPIC_ID;
use crate::monitor::Chips;
use crate::trace::{Trace, Watch};
use crate::vcpu::{Core, Processor, Shared, UserApicVcpu};
use crate::wiring::Wiring;

/// The MSRs whose accesses are ours.
const FILTERED_MSRS: [MsrRange; 5] = [
    MsrRange { base: msr::IA32_APIC_BASE, count: 1, read: true, write: true },
    MsrRange { base: msr::IA32_TSC_DEADLINE, count: 1, read: true, write: true },
    MsrRange { base: msr::KVM_PV_EOI, count: 1, read: true, write: true },
    MsrRange { base: msr::IA32_TSC, count: 1, read: false, write: true },
    MsrRange { base: msr::IA32_TSC_ADJUST, count: 1, read: false, write: true },
];

/// The controllers in the making.
pub struct User<'a> {
    vm: Vm,
    ids: Vec<u32>,
    host: &'a Host,
    interrupts: Arc<Interrupts>,
    apics: Vec<LocalApic>,
}

impl<'a> User<'a> {
    /// Local APICs with these IDs.
    pub fn new(vm: Vm, ids: Vec<u32>, host: &'a Host, clock: Clock, trace: &Trace) -> Result<Self, Error> {
        vm.filter_msrs(&FILTERED_MSRS)?;
        let mut apics = Vec::new();
        for (index, &id) in ids.iter().enumerate() {
            let mut apic = LocalApic::new(host.apic_config(id, index == 0));
            let base = super::apic_base(apic.base(), &ids);
            // The address is published below.
            if apic.write_base(base).is_err() {
                return Err(Error::Host(format!(
                    "APIC ID {id} needs x2APIC mode, which this host's KVM keeps from user space; \
                     give --apic-ids below 255 or --irqchip split"
                )));
            }
            apics.push(apic);
        }
        let addresses = apics.iter().map(LocalApic::address).collect();
        let interrupts = Arc::new(Interrupts::traced(clock, IOAPIC_ID, addresses, trace.clone()));
        Ok(Self { vm, ids, host, interrupts, apics })
    }

    fn offer(&self) -> Offer {
        Offer {
            x2apic: self.host.features.x2apic,
            tsc_deadline: self.host.features.tsc_deadline,
            pv_eoi: self.host.features.pv_eoi,
            paravirtual: Paravirtual::WithoutLocalApic,
            ext_destination: true,
        }
    }
}

impl Mode for User<'_> {
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
        let offer = self.offer();
        let mut vcpus: Vec<Box<dyn Processor>> = Vec::new();
        for ((index, apic), owner) in self.apics.into_iter().enumerate().zip(owners) {
            let boot = Some(boot).filter(|_| index == 0);
            let cpuid = self.host.cpuid(self.ids[index], &self.ids, &offer);
            let cpu = super::vcpu(&self.vm, index as u32, &cpuid, &self.ids, boot)?;
            let interrupts = Arc::clone(&self.interrupts);
            let (pv_eoi, watch, shared) = (self.host.pv_eoi(), Watch::default(), Arc::clone(shared));
            let mut core = Core { index, apic, pv_eoi, interrupts, watch, shared };
            if boot.is_some() {
                let effect = core.apic.enter_virtual_wire_mode();
                core.apply(effect);
            }
            vcpus.push(Box::new(UserApicVcpu::new(core, cpu, owner, &self.host.features)?));
        }
        Ok(vcpus)
    }
}
