//! The I/O APIC: 24 lines, each with an entry that says which vector, how triggered, and to which CPUs.
//!
//! A **level** line sends its message once and sets its remote IRR bit; the EOI of that vector clears it, and if the line is
//! still up the message is sent again. An **edge** is sent once; while the pin is masked it is lost. Entries are written in two
//! halves, so a pin is masked while its entry changes.
//!
//! To read more: Intel 82093AA datasheet, "Register Description".

use x86::ioapic::{EOI, IOREGSEL, IOWIN, REG_ID, REG_TABLE, REG_VERSION, RedirectionEntry};
use x86::platform::IOAPIC_BASE;

use crate::sync::IrqLock;

/// Select and window are two registers: one access at a time.
static REGISTERS: IrqLock<()> = IrqLock::new(());

fn select(register: u8) {
    // SAFETY: the window is mapped one to one, uncached.
    unsafe { core::ptr::write_volatile((IOAPIC_BASE + IOREGSEL) as *mut u32, register.into()) };
}

fn read_selected(register: u8) -> u32 {
    select(register);
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile((IOAPIC_BASE + IOWIN) as *const u32) }
}

fn write_selected(register: u8, value: u32) {
    select(register);
    // SAFETY: as above; what changes is which interrupts come.
    unsafe { core::ptr::write_volatile((IOAPIC_BASE + IOWIN) as *mut u32, value) };
}

/// Reads a register.
pub fn read(register: u8) -> u32 {
    let _one = REGISTERS.lock();
    read_selected(register)
}

/// Writes a register.
pub fn write(register: u8, value: u32) {
    let _one = REGISTERS.lock();
    write_selected(register, value);
}

/// Its identification register's ID.
pub fn id() -> u8 {
    (read(REG_ID) >> 24) as u8 & 15
}

/// Its version.
pub fn version() -> u8 {
    read(REG_VERSION) as u8
}

/// How many pins it has.
pub fn pins() -> u8 {
    (read(REG_VERSION) >> 16) as u8 + 1
}

/// The entry of a pin.
pub fn entry(pin: u8) -> RedirectionEntry {
    let _one = REGISTERS.lock();
    let low = read_selected(REG_TABLE + 2 * pin);
    let high = read_selected(REG_TABLE + 2 * pin + 1);
    RedirectionEntry::from_bits(u64::from(low) | u64::from(high) << 32)
}

/// Writes the entry of a pin, masked while it changes.
pub fn set_entry(pin: u8, entry: RedirectionEntry) {
    let _one = REGISTERS.lock();
    let bits = entry.into_bits();
    write_selected(REG_TABLE + 2 * pin, entry.with_masked(true).into_bits() as u32);
    write_selected(REG_TABLE + 2 * pin + 1, (bits >> 32) as u32);
    if !entry.masked() {
        write_selected(REG_TABLE + 2 * pin, bits as u32);
    }
}

/// Masks or unmasks a pin: only the low half is written.
pub fn set_masked(pin: u8, masked: bool) {
    let _one = REGISTERS.lock();
    let low = RedirectionEntry::from_bits(read_selected(REG_TABLE + 2 * pin).into());
    write_selected(REG_TABLE + 2 * pin, low.with_masked(masked).into_bits() as u32);
}

/// Changes the destination of a pin: only the high half is written.
pub fn set_destination(pin: u8, destination: u8) {
    write(REG_TABLE + 2 * pin + 1, u32::from(destination) << 24);
}

/// Writes the EOI register (version 0x20 and up): clears remote IRR of the pins with this vector.
pub fn directed_eoi(vector: u8) {
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile((IOAPIC_BASE + EOI) as *mut u32, vector.into()) };
}

/// Masks all pins; whoever wants one sets all of its entry. Nobody else is there yet.
pub fn mask_all() {
    let masked = RedirectionEntry::new().with_masked(true).into_bits() as u32;
    (0..pins()).for_each(|pin| write(REG_TABLE + 2 * pin, masked));
}
