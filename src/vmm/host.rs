//! The host: its KVM, and what that really delivers.

use kvm::Kvm;
use kvm::bindings::kvm_cpuid_entry2;
use kvm::cpuid::{CpuidConfig, table};
use kvm::probe::HostFeatures;

use crate::Error;

/// CPUID leaf with the number of physical-address bits in EAX bits 7:0.
const ADDRESS_SIZES: u32 = 0x8000_0008;

/// An open KVM and its properties; made once a program, used by every machine.
pub struct Host {
    /// KVM.
    pub kvm: Kvm,
    /// What the probe found.
    pub features: HostFeatures,
    cpuid: Vec<kvm_cpuid_entry2>,
}

impl Host {
    /// Opens /dev/kvm and probes it.
    pub fn open() -> Result<Self, Error> {
        let kvm = Kvm::open()?;
        let features = HostFeatures::probe(&kvm)?;
        log::debug!("host: {features:?}");
        let cpuid = kvm.supported_cpuid()?;
        Ok(Self { kvm, features, cpuid })
    }

    /// The CPUID table of vCPU `apic_id` of `cpus`.
    pub fn cpuid(&self, apic_id: u32, cpus: u32) -> Vec<kvm_cpuid_entry2> {
        let config = CpuidConfig {
            apic_id,
            cpus,
            max_apic_id: cpus - 1,
            x2apic: self.features.x2apic,
            tsc_deadline: self.features.tsc_deadline,
            invariant_tsc: sys::clock::tsc_is_steady(),
        };
        table(&self.cpuid, &config)
    }

    /// The local APIC that goes with [`Host::cpuid`].
    pub fn apic_config(&self, id: u32) -> irqchip::lapic::Config {
        let sizes = self.cpuid.iter().find(|entry| entry.function == ADDRESS_SIZES);
        irqchip::lapic::Config {
            id,
            bsp: id == 0,
            x2apic: self.features.x2apic,
            tsc_deadline: self.features.tsc_deadline,
            // KVM's MCG_CAP has no CMCI unless it is asked for.
            cmci: false,
            physical_bits: sizes.map_or(36, |entry| entry.eax & 0xff),
        }
    }
}
