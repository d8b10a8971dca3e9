//! The host: its KVM, and what that really delivers.

use kvm::Kvm;
use kvm::bindings::kvm_cpuid_entry2;
use kvm::cpuid::{CpuidConfig, table};
use kvm::probe::HostFeatures;

use x86::platform;

use crate::Error;
use crate::boot::Size;
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

/// CPUID leaf with the number of physical-address bits in EAX bits 7:0.
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// What a processor without that leaf has.
const PHYSICAL_BITS: u32 = 36;

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
        irqchip::lapic::Config {
            id,
            bsp: id == 0,
            x2apic: self.features.x2apic,
            tsc_deadline: self.features.tsc_deadline,
            // KVM's MCG_CAP has no CMCI unless it is asked for.
            cmci: false,
            physical_bits: self.physical_bits(),
        }
    }

    /// Refuses memory that the guest's processors can't address.
    pub fn check_memory(&self, ram: &GuestRam) -> Result<(), Error> {
        check_address_bits(ram.bytes(), ram.end(), self.physical_bits())
    }

    fn physical_bits(&self) -> u32 {
        let sizes = self.cpuid.iter().find(|entry| entry.function == ADDRESS_SIZES);
        sizes.map_or(PHYSICAL_BITS, |entry| entry.eax & 0xff)
    }
}

fn check_address_bits(memory: u64, end: u64, bits: u32) -> Result<(), Error> {
    let limit = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    if end <= limit {
        return Ok(());
    }
    let most = match limit.checked_sub(platform::MMIO_HOLE_END) {
        None | Some(0) => limit.min(platform::MMIO_HOLE_START),
        Some(high) => platform::MMIO_HOLE_START + high,
    };
    Err(Error::Usage(format!(
        "memory size {} ends at {end:#x}, beyond the {bits} physical-address bits of this host's processors; \
         give --memory {} or less",
        Size(memory),
        Size(most)
    )))
}
