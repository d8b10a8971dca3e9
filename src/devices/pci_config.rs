//! PCI configuration ports (PCI Local Bus Specification 3.0, section "Software Generation of Configuration Transactions"), and
//! the reset control register between them (Intel PIIX3 and ICH datasheets, section "Reset Control Register").
//!
//! Accesses to the address register other than of four bytes go to the ISA bus, where only port 0xcf9 answers.
//!
//! Lock order: the ports' lock before that of the function which they lead to.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;

use crate::pci::{PciBus, Place};
use crate::traits::{BusDevice, MachineControl, MachineEvent};

/// Enable, bus, device, function, register; the rest is reserved and reads as zero.
const ADDRESS_BITS: u32 = 0x80ff_fffc;
const ADDRESS_ENABLE: u32 = 1 << 31;
/// Offset of the reset control register.
const RESET: u64 = 1;
const RESET_CPU: u8 = 1 << 2;
/// System reset, CPU reset, full reset.
const RESET_BITS: u8 = 0x0e;
/// Offset of the data ports.
const DATA: u64 = 4;
const DATA_PORTS: u64 = 4;

/// Ports 0xcf8 to 0xcff.
pub struct PciConfig {
    bus: Arc<PciBus>,
    address: u32,
    reset: u8,
    control: Arc<dyn MachineControl>,
}

impl PciConfig {
    /// The ports after reset, in front of `bus`.
    pub fn new(bus: Arc<PciBus>, control: Arc<dyn MachineControl>) -> Self {
        Self { bus, address: 0, reset: 0, control }
    }

    /// The place and the register that an access of `len` data ports from `offset` on is for.
    fn target(&self, offset: u64, len: usize) -> Option<(Place, usize)> {
        let port = offset.checked_sub(DATA)?;
        let inside = port.checked_add(len as u64).is_some_and(|end| end <= DATA_PORTS);
        let enabled = self.address & ADDRESS_ENABLE != 0;
        let register = (self.address & 0xfc) as usize;
        (inside && enabled).then(|| (Place::from_bits((self.address >> 8) as u16), register + port as usize))
    }
}

impl BusDevice for PciConfig {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        if let Some((place, register)) = self.target(offset, data.len()) {
            return self.bus.read_config(place, register, data);
        }
        match (offset, data) {
            (0, data) if data.len() == 4 => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET, [value]) => *value = self.reset,
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        if let Some((place, register)) = self.target(offset, data.len()) {
            return self.bus.write_config(place, register, data);
        }
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
