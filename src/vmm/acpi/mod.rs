//! The ACPI tables that describe this machine, and their place in guest memory.
//!
//! Follows the ACPI specification 6.5, chapter "ACPI Software Programming Model". The tables are an RSDP, an XSDT and
//! an RSDT with the same entries (for small kernels and test images that know ACPI 1.0 only), a FADT with its FACS and DSDT, a MADT, an
//! HPET and an MCFG table; all lie in [`layout::ACPI`], the root pointer first.
//!
//! Not modelled: general-purpose events, sleep states other than S5, hot-plug, NUMA tables.

mod dsdt;
mod fadt;
mod hpet;
mod madt;
mod pci;
mod virtio;

use acpi_tables::{Aml, facs::FACS, rsdp::Rsdp, sdt::Sdt, xsdt::XSDT};
use vm_memory::{Bytes, GuestAddress};

use crate::boot::{BootError, layout};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

const OEM_ID: [u8; 6] = *b"TOPHLF";
const OEM_TABLE_ID: [u8; 8] = *b"TOPHALF ";
const OEM_REVISION: u32 = 1;
/// Length of a table's header in bytes.
const SDT_HEADER: u32 = 36;

/// The FACS must lie on such a boundary; the other tables may lie anywhere.
const TABLE_ALIGN: usize = 64;

/// What differs from machine to machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Local APIC ID of each vCPU, the bootstrap processor's first; a vCPU's ACPI UID is its index.
    pub apic_ids: Vec<u32>,
    /// I/O APIC ID.
    pub ioapic_id: u8,
    /// How many virtio devices have windows of their own.
    pub virtio_windows: usize,
}

/// Writes the tables to guest memory; gives the address of the root pointer.
///
/// # Errors
///
/// An input error when there are too many vCPUs for the space.
pub fn write_tables(ram: &GuestRam, config: &AcpiConfig) -> Result<u64, BootError> {
    let image = build(config)?;
    ram.memory()
        .write_slice(&image, GuestAddress(layout::ACPI.start))
        .map_err(|cause| BootError::GuestWrite { what: "the ACPI tables", cause })?;
    Ok(layout::ACPI.start)
}

/// The contents of the table range from its start on, the root pointer first.
fn build(config: &AcpiConfig) -> Result<Vec<u8>, BootError> {
    let limit = layout::ACPI.end - layout::ACPI.start;
    let too_large = || BootError::AcpiTooLarge { cpus: config.apic_ids.len(), limit };
    if config.apic_ids.len() > dsdt::MAX_CPUS {
        return Err(too_large());
    }
    // The root pointer's place is kept; it is written last, when the XSDT's address is known.
    let mut image = Image { bytes: vec![0; Rsdp::len()] };
    let facs = image.append(&FACS::new());
    let dsdt = image.append(&dsdt::build(config));
    // The range ends at 1 MiB, so addresses in it have 32 bits; if they outgrow it, the check below refuses the lot.
    let fadt = image.append(&fadt::build(facs as u32, dsdt as u32));
    let madt = image.append(&madt::build(config));
    let hpet = image.append(&hpet::build());
    let mcfg = image.append(&pci::mcfg());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut rsdt = Sdt::new(*b"RSDT", SDT_HEADER, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, hpet, mcfg] {
        xsdt.add_entry(table);
        rsdt.append(table as u32);
    }
    let (xsdt, rsdt) = (image.append(&xsdt), image.append(&rsdt));

    let mut bytes = image.bytes;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    let rsdp = root_pointer(xsdt, rsdt as u32);
    bytes[..rsdp.len()].copy_from_slice(&rsdp);
    Ok(bytes)
}

/// The crate's root pointer names an XSDT only; checksums are those of "Root System Description Pointer (RSDP) Structure".
fn root_pointer(xsdt: u64, rsdt: u32) -> Vec<u8> {
    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    rsdp[16..20].copy_from_slice(&rsdt.to_le_bytes());
    for (checksum, covered) in [(8, 20), (32, Rsdp::len())] {
        rsdp[checksum] = 0;
        rsdp[checksum] = rsdp[..covered].iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    }
    rsdp
}

struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Appends a table; gives its guest address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(TABLE_ALIGN), 0);
        let address = layout::ACPI.start + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}
