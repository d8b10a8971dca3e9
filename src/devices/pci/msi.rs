//! MSI, the older kind: one address and data for all vectors of a function, with a mask and a pending bit each, all of it in
//! configuration space (PCI Local Bus Specification 3.0, section "MSI Capability Structure").
//!
//! With 64-bit addresses and per-vector masking, which are optional there.

use irqchip::line::Msi as Messages;

use super::config::ConfigSpace;

/// Capability ID.
const CAPABILITY: u8 = 0x05;
/// The most vectors, as a power of two.
pub const MAX_LOG2: u8 = 5;

/// Message control.
const ENABLE: u16 = 1 << 0;
const CAPABLE_SHIFT: u32 = 1;
const ENABLED_SHIFT: u32 = 4;
const COUNT_MASK: u16 = 7;
const ADDRESS_64: u16 = 1 << 7;
const VECTOR_MASKING: u16 = 1 << 8;

/// Offsets from the capability's start.
const CONTROL: usize = 0x02;
const ADDRESS: usize = 0x04;
const ADDRESS_HIGH: usize = 0x08;
const DATA: usize = 0x0c;
const MASK: usize = 0x10;
const PENDING: usize = 0x14;
const BYTES: usize = 0x18;

/// One function's vectors. Its registers are those of configuration space.
pub struct Msi {
    messages: Messages,
    /// Where the capability is.
    at: usize,
    log2: u8,
    pending: u32,
}

impl Msi {
    /// Adds the capability to `config`, with `1 << log2` vectors, disabled.
    ///
    /// # Panics
    ///
    /// For more than `1 << MAX_LOG2`, and when there is no room: a bug.
    pub fn add(config: &mut ConfigSpace, messages: Messages, log2: u8) -> Self {
        assert!(log2 <= MAX_LOG2, "{log2} is too much");
        let (mut body, mut writable) = ([0; BYTES], [0; BYTES]);
        let mut put = |at: usize, value: u32, mask: u32| {
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
            writable[at..at + 4].copy_from_slice(&mask.to_le_bytes());
        };
        let control = u16::from(log2) << CAPABLE_SHIFT | ADDRESS_64 | VECTOR_MASKING;
        put(0, u32::from(control) << 16, u32::from(ENABLE | COUNT_MASK << ENABLED_SHIFT) << 16);
        put(ADDRESS, 0, !3);
        put(ADDRESS_HIGH, 0, u32::MAX);
        put(DATA, 0, 0xffff);
        put(MASK, 0, Self::all(log2));
        let at = config.add_capability(CAPABILITY, &body[CONTROL..], &writable[CONTROL..]);
        Self { messages, at, log2, pending: 0 }
    }

    /// Bits of the vectors that there are.
    fn all(log2: u8) -> u32 {
        u32::MAX >> (32 - (1 << log2))
    }

    /// Whether software has enabled it; if not, the function has INTx, or MSI-X.
    pub fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.u16_at(self.at + CONTROL) & ENABLE != 0
    }

    /// Configuration space was written: what is pending and not masked any more is sent.
    pub fn written(&mut self, config: &mut ConfigSpace) {
        self.send_pending(config);
    }

    /// Sends `vector`'s message, or sets its pending bit while it is masked. Nothing when disabled. Where software has enabled
    /// fewer, the last of those stands for the rest.
    pub fn raise(&mut self, config: &mut ConfigSpace, vector: u16) {
        if self.is_enabled(config) {
            self.pending |= 1 << vector.min(self.enabled_count(config) - 1);
            self.send_pending(config);
        }
    }

    /// The message of a vector that is not masked is an NMI or an INIT.
    pub fn can_give_nmi(&self, config: &ConfigSpace) -> bool {
        let enabled = Self::all(self.log2.min(self.enabled_count(config).trailing_zeros() as u8));
        let masked = config.u32_at(self.at + MASK);
        let (address, data) = self.message(config);
        self.is_enabled(config) && enabled & !masked != 0 && Messages::gets_through(address, data)
    }

    /// Address and data, which all vectors share but for the data's lowest bits.
    fn message(&self, config: &ConfigSpace) -> (u64, u32) {
        let address = u64::from(config.u32_at(self.at + ADDRESS_HIGH)) << 32;
        (address | u64::from(config.u32_at(self.at + ADDRESS)), config.u16_at(self.at + DATA).into())
    }

    /// How many vectors software has enabled; reserved values mean all.
    fn enabled_count(&self, config: &ConfigSpace) -> u16 {
        let log2 = config.u16_at(self.at + CONTROL) >> ENABLED_SHIFT & COUNT_MASK;
        1 << log2.min(self.log2.into())
    }

    fn send_pending(&mut self, config: &mut ConfigSpace) {
        if self.pending != 0 && self.is_enabled(config) {
            let ((address, data), mask) = (self.message(config), config.u32_at(self.at + MASK));
            let count = u32::from(self.enabled_count(config));
            for vector in (0..u32::BITS).filter(|vector| self.pending & !mask & 1 << vector != 0) {
                // "The low order bits of the message data" are the vector's number.
                self.messages.send(address, data & !(count - 1) | vector & (count - 1));
            }
            self.pending &= mask;
        }
        config.show(self.at + PENDING, &self.pending.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
