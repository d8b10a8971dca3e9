//! The MP floating pointer and the MP configuration table, by which a kernel without ACPI finds processors and I/O APIC
//! (Intel MultiProcessor Specification 1.4, chapter "MP Configuration Table").
//!
//! Its fields are eight bits wide: processors with larger APIC IDs are not in it. The wiring it tells of is that of
//! [`x86::platform`]; the machine starts in virtual-wire mode, so there is no IMCR.
//!
//! Not modelled: extended table entries. The I/O APIC's ID may be a processor's too, which only matters
//! on a serial APIC bus.

use vm_memory::{Bytes, GuestAddress};
use x86::platform;

use crate::boot::{BootError, layout};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

const REVISION_1_4: u8 = 4;
const POINTER_BYTES: u8 = 16;
const HEADER_BYTES: usize = 44;
/// APIC IDs from here on can't be told: this one means all local APICs.
const ALL_LOCAL_APICS: u8 = 0xff;

/// Low byte of the local APICs' version register.
const LOCAL_APIC_VERSION: u8 = 0x14;

const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Processor flags.
const ENABLED: u8 = 1 << 0;
const BOOTSTRAP: u8 = 1 << 1;

/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

/// Interrupt flags: as the bus has it (ISA: edge, active high).
const CONFORMING: u16 = 0;
/// Interrupt flags: level-triggered, active high.
const LEVEL_ACTIVE_HIGH: u16 = 0b11 << 2 | 0b01;

/// Interrupt flags: level-triggered, active low.
const LEVEL_ACTIVE_LOW: u16 = 0b11 << 2 | 0b11;

const ISA_BUS: u8 = 0;
const PCI_BUS: u8 = 1;
/// Devices of a PCI bus.
const PCI_DEVICES: u8 = 32;
const ISA_IRQS: u8 = 16;
/// The I/O APIC pin of the 8259A pair.
const PIC_PIN: u8 = 0;
const LINT0: u8 = 0;
const LINT1: u8 = 1;

/// What differs from machine to machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpConfig<'a> {
    /// Local APIC ID of each vCPU, the bootstrap processor's first.
    pub apic_ids: &'a [u32],
    /// I/O APIC ID.
    pub ioapic_id: u8,
    /// Family, model and stepping, and features: EAX and EDX of CPUID leaf 1.
    pub processor: (u32, u32),
}

/// Writes pointer and table to guest memory.
///
/// # Errors
///
/// When the guest has no memory there, which is a bug.
pub fn write(ram: &GuestRam, config: &MpConfig<'_>) -> Result<(), BootError> {
    ram.memory()
        .write_slice(&build(config), GuestAddress(layout::MP.start))
        .map_err(|cause| BootError::GuestWrite { what: "the MP table", cause })
}

/// The contents of the range from its start on: the floating pointer, and behind it the table.
fn build(config: &MpConfig<'_>) -> Vec<u8> {
    let entries = entries(config);
    let length = HEADER_BYTES + entries.iter().map(Vec::len).sum::<usize>();
    let mut table = Vec::with_capacity(length);
    table.extend(b"PCMP");
    table.extend((length as u16).to_le_bytes());
    table.extend([REVISION_1_4, 0]);
    table.extend(b"TOPHALF VIRTUAL     ");
    // No OEM table: its address and size.
    table.extend([0; 6]);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend((platform::LAPIC_BASE as u32).to_le_bytes());
    // No extended entries; reserved.
    table.extend([0; 4]);
    table.extend(entries.into_iter().flatten());
    table[7] = checksum(&table);

    let address = layout::MP.start as u32 + u32::from(POINTER_BYTES);
    let mut image = Vec::from(*b"_MP_");
    image.extend(address.to_le_bytes());
    // Length in paragraphs; checksum; a table is there, not a default configuration; virtual wire.
    image.extend([POINTER_BYTES / 16, REVISION_1_4, 0, 0, 0, 0, 0, 0]);
    image[10] = checksum(&image);
    image.extend(table);
    image
}

fn entries(config: &MpConfig<'_>) -> Vec<Vec<u8>> {
    let (signature, features) = config.processor;
    let mut entries = Vec::new();
    let ids = config.apic_ids.iter().enumerate();
    let ids = ids.filter_map(|(n, &id)| Some((n, u8::try_from(id).ok()?))).filter(|&(_, id)| id != ALL_LOCAL_APICS);
    for (n, id) in ids {
        let flags = ENABLED | if n == 0 { BOOTSTRAP } else { 0 };
        let mut entry = vec![PROCESSOR, id, LOCAL_APIC_VERSION, flags];
        entry.extend(signature.to_le_bytes());
        entry.extend(features.to_le_bytes());
        entry.extend([0; 8]);
        entries.push(entry);
    }
    for (id, kind) in [(ISA_BUS, b"ISA   "), (PCI_BUS, b"PCI   ")] {
        let mut bus = vec![BUS, id];
        bus.extend(kind);
        entries.push(bus);
    }
    let mut ioapic = vec![IO_APIC, config.ioapic_id, x86::ioapic::VERSION, ENABLED];
    ioapic.extend((platform::IOAPIC_BASE as u32).to_le_bytes());
    entries.push(ioapic);

    let from_bus = |entry, kind, flags: u16, bus, irq, destination, pin| {
        let [low, high] = flags.to_le_bytes();
        vec![entry, kind, low, high, bus, irq, destination, pin]
    };
    let interrupt =
        |entry, kind, flags, irq, destination, pin| from_bus(entry, kind, flags, ISA_BUS, irq, destination, pin);
    entries.push(interrupt(IO_INTERRUPT, EXT_INT, CONFORMING, 0, config.ioapic_id, PIC_PIN));
    for irq in 0..ISA_IRQS {
        if let Some(pin) = platform::isa_irq_to_gsi(irq) {
            let flags = if irq == platform::IRQ_SCI { LEVEL_ACTIVE_HIGH } else { CONFORMING };
            entries.push(interrupt(IO_INTERRUPT, INT, flags, irq, config.ioapic_id, pin));
        }
    }
    for device in 1..PCI_DEVICES {
        // Device in bits 2 to 6, INTA# (section "I/O Interrupt Assignment Entries").
        let pin = platform::pci_gsi(device, 0);
        entries.push(from_bus(IO_INTERRUPT, INT, LEVEL_ACTIVE_LOW, PCI_BUS, device << 2, config.ioapic_id, pin));
    }
    // The 8259A pair's output goes to the bootstrap processor alone.
    let bootstrap = config.apic_ids.first().and_then(|&id| u8::try_from(id).ok()).unwrap_or(ALL_LOCAL_APICS);
    entries.push(interrupt(LOCAL_INTERRUPT, EXT_INT, CONFORMING, 0, bootstrap, LINT0));
    entries.push(interrupt(LOCAL_INTERRUPT, NMI, CONFORMING, 0, ALL_LOCAL_APICS, LINT1));
    entries
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}
