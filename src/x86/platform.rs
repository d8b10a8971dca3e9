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
/// Base of the HPET's registers.
pub const HPET_BASE: u64 = 0xfed0_0000;
/// Interrupt messages are writes to this megabyte.
pub const MSI_BASE: u64 = 0xfee0_0000;

/// Start of the hole below 4 GiB that holds devices; memory beyond goes above 4 GiB.
pub const MMIO_HOLE_START: u64 = 0xd000_0000;
/// End of the hole (exclusive).
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;

/// Where PCI functions' memory is: the part of the hole that the host bridge passes on.
pub const PCI_WINDOW: u64 = 0xd000_0000;
/// Its size.
pub const PCI_WINDOW_SIZE: u64 = 0x1000_0000;
/// PCI configuration space as memory (ECAM), of bus 0, the only one.
pub const PCI_ECAM: u64 = 0xe000_0000;
/// Its size.
pub const PCI_ECAM_SIZE: u64 = 0x10_0000;
/// The first of the windows of virtio devices that are not on the PCI bus.
pub const VIRTIO_MMIO: u64 = 0xe800_0000;
/// From one of these windows to the next.
pub const VIRTIO_MMIO_STEP: u64 = 0x1000;

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
/// System control port A: fast reset and the alternate A20 gate.
pub const PORT_92: u16 = 0x92;
/// POST code port, written by Linux as an I/O delay.
pub const POST: u16 = 0x80;
/// First serial port.
pub const COM1: u16 = 0x3f8;
/// Debug exit: writing v ends the program with exit code (v << 1) | 1.
pub const DEBUG_EXIT: u16 = 0xf4;
/// pvpanic: the guest reports its panic.
pub const PVPANIC: u16 = 0x505;
/// Scratch ports of `--testdev`, for accesses of 1, 2 and 4 bytes (4 ports).
pub const TEST_SCRATCH: u16 = 0xe0;
/// Page flush port of `--testdev`: a dword written names the page (4 ports).
pub const TEST_FLUSH: u16 = 0xe4;
/// Byte-wise scratch ports of `--testdev` (4 ports).
pub const TEST_SCRATCH_BYTES: u16 = 0xe8;
/// Interrupt lines of `--testdev`: a port for each, the byte written is the level (24 ports).
pub const TEST_IRQ_LINES: u16 = 0x2000;
/// Scratch memory of `--testdev`, 64 KiB.
pub const TEST_MEMORY: u64 = 0xff00_0000;
/// `fw_cfg` of `--testdev`: selector and data (2 ports).
pub const FW_CFG: u16 = 0x510;
/// Command port of `--exec`: output and status of a command in the guest; memory, so that a program can map it.
pub const COMMAND_PORT: u64 = 0xfed1_0000;
/// The page in which nothing but the command port is.
pub const COMMAND_PAGE: u64 = 0x1000;
/// How many bytes it has.
pub const COMMAND_BYTES: u64 = 0x202;
/// How many bytes each stream has: what is written to any of them is the stream's next byte.
pub const COMMAND_WINDOW: u64 = 0x100;
/// Offset of the standard output's bytes.
pub const COMMAND_STDOUT: u64 = 0;
/// Offset of the standard error's bytes.
pub const COMMAND_STDERR: u64 = 0x100;
/// Offset: a write (8 bits) is the command's status, and ends the machine. A read says for how many windows of bytes there
/// is room in the standard output, up to 255; the byte behind it says so of the standard error.
pub const COMMAND_STATUS: u64 = 0x200;
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

/// Where a guest may mark the entry of a handler, by writing its vector, while it is traced (then a read gives
/// [`TRACE_MARK_ON`]).
pub const TRACE_MARK: u16 = 0xf8;
/// What a read of [`TRACE_MARK`] gives while the machine is traced.
pub const TRACE_MARK_ON: u8 = 0x54;

/// SLP_TYP value of the S5 (soft off) state.
pub const SLP_TYP_S5: u8 = 5;

/// ISA IRQ of PIT channel 0.
pub const IRQ_PIT: u8 = 0;
/// ISA IRQ of the first serial port.
pub const IRQ_COM1: u8 = 4;
/// ISA IRQ of the RTC.
pub const IRQ_RTC: u8 = 8;
/// ISA IRQ of the watchdog's first stage (Intel 6300ESB datasheet: APIC 1, INT 10; level).
pub const IRQ_WATCHDOG: u8 = 10;
/// ISA IRQ of the ACPI system control interrupt (level, active high as wired here).
pub const IRQ_SCI: u8 = 9;

/// The first of the four GSIs that the HPET's timers can be routed to; no other device is wired there.
pub const GSI_HPET: u8 = 20;

/// The first of the four GSIs that PCI interrupt pins are wired to: INTA# to INTD# of device 0, and turned by one for each
/// further device. Windows of virtio devices have them, too.
pub const GSI_PCI: u8 = 16;
/// How many there are.
pub const GSI_PCI_COUNT: u8 = 4;

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

/// The GSI of interrupt pin `pin` (0 is INTA#) of PCI device `device`.
pub const fn pci_gsi(device: u8, pin: u8) -> u8 {
    GSI_PCI + device.wrapping_add(pin) % GSI_PCI_COUNT
}
