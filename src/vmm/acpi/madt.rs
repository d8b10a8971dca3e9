//! The multiple APIC description table (ACPI specification 6.5, section "Multiple APIC Description Table (MADT)").
//!
//! `acpi_tables` has the table's processor and I/O APIC structures, but neither the PC-AT flag nor overrides, NMI or
//! x2APIC structures; those are here.

use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::{Aml, AmlSink, aml_as_bytes, sdt::Sdt};
use x86::platform;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::{AcpiConfig, OEM_ID, OEM_REVISION, OEM_TABLE_ID};

const REVISION: u8 = 5;
const SDT_HEADER_BYTES: u32 = 36;
/// There are 8259As too, to be masked when the APICs are used.
const PCAT_COMPAT: u32 = 1 << 0;

/// Broadcast ID and "all processors" UID of the 8-bit structures: neither names one processor.
const XAPIC_ALL: u32 = 0xff;
/// "All processors" UID of the x2APIC structures.
const X2APIC_ALL: u32 = 0xffff_ffff;
const LINT1: u8 = 1;
const ISA_BUS: u8 = 0;

/// Interrupt flags: as the bus has it (ISA: edge, active high).
const CONFORMING: u16 = 0;
/// Interrupt flags: level triggered, active high.
const LEVEL_ACTIVE_HIGH: u16 = 0b11 << 2 | 0b01;

/// Interrupt source override.
#[repr(C, packed)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct SourceOverride {
    kind: u8,
    length: u8,
    bus: u8,
    source: u8,
    gsi: U32,
    flags: U16,
}

aml_as_bytes!(SourceOverride);

impl SourceOverride {
    fn isa(irq: u8, gsi: u8, flags: u16) -> Self {
        Self { kind: 2, length: 10, bus: ISA_BUS, source: irq, gsi: u32::from(gsi).into(), flags: flags.into() }
    }
}

/// Local APIC NMI.
#[repr(C, packed)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct LocalApicNmi {
    kind: u8,
    length: u8,
    processor_uid: u8,
    flags: U16,
    lint: u8,
}

aml_as_bytes!(LocalApicNmi);

/// Processor local x2APIC.
#[repr(C, packed)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    x2apic_id: U32,
    flags: U32,
    processor_uid: U32,
}

aml_as_bytes!(LocalX2Apic);

/// Local x2APIC NMI.
#[repr(C, packed)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct LocalX2ApicNmi {
    kind: u8,
    length: u8,
    flags: U16,
    processor_uid: U32,
    lint: u8,
    reserved: [u8; 3],
}

aml_as_bytes!(LocalX2ApicNmi);

/// Builds the table.
pub fn build(config: &AcpiConfig) -> Sdt {
    let mut body = Vec::new();
    body.dword(platform::LAPIC_BASE as u32);
    body.dword(PCAT_COMPAT);

    let mut any_xapic = false;
    let mut any_x2apic = false;
    for (uid, &apic_id) in config.apic_ids.iter().enumerate() {
        let uid = uid as u32;
        if apic_id < XAPIC_ALL && uid < XAPIC_ALL {
            any_xapic = true;
            ProcessorLocalApic::new(uid as u8, apic_id as u8, EnabledStatus::Enabled).to_aml_bytes(&mut body);
        } else {
            any_x2apic = true;
            let flags = (EnabledStatus::Enabled as u32).into();
            let (x2apic_id, processor_uid) = (apic_id.into(), uid.into());
            LocalX2Apic { kind: 9, length: 16, reserved: 0.into(), x2apic_id, flags, processor_uid }
                .to_aml_bytes(&mut body);
        }
    }
    IoApic::new(config.ioapic_id, platform::IOAPIC_BASE as u32, 0).to_aml_bytes(&mut body);

    if let Some(gsi) = platform::isa_irq_to_gsi(platform::IRQ_PIT) {
        SourceOverride::isa(platform::IRQ_PIT, gsi, CONFORMING).to_aml_bytes(&mut body);
    }
    if let Some(gsi) = platform::isa_irq_to_gsi(platform::IRQ_SCI) {
        SourceOverride::isa(platform::IRQ_SCI, gsi, LEVEL_ACTIVE_HIGH).to_aml_bytes(&mut body);
    }
    let flags = CONFORMING.into();
    if any_xapic {
        LocalApicNmi { kind: 4, length: 6, processor_uid: XAPIC_ALL as u8, flags, lint: LINT1 }.to_aml_bytes(&mut body);
    }
    if any_x2apic {
        let processor_uid = X2APIC_ALL.into();
        LocalX2ApicNmi { kind: 10, length: 12, flags, processor_uid, lint: LINT1, reserved: [0; 3] }
            .to_aml_bytes(&mut body);
    }
    let mut table = Sdt::new(*b"APIC", SDT_HEADER_BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    table
}
