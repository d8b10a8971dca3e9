//! The fixed ACPI description table (ACPI specification 6.5, section "Fixed ACPI Description Table (FADT)").
//!
//! The machine is always in ACPI mode: there is no SMI command port, so PM1a control reads with `SCI_EN` set. The PM
//! timer has 24 bits. The power button is a fixed feature; there is no sleep button and no RTC wake event.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use x86::platform;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

const PM1_EVENT_BYTES: u8 = 4;
const PM1_CONTROL_BYTES: u8 = 2;
const PM_TIMER_BYTES: u8 = 4;

/// What the guest writes to the reset control register: system reset and reset CPU (a hard reset).
const RESET_VALUE: u8 = 0x06;
/// Latencies beyond these bounds say that C2 and C3 do not exist.
const NO_C2_LATENCY: u16 = 101;
const NO_C3_LATENCY: u16 = 1001;

/// CMOS address of the RTC's century byte.
const RTC_CENTURY: u8 = 0x32;
/// IAPC_BOOT_ARCH: there are legacy devices (the serial port).
const LEGACY_DEVICES: u16 = 1 << 0;
/// IAPC_BOOT_ARCH: no VGA hardware to probe for.
const VGA_NOT_PRESENT: u16 = 1 << 2;
// Bits 1 (8042) and 5 (no CMOS RTC) stay clear: there is no keyboard controller, and there is an RTC.

/// Builds the table. Addresses are guest addresses below 4 GiB.
pub fn build(facs: u32, dsdt: u32) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Unspecified)
        // Only one of the two FACS fields may be set; of the DSDT's both may.
        .firmware_ctrl_32(facs)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.sci_int = u16::from(platform::IRQ_SCI).into();
    fadt.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT).into();
    fadt.century = RTC_CENTURY;
    fadt.p_lvl2_lat = NO_C2_LATENCY.into();
    fadt.p_lvl3_lat = NO_C3_LATENCY.into();

    fadt.pm1a_evt_blk = u32::from(platform::PM1A_EVENT).into();
    fadt.pm1_evt_len = PM1_EVENT_BYTES;
    fadt.x_pm1a_evt_blk = io_register(platform::PM1A_EVENT, PM1_EVENT_BYTES, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(platform::PM1A_CONTROL).into();
    fadt.pm1_cnt_len = PM1_CONTROL_BYTES;
    fadt.x_pm1a_cnt_blk = io_register(platform::PM1A_CONTROL, PM1_CONTROL_BYTES, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(platform::PM_TIMER).into();
    fadt.pm_tmr_len = PM_TIMER_BYTES;
    fadt.x_pm_tmr_blk = io_register(platform::PM_TIMER, PM_TIMER_BYTES, AccessSize::DwordAccess);

    fadt.reset_reg = io_register(platform::RESET_CONTROL, 1, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE_ID).into();
    fadt.finalize()
}

fn io_register(port: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, u64::from(port))
}
