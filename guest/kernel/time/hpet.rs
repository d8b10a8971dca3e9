//! The high-precision event timer: one counter whose frequency it says itself, and comparators with interrupts.
//!
//! To read more: IA-PC HPET specification, "Register Definitions".

use crate::machine;

/// General capabilities: period of a tick in femtoseconds in the high half, number of timers, legacy routing.
pub const CAPABILITIES: u64 = 0x000;
/// General configuration: bit 0 runs the counter, bit 1 routes timers 0 and 1 to the PIT's and RTC's lines.
pub const CONFIGURATION: u64 = 0x010;
/// General interrupt status.
pub const STATUS: u64 = 0x020;
/// Main counter.
pub const COUNTER: u64 = 0x0f0;

/// Configuration and capabilities of timer `n`.
pub const fn timer_configuration(n: u64) -> u64 {
    0x100 + 0x20 * n
}

/// Comparator of timer `n`.
pub const fn timer_comparator(n: u64) -> u64 {
    0x108 + 0x20 * n
}

/// There is one.
pub fn is_present() -> bool {
    machine::tables().hpet != 0
}

/// Reads a register; 0 without a HPET.
pub fn read(register: u64) -> u64 {
    match machine::tables().hpet {
        0 => 0,
        // SAFETY: the tables say that the registers are there; they are mapped one to one, uncached.
        base => unsafe { core::ptr::read_volatile((base + register) as *const u64) },
    }
}

/// Writes a register.
pub fn write(register: u64, value: u64) {
    let base = machine::tables().hpet;
    if base != 0 {
        // SAFETY: as above; what changes is which interrupts come.
        unsafe { core::ptr::write_volatile((base + register) as *mut u64, value) };
    }
}

/// Femtoseconds of a tick.
pub fn period_fs() -> u64 {
    read(CAPABILITIES) >> 32
}

/// Lets the counter run.
pub fn run() {
    write(CONFIGURATION, read(CONFIGURATION) | 1);
}

/// Whether timers 0 and 1 can take the lines of the PIT and the RTC.
pub fn can_replace_legacy() -> bool {
    read(CAPABILITIES) & 1 << 15 != 0
}

/// Timers 0 and 1 have the lines of the PIT and the RTC, which are cut off from them, or give them back ("LegacyReplacement Route").
pub fn replace_legacy(replace: bool) {
    write(CONFIGURATION, read(CONFIGURATION) & !2 | u64::from(replace) << 1);
}

/// The counter.
pub fn count() -> u64 {
    read(COUNTER)
}
