//! The host: its KVM, and what that really delivers.

use std::sync::OnceLock;

use irqchip::lapic::PvEoi;
use kvm::Kvm;
use kvm::bindings::kvm_cpuid_entry2;
use kvm::cpuid::{CpuidConfig, Paravirtual, table};
use kvm::probe::{HostFeatures, hypercalls_work};

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
    /// Guests are offered only what they are offered in all modes.
    pub same_cpuid: bool,
    /// Whether a guest's hypercalls come back, once somebody has asked.
    hypercalls: OnceLock<bool>,
}

/// What a mode's guests are offered, beyond what the processors can do.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// x2APIC mode.
    pub x2apic: bool,
    /// The TSC-deadline timer.
    pub tsc_deadline: bool,
    /// This program's paravirtual EOI. (KVM's is among its features.)
    pub pv_eoi: bool,
    /// KVM's paravirtual features.
    pub paravirtual: Paravirtual,
    /// Destinations of 15 bits.
    pub ext_destination: bool,
}

impl Host {
    /// Opens /dev/kvm and probes it.
    pub fn open() -> Result<Self, Error> {
        let kvm = Kvm::open()?;
        let features = HostFeatures::probe(&kvm)?;
        log::debug!("host: {features:?}");
        let cpuid = kvm.supported_cpuid()?;
        Ok(Self { kvm, features, cpuid, same_cpuid: false, hypercalls: OnceLock::new() })
    }

    /// The CPUID table of the vCPU with `apic_id`, one of `apic_ids`.
    pub fn cpuid(&self, apic_id: u32, apic_ids: &[u32], offer: &Offer) -> Vec<kvm_cpuid_entry2> {
        let common = Offer {
            x2apic: self.features.x2apic,
            tsc_deadline: self.features.tsc_deadline && self.kvm.has_tsc_deadline_timer(),
            pv_eoi: false,
            paravirtual: Paravirtual::WithoutLocalApic,
            ext_destination: false,
        };
        let offer = if self.same_cpuid { &common } else { offer };
        let config = CpuidConfig {
            apic_id,
            cpus: apic_ids.len() as u32,
            max_apic_id: apic_ids.iter().copied().max().unwrap_or(apic_id),
            x2apic: offer.x2apic,
            tsc_deadline: offer.tsc_deadline,
            pv_eoi: offer.pv_eoi,
            invariant_tsc: sys::clock::tsc_is_steady(),
            paravirtual: offer.paravirtual,
            ext_destination: offer.ext_destination,
        };
        table(&self.cpuid, &config)
    }

    /// All that KVM's own local APICs can do.
    pub fn kernel_apic_offer(&self, ext_destination: bool) -> Result<Offer, Error> {
        let works = match self.hypercalls.get() {
            Some(works) => *works,
            None => {
                let works = hypercalls_work(&self.kvm)?;
                log::debug!("hypercalls work: {works}");
                *self.hypercalls.get_or_init(|| works)
            }
        };
        Ok(Offer {
            x2apic: true,
            tsc_deadline: self.kvm.has_tsc_deadline_timer(),
            pv_eoi: false,
            paravirtual: if works { Paravirtual::All } else { Paravirtual::WithoutHypercalls },
            ext_destination,
        })
    }

    /// What kind of processor the guest has: EAX and EDX of CPUID leaf 1.
    pub fn processor(&self) -> (u32, u32) {
        let leaf = self.cpuid.iter().find(|entry| entry.function == 1);
        leaf.map_or((0, 0), |entry| (entry.eax, entry.edx))
    }

    /// The local APIC that goes with [`Host::cpuid`].
    pub fn apic_config(&self, id: u32, bsp: bool) -> irqchip::lapic::Config {
        irqchip::lapic::Config {
            id,
            bsp,
            x2apic: self.features.x2apic,
            tsc_deadline: self.features.tsc_deadline,
            // KVM's MCG_CAP has no CMCI unless it is asked for.
            cmci: false,
            physical_bits: self.physical_bits(),
        }
    }

    /// The paravirtual EOI that goes with [`Host::cpuid`].
    pub fn pv_eoi(&self) -> Option<PvEoi> {
        self.features.pv_eoi.then(PvEoi::new)
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
