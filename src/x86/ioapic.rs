//! I/O APIC registers (Intel 82093AA datasheet, section "Register Description").

use crate::apic::{DeliveryMode, TriggerMode};

/// IOREGSEL, byte offset in the MMIO window.
pub const IOREGSEL: u64 = 0x00;
/// IOWIN, byte offset in the MMIO window.
pub const IOWIN: u64 = 0x10;
/// EOI register (version 0x20 and up), byte offset in the MMIO window.
pub const EOI: u64 = 0x40;
/// Size of the MMIO window in bytes.
pub const WINDOW: u64 = 0x1000;

/// Register index: identification.
pub const REG_ID: u8 = 0x00;
/// Register index: version and number of entries.
pub const REG_VERSION: u8 = 0x01;
/// Register index: arbitration ID (read only).
pub const REG_ARB: u8 = 0x02;
/// Register index of the low half of entry 0; entry n is at `REG_TABLE + 2n` and `+ 2n + 1`.
pub const REG_TABLE: u8 = 0x10;

/// The version we show: 0x20 has the EOI register.
pub const VERSION: u8 = 0x20;
/// Number of input pins.
pub const PINS: usize = 24;

/// One redirection table entry (section "I/O Redirection Table Registers").
#[bitfield_struct::bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RedirectionEntry {
    /// Interrupt vector.
    pub vector: u8,
    /// Delivery mode, raw (see [`RedirectionEntry::mode`]).
    #[bits(3)]
    pub delivery_mode: u8,
    /// Destination mode: logical when set.
    pub logical: bool,
    /// Delivery status (read only): accepted from the pin, not yet sent.
    pub delivery_status: bool,
    /// Input polarity: low active when set.
    pub active_low: bool,
    /// Remote IRR (read only): a level interrupt was accepted and its EOI is still to come.
    pub remote_irr: bool,
    /// Trigger mode: level when set.
    pub level: bool,
    /// Masked when set.
    pub masked: bool,
    #[bits(32)]
    __: u32,
    /// Destination ID bits 14:8, in the paravirtual extension of the destination field (KVM_FEATURE_MSI_EXT_DEST_ID).
    #[bits(7)]
    pub ext_destination: u8,
    /// Destination: an APIC ID or a logical mask.
    pub destination: u8,
}

impl RedirectionEntry {
    /// The delivery mode, or `None` for the reserved encodings.
    pub fn mode(self) -> Option<DeliveryMode> {
        DeliveryMode::from_bits(self.delivery_mode())
    }

    /// The trigger mode as programmed.
    pub fn trigger(self) -> TriggerMode {
        if self.level() { TriggerMode::Level } else { TriggerMode::Edge }
    }
}
