//! 8042 keyboard controller without a keyboard (IBM PS/2 Hardware Interface Technical Reference, section "Keyboard and
//! Auxiliary Device Controller").
//!
//! What probes and reset code ask for: self test, command byte and RAM, output port, pulse commands. Commands are
//! carried out at once, so the input buffer is never full.
//!
//! Not modelled: keyboard and auxiliary device (bytes to them vanish, the commands of an auxiliary port get no
//! answer), interrupts, password security. A20 stays enabled.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;

use crate::ports::{read_bytes, write_bytes};
use crate::traits::{BusDevice, MachineControl, MachineEvent};

/// Offset of the command and status port (0x64) from the data port (0x60).
pub const COMMAND_OFFSET: u64 = 4;

const DATA: u8 = 0;
const COMMAND: u8 = COMMAND_OFFSET as u8;
const PORTS: u8 = 5;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_NOT_LOCKED: u8 = 1 << 4;

/// Command byte bits; the system flag also shows in the status.
const SYSTEM_FLAG: u8 = 1 << 2;
const DISABLE_KEYBOARD: u8 = 1 << 4;
const TRANSLATE: u8 = 1 << 6;

/// Output port bits.
const NOT_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// What the next byte written to the data port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Keyboard,
    Ram(u8),
    OutputPort,
    OutputBuffer,
    Nothing,
}

/// The controller. Its bus offsets are 0 (data, port 0x60) and [`COMMAND_OFFSET`] (port 0x64); with [`crate::Window`]
/// each can be put on the bus by itself.
pub struct I8042 {
    control: Arc<dyn MachineControl>,
    /// Byte 0 is the command byte.
    ram: [u8; 32],
    output: Option<u8>,
    /// What the data port reads when there is no output: the last byte that was.
    last: u8,
    output_port: u8,
    expects: Expects,
    last_was_command: bool,
}

impl I8042 {
    /// A controller after reset, that reports resets to `control`.
    pub fn new(control: Arc<dyn MachineControl>) -> Self {
        let mut ram = [0; 32];
        ram[0] = TRANSLATE | DISABLE_KEYBOARD;
        Self {
            control,
            ram,
            output: None,
            last: 0,
            output_port: NOT_RESET | A20,
            expects: Expects::Keyboard,
            last_was_command: false,
        }
    }

    fn read_port(&mut self, port: u8) -> u8 {
        match port {
            DATA => {
                self.last = self.output.take().unwrap_or(self.last);
                self.last
            }
            COMMAND => {
                let full = if self.output.is_some() { STATUS_OUTPUT_FULL } else { 0 };
                let system = if self.ram[0] & SYSTEM_FLAG != 0 { STATUS_SYSTEM } else { 0 };
                let command = if self.last_was_command { STATUS_COMMAND } else { 0 };
                full | system | command | STATUS_NOT_LOCKED
            }
            _ => 0xff,
        }
    }

    fn write_port(&mut self, port: u8, value: u8) {
        match port {
            DATA => {
                self.last_was_command = false;
                self.data(value);
            }
            COMMAND => {
                self.last_was_command = true;
                self.command(value);
            }
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match std::mem::replace(&mut self.expects, Expects::Keyboard) {
            Expects::Ram(at) => self.ram[usize::from(at & 0x1f)] = value,
            Expects::OutputPort => self.set_output_port(value),
            Expects::OutputBuffer => self.output = Some(value),
            // A byte to the keyboard enables its interface.
            Expects::Keyboard => self.ram[0] &= !DISABLE_KEYBOARD,
            Expects::Nothing => {}
        }
    }

    fn command(&mut self, command: u8) {
        self.expects = Expects::Keyboard;
        match command {
            0x20..=0x3f => self.output = Some(self.ram[usize::from(command & 0x1f)]),
            0x60..=0x7f => self.expects = Expects::Ram(command & 0x1f),
            // Self test passed.
            0xaa => {
                self.ram[0] = (self.ram[0] | SYSTEM_FLAG) | DISABLE_KEYBOARD;
                self.output = Some(0x55);
            }
            // Keyboard interface test: no error on its lines.
            0xab => self.output = Some(0x00),
            0xad => self.ram[0] |= DISABLE_KEYBOARD,
            0xae => self.ram[0] &= !DISABLE_KEYBOARD,
            // Input port: keyboard not locked.
            0xc0 => self.output = Some(0x80),
            0xd0 => self.output = Some(self.output_port),
            0xd1 => self.expects = Expects::OutputPort,
            0xd2 => self.expects = Expects::OutputBuffer,
            // For an auxiliary device that isn't there.
            0xd3 | 0xd4 => self.expects = Expects::Nothing,
            // Pulses low the output port bits that are zero here.
            0xf0..=0xff if command & NOT_RESET == 0 => self.control.request(MachineEvent::Reset),
            _ => {}
        }
    }

    fn set_output_port(&mut self, value: u8) {
        self.output_port = value | NOT_RESET | A20;
        if value & NOT_RESET == 0 {
            self.control.request(MachineEvent::Reset);
        }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, PORTS, |port| self.read_port(port));
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        write_bytes(offset, data, PORTS, |port, value| self.write_port(port, value));
    }
}
