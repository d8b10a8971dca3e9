//! Debug exit port: a guest's way to end the program with a value (as the isa-debug-exit device of test benches).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;

use crate::traits::{BusDevice, MachineControl, MachineEvent};

/// The port; any write of any size ends the machine with the low byte.
pub struct DebugExit {
    control: Arc<dyn MachineControl>,
}

impl DebugExit {
    /// A port that reports to `control`.
    pub fn new(control: Arc<dyn MachineControl>) -> Self {
        Self { control }
    }
}

impl BusDevice for DebugExit {
    /// Reads as zero, which tells a guest that the port is there.
    fn read(&mut self, _now: Nanos, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _now: Nanos, _offset: u64, data: &[u8]) {
        if let Some(&value) = data.first() {
            self.control.request(MachineEvent::DebugExit(value));
        }
    }
}
