//! The ACPI tables that describe this machine, and their place in guest memory.
//!
//! Follows the ACPI specification 6.5, chapter "ACPI Software Programming Model". The tables are an RSDP, an XSDT, a
//! FADT with its FACS and DSDT, and a MADT; all lie in [`layout::ACPI`], the root pointer first.
//!
//! Not modelled: RSDT (ACPI 1.0), general-purpose events, sleep states other than S5, PCI, hot-plug, NUMA tables.

mod dsdt;
mod fadt;
mod madt;

use acpi_tables::{Aml, facs::FACS, rsdp::Rsdp, xsdt::XSDT};
use vm_memory::{Bytes, GuestAddress};

use crate::boot::{BootError, layout};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

const OEM_ID: [u8; 6] = *b"TOPHLF";
const OEM_TABLE_ID: [u8; 8] = *b"TOPHALF ";
const OEM_REVISION: u32 = 1;

/// The FACS must lie on such a boundary; the other tables may lie anywhere.
const TABLE_ALIGN: usize = 64;

/// What differs from machine to machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Local APIC ID of each vCPU, the bootstrap processor's first; a vCPU's ACPI UID is its index.
    pub apic_ids: Vec<u32>,
    /// I/O APIC ID.
    pub ioapic_id: u8,
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
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = image.append(&xsdt);

    let mut bytes = image.bytes;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    bytes[..rsdp.len()].copy_from_slice(&rsdp);
    Ok(bytes)
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
