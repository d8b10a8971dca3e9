//! pvpanic: how a guest says that it has panicked (QEMU's specification docs/specs/pvpanic.rst, the ISA device; Linux
//! finds it as the ACPI device QEMU0001).
//!
//! A read gives the events that are understood, a write reports some. A panic ends the machine; one that the guest's
//! own crash kernel takes care of must not, and is noted; a shutdown is a power-off.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;

use crate::ports::{read_bytes, write_bytes};
use crate::traits::{BusDevice, MachineControl, MachineEvent};

/// The guest has panicked; it is for the host to act on.
const PANICKED: u8 = 1 << 0;
/// The guest has panicked and goes on in its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;
/// The guest has shut down.
const SHUTDOWN: u8 = 1 << 2;

/// The port.
pub struct PvPanic {
    control: Arc<dyn MachineControl>,
}

impl PvPanic {
    /// A port that reports to `control`.
    pub fn new(control: Arc<dyn MachineControl>) -> Self {
        Self { control }
    }

    fn report(&self, events: u8) {
        // Of several the worst: only one can end the machine.
        let event = match events {
            e if e & PANICKED != 0 => MachineEvent::Panicked,
            e if e & CRASH_LOADED != 0 => MachineEvent::CrashLoaded,
            e if e & SHUTDOWN != 0 => MachineEvent::PowerOff,
            _ => return,
        };
        self.control.request(event);
    }
}

impl BusDevice for PvPanic {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, 1, |_| PANICKED | CRASH_LOADED | SHUTDOWN);
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        write_bytes(offset, data, 1, |_, events| self.report(events));
    }
}
