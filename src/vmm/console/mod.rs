//! The serial console on the program's standard streams.
//!
//! Lives on the main loop. Output is taken from the port only once it is written, input is read only while there is
//! room for it, and neither ever waits: the descriptors are our own non-blocking ones, watched while there is something
//! to do. When the other end of the output closes, the guest goes on and its output is thrown away.

mod escape;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use devices::Serial;
use parking_lot::Mutex;
use sys::terminal::{Direction, RawMode, Stream, reopen};

use escape::{Escape, Key};

const HELP: &[u8] = b"\r\nCtrl-A x: quit; Ctrl-A Ctrl-A: send Ctrl-A; Ctrl-A h: this help\r\n";
/// Input held for a guest that does not read it yet; beyond this we stop reading.
const INPUT_HELD: usize = 64 << 10;
/// Written in one turn of the main loop, so that a flood leaves time for the other events.
const TURN: usize = 64 << 10;
/// One read or write.
const CHUNK: usize = 4096;

/// The descriptor of one direction, and whether the main loop watches it.
struct Side {
    file: File,
    /// At its end, or broken; stays open until the console goes, so that its number can't come to mean another file.
    ended: bool,
    watched: bool,
    watchable: bool,
}

impl Side {
    fn new(file: File) -> Self {
        Self { file, ended: false, watched: false, watchable: true }
    }
}

/// A change in what the main loop is to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// The descriptor.
    pub fd: RawFd,
    /// Its direction.
    pub output: bool,
    /// Start, or else stop.
    pub watch: bool,
}

/// The console.
pub struct Console {
    serial: Arc<Mutex<Serial>>,
    input: Side,
    output: Side,
    /// Read, not yet taken by the port.
    held: VecDeque<u8>,
    /// The output would have blocked.
    blocked: bool,
    escape: Option<Escape>,
    /// Keeps the terminal raw; restores it when dropped.
    _raw: Option<RawMode>,
}

impl Console {
    /// Takes over the standard streams: raw mode and the Ctrl-A keys if the input is a terminal.
    pub fn stdio(serial: Arc<Mutex<Serial>>) -> io::Result<Self> {
        let input = reopen(&io::stdin(), Direction::Input)?;
        let output = reopen(&io::stdout(), Direction::Output)?;
        let raw = RawMode::enter(&io::stdin())?;
        let keys = io::stdin().is_terminal();
        Ok(Self { _raw: raw, ..Self::new(serial, into_file(input), into_file(output), keys) })
    }

    /// Goes on with the port of a rebooted machine, on a main loop that watches nothing yet.
    pub fn attach(&mut self, serial: Arc<Mutex<Serial>>) {
        self.serial = serial;
        self.blocked = false;
        self.input.watched = false;
        self.output.watched = false;
    }

    /// A console on these files, which had better not block. `keys`: the Ctrl-A keys are ours.
    pub fn new(serial: Arc<Mutex<Serial>>, input: File, output: File, keys: bool) -> Self {
        Self {
            serial,
            input: Side::new(input),
            output: Side::new(output),
            held: VecDeque::new(),
            blocked: false,
            escape: keys.then(Escape::default),
            _raw: None,
        }
    }

    /// Moves what can be moved, both ways. True: there is more output, and it would not block: call again soon.
    #[must_use]
    pub fn serve(&mut self) -> bool {
        if !self.input.watchable {
            // A file is always readable: read it as fast as the guest takes it. It has no Ctrl-A keys.
            let _ = self.read_input();
        }
        self.feed();
        self.write_output(TURN)
    }

    /// Reads input once (a read that may block is not tried twice: the descriptor told of one). True: the user asks to
    /// quit.
    #[must_use]
    pub fn read_input(&mut self) -> bool {
        if !self.wants_input() {
            return false;
        }
        let mut buffer = [0; CHUNK];
        let mut quit = false;
        match self.input.file.read(&mut buffer) {
            Ok(0) => self.input.ended = true,
            Ok(count) => quit = self.take_keys(&buffer[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => {
                log::warn!("console input ends: {e}");
                self.input.ended = true;
            }
        }
        self.feed();
        quit
    }

    /// What changed since the last call in what is to be watched.
    pub fn watch_changes(&mut self) -> Vec<Watch> {
        let wanted = [(false, self.wants_input()), (true, self.blocked)];
        let mut changes = Vec::new();
        for (output, wanted) in wanted {
            let side = if output { &mut self.output } else { &mut self.input };
            let wanted = wanted && side.watchable;
            if side.watched != wanted {
                side.watched = wanted;
                changes.push(Watch { fd: side.file.as_raw_fd(), output, watch: wanted });
            }
        }
        changes
    }

    /// The descriptor can't be watched (a regular file): it never blocks, either.
    pub fn cannot_watch(&mut self, output: bool) {
        let side = if output { &mut self.output } else { &mut self.input };
        side.watchable = false;
        side.watched = false;
    }

    /// There is output that is not written yet.
    pub fn has_output(&self) -> bool {
        self.serial.lock().output_len() > 0
    }

    fn wants_input(&self) -> bool {
        !self.input.ended && self.held.len() < INPUT_HELD
    }

    fn take_keys(&mut self, bytes: &[u8]) -> bool {
        let Some(escape) = &mut self.escape else {
            self.held.extend(bytes);
            return false;
        };
        let mut quit = false;
        for &byte in bytes {
            match escape.press(byte) {
                Key::Byte(byte) => self.held.push_back(byte),
                Key::Quit => quit = true,
                // Nobody to read it is no reason to fail.
                Key::Help => drop(io::stderr().write_all(HELP)),
                Key::None => {}
            }
        }
        quit
    }

    /// Gives the port as much of the held input as it takes.
    fn feed(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let taken = self.serial.lock().push_input(self.held.make_contiguous());
        self.held.drain(..taken);
    }

    /// Writes up to `limit` bytes. True: there is more, and it would not block.
    fn write_output(&mut self, limit: usize) -> bool {
        self.blocked = false;
        let mut buffer = [0; CHUNK];
        let mut written = 0;
        while written < limit {
            let count = self.serial.lock().peek_output(&mut buffer);
            if count == 0 {
                return false;
            }
            let done = if self.output.ended {
                count
            } else {
                match self.output.file.write(&buffer[..count]) {
                    Ok(count) => count,
                    Err(e) if e.kind() == ErrorKind::Interrupted => 0,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        self.blocked = true;
                        return false;
                    }
                    Err(e) => {
                        log::warn!("console output ends, the guest goes on: {e}");
                        self.output.ended = true;
                        0
                    }
                }
            };
            self.serial.lock().consume_output(done);
            written += done;
        }
        true
    }
}

fn into_file(stream: Stream) -> File {
    match stream {
        Stream::NonBlocking(file) | Stream::Shared(file) => file,
    }
}
