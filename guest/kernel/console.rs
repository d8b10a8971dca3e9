//! Where text goes: to the test agent if there is one, else to the first serial port.
//!
//! A line is put together in a buffer on the stack and handed over whole, so that lines of several CPUs do not mix and one costs
//! one exit. What does not fit is cut off. The serial port is for machines without an agent, and for people who want to see it.

use core::fmt::{self, Write};

use spin::Mutex;
use uart_16550::{Config, Uart16550, backend::PioBackend};
use x86::agent::{Op, words};
use x86::platform::COM1;

use crate::agent;
use crate::boot::info::boot_info;
use crate::sync::without_interrupts;

/// The longest line in bytes.
const LINE_MAX: usize = 240;

/// The serial port, from when it is first needed: with an agent that is hardly ever.
static SERIAL: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);

/// A line being put together.
pub struct Line {
    bytes: [u8; LINE_MAX],
    length: usize,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self { bytes: [0; LINE_MAX], length: 0 }
    }

    /// What is in it.
    pub fn as_str(&self) -> &str {
        // Only whole characters are put in.
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(LINE_MAX - self.length);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
        Ok(())
    }
}

/// Finds the serial port.
fn find() -> Option<Uart16550<PioBackend>> {
    // SAFETY: the ports of COM1 belong to nobody else in this kernel.
    let mut port = unsafe { Uart16550::new_port(COM1) }.ok()?;
    port.init(Config::default()).ok()?;
    Some(port)
}

/// Writes one line.
pub fn print(line: &str) {
    let has_agent = agent::is_present();
    if has_agent {
        agent::text(Op::Log, line);
    }
    if !has_agent || boot_info().word(words::LOG) == Some(words::SERIAL) {
        serial(line);
    }
}

/// Writes one line to the serial port only.
pub fn serial(line: &str) {
    without_interrupts(|| {
        // A fault or an NMI while this CPU holds the port must not wait for itself: after a while its line goes elsewhere.
        let Some(mut port) = (0..100_000).find_map(|_| SERIAL.try_lock()) else { return };
        if port.is_none() {
            *port = find();
        }
        if let Some(port) = port.as_mut() {
            port.send_bytes_exact(line.as_bytes());
            port.send_bytes_exact(b"\r\n");
        }
    });
}

/// Formats and writes one line.
pub fn print_args(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // Line never fails.
    let _ = line.write_fmt(arguments);
    print(line.as_str());
}

/// Writes a formatted line to the log.
#[macro_export]
macro_rules! log {
    ($($arguments:tt)*) => { $crate::console::print_args(format_args!($($arguments)*)) };
}

/// Asks the serial port to interrupt while its transmitter is empty, which it is between lines; or not to. Reading why it interrupted
/// would take the request back, so nobody does: the line is up as long as it is asked for.
pub fn set_serial_interrupt(on: bool) {
    use x86_64::instructions::port::Port;
    // SAFETY: the port's interrupt-enable and modem-control registers: DTR, RTS, and OUT2, which connects the line.
    unsafe {
        Port::<u8>::new(COM1 + 1).write(0);
        Port::<u8>::new(COM1 + 4).write(0x0b);
        if on {
            Port::<u8>::new(COM1 + 1).write(2);
        }
    }
}
