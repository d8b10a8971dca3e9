//! System control port A, 0x92: fast reset and the alternate A20 gate (IBM PS/2 Hardware Interface Technical Reference,
//! section "System Control Port A"; Intel ICH datasheets, section "Fast A20 and Init Register").
//!
//! A rise of bit 0 pulses INIT, which resets the machine: there is no firmware to go on in. Bit 1 is stored.
//!
//! Not modelled: the address line (A20 stays enabled), watchdog status, security lock, activity lights; their bits
//! read as zero.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;

use crate::ports::{read_bytes, write_bytes};
use crate::traits::{BusDevice, MachineControl, MachineEvent};

const INIT_NOW: u8 = 1 << 0;
const ALT_A20_GATE: u8 = 1 << 1;

/// The port.
pub struct Port92 {
    value: u8,
    control: Arc<dyn MachineControl>,
}

impl Port92 {
    /// The port as firmware leaves it, A20 enabled; reports resets to `control`.
    pub fn new(control: Arc<dyn MachineControl>) -> Self {
        Self { value: ALT_A20_GATE, control }
    }

    fn set(&mut self, value: u8) {
        let rises = value & INIT_NOW & !self.value != 0;
        self.value = value & (INIT_NOW | ALT_A20_GATE);
        if rises {
            self.control.request(MachineEvent::Reset);
        }
    }
}

impl BusDevice for Port92 {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, 1, |_| self.value);
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        write_bytes(offset, data, 1, |_, value| self.set(value));
    }
}
