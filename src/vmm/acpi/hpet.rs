//! The HPET description table (IA-PC HPET specification 1.0a, section "The ACPI 2.0 HPET Description Table (HPET)").

use acpi_tables::sdt::Sdt;
use devices::hpet::BLOCK_ID;
use x86::platform;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

const REVISION: u8 = 1;
const BYTES: u32 = 56;
/// Generic address structure: memory, 64 bits wide from bit 0 on.
const ADDRESS_FORMAT: [u8; 4] = [0, 64, 0, 0];
/// The only block.
const NUMBER: u8 = 0;
/// The least count of a periodic timer that loses no interrupt: 20 us, below which the device puts its alarm off.
const MIN_TICKS: u16 = 2_000;
/// Nothing is said of what else is in the block's page.
const PAGE_PROTECTION: u8 = 0;

/// Builds the table.
pub fn build() -> Sdt {
    let mut table = Sdt::new(*b"HPET", BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.write_u32(36, BLOCK_ID);
    table.write_bytes(40, &ADDRESS_FORMAT);
    table.write_u64(44, platform::HPET_BASE);
    table.write_u8(52, NUMBER);
    table.write_u16(53, MIN_TICKS);
    table.write_u8(55, PAGE_PROTECTION);
    table
}
