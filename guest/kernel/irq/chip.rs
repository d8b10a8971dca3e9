//! What a descriptor asks of the controller behind it.
//!
//! To read more: Linux, Documentation/core-api/genericirq.rst, "Chip-level hardware encapsulation".

use x86::apic::{DeliveryMode, MSI_PREFIX, MsiAddress, MsiData};
use x86::ioapic::RedirectionEntry;

use crate::arch::percpu::{self, this_cpu};
use crate::chips::{apic, i8259, ioapic};

/// The controller of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chip {
    /// Nothing: the number is not in use.
    None,
    /// A pin of the I/O APIC.
    IoApic(u8),
    /// An input of the 8259A pair.
    Pic(u8),
    /// A message: acknowledged at the local APIC, masked nowhere.
    Msi,
    /// No hardware at all: code says that it came.
    Software,
}

impl Chip {
    /// Its name in the table of interrupts.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::IoApic(_) => "IO-APIC",
            Self::Pic(_) => "XT-PIC",
            Self::Msi => "PCI-MSI",
            Self::Software => "soft",
        }
    }

    /// No further interrupt.
    pub(super) fn mask(self) {
        match self {
            Self::IoApic(pin) => ioapic::set_masked(pin, true),
            Self::Pic(irq) => i8259::mask(irq),
            Self::None | Self::Msi | Self::Software => {}
        }
    }

    /// Interrupts again.
    pub(super) fn unmask(self) {
        match self {
            Self::IoApic(pin) => ioapic::set_masked(pin, false),
            Self::Pic(irq) => i8259::unmask(irq),
            Self::None | Self::Msi | Self::Software => {}
        }
    }

    /// The interrupt has been seen (edge), or has been handled (level): the controller may send the next.
    pub(super) fn eoi(self) {
        match self {
            Self::IoApic(_) | Self::Msi => apic::eoi(),
            Self::Pic(irq) => i8259::eoi(irq),
            Self::None | Self::Software => {}
        }
    }

    /// The chip can hold an interrupt back.
    pub(super) fn can_mask(self) -> bool {
        matches!(self, Self::IoApic(_) | Self::Pic(_))
    }

    /// Programs vector, trigger mode and destination; leaves the line masked.
    pub(super) fn set_up(self, vector: u8, level: bool, cpus: u32) {
        match self {
            Self::IoApic(pin) => ioapic::set_entry(pin, route(vector, level, cpus).with_masked(true)),
            Self::Pic(irq) => {
                let chip = i8259::Chip::of(irq);
                let bit = 1 << (irq % 8);
                let levels = chip.levels() & !bit;
                chip.set_levels(if level { levels | bit } else { levels });
            }
            Self::None | Self::Msi | Self::Software => {}
        }
    }

    /// Changes the destination of a running line; false if the chip has none. From one CPU to another only the half of the entry with the
    /// destination is written, so that the pin is never masked and no edge is lost.
    pub(super) fn set_affinity(self, vector: u8, level: bool, cpus: u32) -> bool {
        let Self::IoApic(pin) = self else { return false };
        let (old, new) = (ioapic::entry(pin), route(vector, level, cpus));
        if !old.logical() && !new.logical() {
            ioapic::set_destination(pin, new.destination());
        } else {
            ioapic::set_entry(pin, new.with_masked(old.masked()));
        }
        true
    }

    /// Sends the interrupt once more, as if the line had, to one of its CPUs.
    pub(super) fn retrigger(self, vector: u8, cpus: u32) {
        if !matches!(self, Self::Software | Self::None) {
            let cpu = percpu::cpu(cpus.trailing_zeros() as usize).unwrap_or(this_cpu());
            apic::send_to(cpu.apic_id.load(core::sync::atomic::Ordering::Relaxed), vector);
        }
    }
}

/// The redirection entry for a set of CPUs: one by its APIC ID; several by a logical mask, to the one with the lowest priority.
fn route(vector: u8, level: bool, cpus: u32) -> RedirectionEntry {
    let entry = RedirectionEntry::new().with_vector(vector).with_level(level);
    if cpus.count_ones() > 1 {
        entry.with_logical(true).with_delivery_mode(DeliveryMode::LowestPriority as u8).with_destination(logical(cpus))
    } else {
        entry.with_destination(apic_id_of(cpus) as u8)
    }
}

/// The logical destination of a set of CPUs: their bits, as [`apic`] gives them out; in x2APIC mode they are those of the APIC IDs.
pub(crate) fn logical(cpus: u32) -> u8 {
    let cpus = percpu::cpus().filter(|cpu| cpus & 1 << cpu.number() != 0);
    cpus.fold(0, |mask, cpu| {
        let id = cpu.apic_id.load(core::sync::atomic::Ordering::Relaxed);
        let bit = if apic::in_x2apic() { id } else { cpu.number() as u32 };
        mask | 1u8.checked_shl(bit).unwrap_or(0)
    })
}

fn apic_id_of(cpus: u32) -> u32 {
    let cpu = percpu::cpu(cpus.trailing_zeros() as usize).unwrap_or(this_cpu());
    cpu.apic_id.load(core::sync::atomic::Ordering::Relaxed)
}

/// Address and data of the message that brings `vector` to the first of these CPUs.
pub fn message(vector: u8, cpus: u32) -> (u32, u32) {
    let address = MsiAddress::new().with_prefix(MSI_PREFIX).with_destination(apic_id_of(cpus) as u8);
    (address.into_bits(), MsiData::new().with_vector(vector).into_bits())
}
