//! The platform map: which port, address and GSI belongs to what, for the VMM and for guests that know this machine.
//!
//! Wiring of the interrupt inputs (as on every PC since the MP specification, section "Interrupt Mode
//! Initialization and Processing"): ISA IRQ n drives 8259A input n and I/O APIC pin n, except IRQ 0, which drives pin 2;
//! IRQ 2 is the cascade. The 8259A pair's output drives LINT0 of the bootstrap processor and I/O APIC pin 0 (ExtINT).

use crate::ioapic::PINS;

/// Base of the local APIC page after reset.
pub const LAPIC_BASE: u64 = 0xfee0_0000;
/// Size of the local APIC page.
pub const LAPIC_SIZE: u64 = 0x1000;
/// Base of the I/O APIC window.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// Interrupt messages are writes to this megabyte.
pub const MSI_BASE: u64 = 0xfee0_0000;

/// Start of the hole below 4 GiB that holds devices; memory beyond goes above 4 GiB.
pub const MMIO_HOLE_START: u64 = 0xd000_0000;
/// End of the hole (exclusive).
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;

/// Master 8259A, command and data.
pub const PIC_MASTER: u16 = 0x20;
/// Slave 8259A, command and data.
pub const PIC_SLAVE: u16 = 0xa0;
/// Edge/level control registers, master and slave.
pub const PIC_ELCR: u16 = 0x4d0;
/// 8254 PIT, four ports.
pub const PIT: u16 = 0x40;
/// System control port B: speaker gate, channel 2 output, refresh toggle.
pub const PORT_B: u16 = 0x61;
/// i8042 data port.
pub const I8042_DATA: u16 = 0x60;
/// i8042 command and status port.
pub const I8042_COMMAND: u16 = 0x64;
/// CMOS/RTC index and data.
pub const RTC: u16 = 0x70;
/// POST code port, written by Linux as an I/O delay.
pub const POST: u16 = 0x80;
/// First serial port.
pub const COM1: u16 = 0x3f8;
/// Debug exit: writing v ends the program with exit code (v << 1) | 1.
pub const DEBUG_EXIT: u16 = 0xf4;
/// ACPI PM1a event block (4 bytes).
pub const PM1A_EVENT: u16 = 0x600;
/// ACPI PM1a control block (2 bytes).
pub const PM1A_CONTROL: u16 = 0x604;
/// ACPI PM timer (4 bytes).
pub const PM_TIMER: u16 = 0x608;
/// PCI configuration address port.
pub const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
/// Reset control register, inside the PCI address dword (byte access only).
pub const RESET_CONTROL: u16 = 0xcf9;
/// PCI configuration data ports.
pub const PCI_CONFIG_DATA: u16 = 0xcfc;

/// SLP_TYP value of the S5 (soft off) state.
pub const SLP_TYP_S5: u8 = 5;

/// ISA IRQ of PIT channel 0.
pub const IRQ_PIT: u8 = 0;
/// ISA IRQ of the first serial port.
pub const IRQ_COM1: u8 = 4;
/// ISA IRQ of the RTC.
pub const IRQ_RTC: u8 = 8;
/// ISA IRQ of the ACPI system control interrupt (level, active high as wired here).
pub const IRQ_SCI: u8 = 9;

/// Number of GSIs: one per I/O APIC pin.
pub const GSIS: usize = PINS;

/// The 8254's and the PM timer's parent: 1.193182 MHz PIT input clock, in Hz.
pub const PIT_HZ: u64 = 1_193_182;
/// ACPI PM timer frequency in Hz (ACPI specification, section "Power Management Timer").
pub const PM_TIMER_HZ: u64 = 3_579_545;
/// Local APIC timer input clock in Hz, before the divide configuration: one tick a nanosecond.
pub const APIC_TIMER_HZ: u64 = 1_000_000_000;

/// The GSI (I/O APIC pin) that an ISA IRQ drives; `None` for the cascade and for numbers above 15.
pub const fn isa_irq_to_gsi(irq: u8) -> Option<u8> {
    match irq {
        0 => Some(2),
        2 => None,
        1 | 3..=15 => Some(irq),
        _ => None,
    }
}

/// The 8259A input (0-15) that a GSI drives besides its I/O APIC pin; `None` for pins without one.
pub const fn gsi_to_pic_input(gsi: u8) -> Option<u8> {
    match gsi {
        2 => Some(0),
        1 | 3..=15 => Some(gsi),
        _ => None,
    }
}
