//! The few ACPI tables that say what the machine has: CPUs (MADT), timers (FADT, HPET).
//!
//! Read once at the start. A table whose length or checksum is wrong is as good as missing; without tables there is one CPU, and there
//! are the devices that every PC has.
//!
//! To read more: ACPI specification, "Root System Description Pointer (RSDP)", "Multiple APIC Description Table (MADT)".

use alloc::vec::Vec;

use crate::boot::info::physical;

/// What the tables say.
#[derive(Debug, Default, Clone)]
pub struct Tables {
    /// APIC IDs of the CPUs that can be used.
    pub cpus: Vec<u32>,
    /// Port of the PM timer, 0 for none.
    pub pm_timer: u16,
    /// The PM timer has 32 bits, not 24.
    pub pm_timer_32: bool,
    /// Address of the HPET, 0 for none.
    pub hpet: u64,
    /// GSI of each ISA interrupt that is not wired to the pin of its number: (ISA, GSI, flags).
    pub overrides: Vec<(u8, u32, u16)>,
}

/// Bytes of a table's header.
const HEADER: u64 = 36;
/// The longest table that is read.
const LONGEST: u32 = 1 << 20;

/// Reads the tables, from the root pointer at `rsdp`; where that is 0, from where firmware leaves it.
pub(crate) fn read(rsdp: u64) -> Tables {
    let mut tables = Tables::default();
    let rsdp = if rsdp == 0 { find_root_pointer() } else { rsdp };
    if rsdp == 0 || physical::<u64>(rsdp) != u64::from_le_bytes(*b"RSD PTR ") {
        return tables;
    }
    let extended = if physical::<u8>(rsdp + 15) >= 2 { physical::<u64>(rsdp + 24) } else { 0 };
    let (root, size) = match extended {
        0 => (physical::<u32>(rsdp + 16).into(), 4),
        address => (address, 8),
    };
    let Some(length) = checked_length(root) else { return tables };
    for at in (HEADER..length).step_by(size) {
        let table = if size == 8 { physical::<u64>(root + at) } else { physical::<u32>(root + at).into() };
        if let Some(length) = checked_length(table) {
            match &physical::<[u8; 4]>(table) {
                b"APIC" => read_madt(table, length, &mut tables),
                b"FACP" => read_fadt(table, length, &mut tables),
                b"HPET" => tables.hpet = physical(table + 44),
                _ => {}
            }
        }
    }
    tables
}

/// On machines with a BIOS the root pointer lies at a 16-byte boundary below 1 MiB.
fn find_root_pointer() -> u64 {
    let signature = u64::from_le_bytes(*b"RSD PTR ");
    (0xe_0000..0x10_0000).step_by(16).find(|&at| physical::<u64>(at) == signature).unwrap_or(0)
}

/// The length of a table whose checksum is right.
fn checked_length(table: u64) -> Option<u64> {
    let length: u32 = physical(table + 4);
    if table == 0 || u64::from(length) < HEADER || length > LONGEST {
        return None;
    }
    let sum = (0..u64::from(length)).fold(0u8, |sum, at| sum.wrapping_add(physical(table + at)));
    (sum == 0).then_some(length.into())
}

fn read_madt(table: u64, length: u64, tables: &mut Tables) {
    let mut at = HEADER + 8;
    while at + 2 <= length {
        let (kind, size): (u8, u8) = (physical(table + at), physical(table + at + 1));
        if size < 2 || at + u64::from(size) > length {
            break;
        }
        let entry = table + at;
        match kind {
            // Local APIC: enabled in bit 0 of the flags.
            0 if physical::<u32>(entry + 4) & 1 != 0 => tables.cpus.push(physical::<u8>(entry + 3).into()),
            // Local x2APIC.
            9 if physical::<u32>(entry + 8) & 1 != 0 => tables.cpus.push(physical(entry + 4)),
            // Interrupt source override.
            2 => tables.overrides.push((physical(entry + 3), physical(entry + 4), physical(entry + 8))),
            _ => {}
        }
        at += u64::from(size);
    }
}

fn read_fadt(table: u64, length: u64, tables: &mut Tables) {
    if length >= 116 {
        tables.pm_timer = physical::<u32>(table + 76) as u16;
        tables.pm_timer_32 = physical::<u32>(table + 112) & 1 << 8 != 0;
    }
}
