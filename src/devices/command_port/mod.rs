//! The command port: where the init that `--exec` puts into a guest writes what its command says, and how it ended.
//!
//! Our own device, a page of memory; [`x86::platform`] has its place. Each stream has a window of bytes: a byte written anywhere in it
//! is the stream's next, in the order of addresses where an access writes several. What is written without room is lost. A write to
//! the status byte ends the machine with that status; reading it, and the byte behind it, gives the room in the streams, in windows.
//!
//! Not modelled: input, interrupts when there is room again (the guest's init looks a millisecond later).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use x86::Nanos;
use x86::platform::{COMMAND_BYTES, COMMAND_STATUS, COMMAND_STDERR, COMMAND_STDOUT, COMMAND_WINDOW};

use crate::traits::{BusDevice, MachineControl, MachineEvent};

/// Reads as the room in the standard error.
const BEHIND_STATUS: u64 = COMMAND_STATUS + 1;

/// An output stream of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandStream {
    /// Its standard output.
    Out,
    /// Its standard error.
    Err,
}

/// Takes what the command says.
///
/// Called with the device's lock held, on a vCPU's thread: must neither block nor take the lock of a device.
pub trait CommandSink: Send + Sync {
    /// How many bytes it would take now.
    fn room(&self, stream: CommandStream) -> usize;
    /// Takes a byte, if there is room.
    fn put(&self, stream: CommandStream, byte: u8);
}

/// The port.
pub struct CommandPort {
    sink: Arc<dyn CommandSink>,
    control: Arc<dyn MachineControl>,
}

impl CommandPort {
    /// A port that passes output to `sink` and the status to `control`.
    pub fn new(sink: Arc<dyn CommandSink>, control: Arc<dyn MachineControl>) -> Self {
        Self { sink, control }
    }
}

/// Which stream's window a byte is in.
fn stream(at: u64) -> Option<CommandStream> {
    let within = |start: u64| (start..start + COMMAND_WINDOW).contains(&at);
    match at {
        _ if within(COMMAND_STDOUT) => Some(CommandStream::Out),
        _ if within(COMMAND_STDERR) => Some(CommandStream::Err),
        _ => None,
    }
}

impl CommandPort {
    fn read_byte(&self, at: u64) -> u8 {
        let room = |stream| (self.sink.room(stream) as u64 / COMMAND_WINDOW).min(0xff) as u8;
        match at {
            COMMAND_STATUS => room(CommandStream::Out),
            BEHIND_STATUS => room(CommandStream::Err),
            _ => 0xff,
        }
    }

    fn write_byte(&self, at: u64, byte: u8) {
        match stream(at) {
            Some(stream) => self.sink.put(stream, byte),
            None if at == COMMAND_STATUS => self.control.request(MachineEvent::CommandEnded(byte)),
            None => {}
        }
    }
}

impl BusDevice for CommandPort {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(places(offset)) {
            *byte = self.read_byte(at);
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        for (&byte, at) in data.iter().zip(places(offset)) {
            self.write_byte(at, byte);
        }
    }
}

/// The bytes of a wide access; those beyond ours stay the one behind our last.
fn places(offset: u64) -> impl Iterator<Item = u64> {
    (0..8).map(move |byte| offset.saturating_add(byte).min(COMMAND_BYTES))
}
