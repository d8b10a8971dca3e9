//! PCI configuration ports of a machine without a PCI bus (PCI Local Bus Specification, section "Software Generation
//! of Configuration Transactions"), and the reset control register between them (Intel PIIX3 and ICH datasheets,
//! section "Reset Control Register").
//!
//! The address register is there, as a chipset's, and every function behind it is absent: data reads as all ones.
//! Accesses to the address register other than of four bytes go to the ISA bus, where only port 0xcf9 answers.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;

use crate::traits::{BusDevice, MachineControl, MachineEvent};

/// Enable, bus, device, function, register; the rest is reserved and reads as zero.
const ADDRESS_BITS: u32 = 0x80ff_fffc;
/// Offset of the reset control register.
const RESET: u64 = 1;
const RESET_CPU: u8 = 1 << 2;
/// System reset, CPU reset, full reset.
const RESET_BITS: u8 = 0x0e;

/// Ports 0xcf8 to 0xcff.
pub struct PciConfig {
    address: u32,
    reset: u8,
    control: Arc<dyn MachineControl>,
}

impl PciConfig {
    /// The ports after reset.
    pub fn new(control: Arc<dyn MachineControl>) -> Self {
        Self { address: 0, reset: 0, control }
    }
}

impl BusDevice for PciConfig {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (0, data) if data.len() == 4 => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET, [value]) => *value = self.reset,
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[a, b, c, d]) => self.address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_BITS,
            (RESET, &[value]) => {
                let rises = value & RESET_CPU & !self.reset != 0;
                self.reset = value & RESET_BITS;
                if rises {
                    self.control.request(MachineEvent::Reset);
                }
            }
            _ => {}
        }
    }
}
