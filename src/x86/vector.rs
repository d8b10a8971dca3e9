//! The vector layout (Intel SDM vol. 3A, section "Exception and Interrupt Vectors"; 32 and up by convention).

/// Divide error, the first exception vector.
pub const DIVIDE_ERROR: u8 = 0;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// Invalid opcode.
pub const INVALID_OPCODE: u8 = 6;
/// Device not available: an instruction that needs registers which are another task's.
pub const DEVICE_NOT_AVAILABLE: u8 = 7;
/// Double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// General protection.
pub const GENERAL_PROTECTION: u8 = 13;
/// Page fault.
pub const PAGE_FAULT: u8 = 14;
/// Machine check.
pub const MACHINE_CHECK: u8 = 18;
/// Vectors below this one are illegal in an APIC message (section "Valid Interrupt Vectors").
pub const FIRST_LEGAL: u8 = 16;
/// The first vector that is not an exception.
pub const FIRST_DEVICE: u8 = 0x20;
