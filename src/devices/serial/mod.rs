//! 16550A serial port (National PC16550D datasheet), on vm-superio's register model.
//!
//! vm-superio keeps the registers, the receive FIFO and loopback. What its interrupt identification leaves out is
//! done here: the transmitter can be busy, the interrupt is a level computed from what is pending and enabled
//! (a read of IIR or of one byte does not forget the rest of the FIFO), causes are reported one at a time in the
//! datasheet's priority, FCR works, and MCR's OUT2 gates the interrupt as on a PC.
//!
//! Output goes to a bounded buffer that the main loop drains; while that is full, the transmitter is busy.
//!
//! Input comes through a cable whose far end obeys RTS: bytes are taken only while the guest asserts it, so that
//! what is typed ahead during boot is not lost when a driver resets its FIFO. A guest that never asserted RTS counts as
//! listening when it enables the receive interrupt, or when it polls LSR without ever having written MCR.
//!
//! Not modelled: line errors and break, modem status changes, FIFO trigger levels and the character time-out (one
//! byte is enough for an interrupt), the baud rate, 16450 mode's one-byte receiver (the FIFO is always 64 bytes deep).

mod output;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use irqchip::line::Line;
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use x86::Nanos;

use crate::ports::{read_bytes, write_bytes};
use crate::traits::{BusDevice, ConsoleEnd, Later};
use output::{HIGH_WATER, LOW_WATER, Output};

/// Ports of the chip.
const PORTS: u8 = 8;
const DATA: u8 = 0;
const IER: u8 = 1;
/// Interrupt identification (read), FIFO control (write).
const IIR_FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;

const IER_RECEIVE: u8 = 1 << 0;
const IER_THR_EMPTY: u8 = 1 << 1;
const IER_VALID: u8 = 0x0f;
const IIR_NONE: u8 = 0x01;
const IIR_THR_EMPTY: u8 = 0x02;
const IIR_RECEIVE: u8 = 0x04;
const IIR_FIFO_ENABLED: u8 = 0xc0;
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVE: u8 = 1 << 1;
const LCR_DLAB: u8 = 1 << 7;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
const MCR_VALID: u8 = 0x1f;
/// Transmitter holding register empty, and the shift register too.
const LSR_IDLE: u8 = 0x60;

/// Depth of vm-superio's receive FIFO.
const RECEIVE_FIFO: usize = 64;
/// A caller that found no room hears again when this much is free.
const WORTH_A_CALL: usize = RECEIVE_FIFO / 2;

/// Unused: the interrupt is a level computed from the chip's state.
struct NoTrigger;

impl Trigger for NoTrigger {
    type E = Infallible;
    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A serial port.
pub struct Serial {
    chip: vm_superio::Serial<NoTrigger, NoEvents, Output>,
    line: Line,
    later: Arc<dyn Later>,
    interrupt_enable: u8,
    /// The chip's own copies need `&mut` to read.
    line_control: u8,
    modem_control: u8,
    fifo_enabled: bool,
    /// The THR-empty interrupt is pending; a read of IIR that reports it, or a byte to send, clears it.
    thr_empty: bool,
    /// The transmitter takes bytes.
    ready: bool,
    /// RTS was asserted at least once, so it tells when the guest listens.
    rts_seen: bool,
    mcr_written: bool,
    /// LSR was read.
    polled: bool,
    /// The caller found no room for input and waits to hear of some.
    caller_waits: bool,
}

impl Serial {
    /// A port after reset that interrupts on `line`. `later` is scheduled when output waits to be drained, and when
    /// there is room for input again.
    pub fn new(line: Line, later: Arc<dyn Later>) -> Self {
        let mut chip = vm_superio::Serial::new(NoTrigger, Output::default());
        let (line_control, modem_control) = (chip.read(LCR), chip.read(MCR));
        Self {
            chip,
            line,
            later,
            interrupt_enable: 0,
            line_control,
            modem_control,
            fifo_enabled: false,
            thr_empty: false,
            ready: true,
            rts_seen: false,
            mcr_written: false,
            polled: false,
            caller_waits: true,
        }
    }

    /// Copies the oldest bytes sent and not consumed, up to the size of `into`; says how many. There is one drainer:
    /// it copies under the lock, writes without, and then calls [`Serial::consume_output`] with what was written.
    /// `later` is scheduled when the first byte comes, not again until all are consumed.
    pub fn peek_output(&self, into: &mut [u8]) -> usize {
        self.chip.writer().peek(into)
    }

    /// Forgets the `count` oldest bytes: they are written. May make the transmitter ready again.
    pub fn consume_output(&mut self, count: usize) {
        self.chip.writer_mut().consume(count);
        self.update();
    }

    /// Bytes sent and not consumed.
    pub fn output_len(&self) -> usize {
        self.chip.writer().len()
    }

    /// Bytes lost because the guest sent them to a busy transmitter.
    pub fn dropped_output(&self) -> u64 {
        self.chip.writer().dropped()
    }

    /// How many bytes [`Serial::push_input`] would take now, 0 to 64. After a 0, `later` is scheduled when there is
    /// room.
    pub fn input_capacity(&self) -> usize {
        if self.listening() { self.chip.fifo_capacity() } else { 0 }
    }

    /// Receives as much of `input` as there is room for and says how much; the rest stays with the caller, and `later`
    /// is scheduled when there is room again.
    pub fn push_input(&mut self, input: &[u8]) -> usize {
        let count = input.len().min(self.input_capacity());
        // Can't fail: it fits and the port isn't in loopback mode.
        let taken = self.chip.enqueue_raw_bytes(&input[..count]).unwrap_or(0);
        self.update();
        taken
    }

    fn read_port(&mut self, port: u8) -> u8 {
        match port {
            IER if !self.dlab() => self.interrupt_enable,
            IIR_FCR => self.identify(),
            LSR => {
                self.polled = true;
                let others = self.chip.read(LSR) & !LSR_IDLE;
                if self.ready { others | LSR_IDLE } else { others }
            }
            _ => self.chip.read(port),
        }
    }

    fn write_port(&mut self, port: u8, value: u8) {
        match port {
            DATA if !self.dlab() => self.send(value),
            IER if !self.dlab() => {
                let enabled = value & !self.interrupt_enable;
                self.interrupt_enable = value & IER_VALID;
                // Enabling it while the transmitter is empty makes it pending.
                self.thr_empty |= enabled & IER_THR_EMPTY != 0 && self.ready;
            }
            IIR_FCR => self.control_fifo(value),
            LCR => {
                self.line_control = value;
                self.write_chip(LCR, value);
            }
            MCR => {
                self.modem_control = value & MCR_VALID;
                self.mcr_written = true;
                // In loopback mode the pins are inactive whatever the register says.
                self.rts_seen |= value & (MCR_RTS | MCR_LOOP) == MCR_RTS;
                self.write_chip(MCR, value & MCR_VALID);
            }
            _ => self.write_chip(port, value),
        }
    }

    fn write_chip(&mut self, port: u8, value: u8) {
        // Neither its writer nor its trigger ever fails.
        let _ = self.chip.write(port, value);
    }

    fn send(&mut self, value: u8) {
        let was_empty = self.output_len() == 0;
        self.write_chip(DATA, value);
        if was_empty && self.output_len() > 0 {
            self.later.schedule();
        }
        // As if the byte left at once, unless that filled the buffer.
        self.ready = self.ready && self.output_len() < HIGH_WATER;
        self.thr_empty = self.ready;
    }

    /// IIR: the most urgent pending cause. Reporting the THR-empty interrupt clears it.
    fn identify(&mut self) -> u8 {
        let fifo = if self.fifo_enabled { IIR_FIFO_ENABLED } else { 0 };
        let cause = if self.receive_interrupt() {
            IIR_RECEIVE
        } else if self.thr_interrupt() {
            self.thr_empty = false;
            IIR_THR_EMPTY
        } else {
            IIR_NONE
        };
        cause | fifo
    }

    fn control_fifo(&mut self, value: u8) {
        let enable = value & FCR_ENABLE != 0;
        // Changing the mode clears the FIFOs; the other bits count only with the FIFOs enabled. There is no transmit
        // FIFO to clear: what was sent has left.
        let clear = enable != self.fifo_enabled || (enable && value & FCR_CLEAR_RECEIVE != 0);
        self.fifo_enabled = enable;
        if clear {
            self.write_chip(LCR, self.line_control & !LCR_DLAB);
            while self.chip.fifo_capacity() < RECEIVE_FIFO {
                self.chip.read(DATA);
            }
            self.write_chip(LCR, self.line_control);
        }
    }

    /// Everything that follows from the state, after every change: the transmitter's readiness, the interrupt's level
    /// and whether the caller should hear of room for input.
    fn update(&mut self) {
        if !self.ready && self.output_len() <= LOW_WATER {
            self.ready = true;
            self.thr_empty = true;
        }
        let out2 = self.modem_control & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        self.line.set(out2 && (self.receive_interrupt() || self.thr_interrupt()));

        let room = self.input_capacity();
        if room == 0 {
            self.caller_waits = true;
        } else if self.caller_waits && room >= WORTH_A_CALL {
            self.caller_waits = false;
            self.later.schedule();
        }
    }

    fn receive_interrupt(&self) -> bool {
        self.interrupt_enable & IER_RECEIVE != 0 && self.chip.fifo_capacity() < RECEIVE_FIFO
    }

    fn thr_interrupt(&self) -> bool {
        self.interrupt_enable & IER_THR_EMPTY != 0 && self.thr_empty
    }

    fn listening(&self) -> bool {
        let mcr = self.modem_control;
        if mcr & MCR_LOOP != 0 {
            return false;
        }
        let without_rts = self.interrupt_enable & IER_RECEIVE != 0 || (self.polled && !self.mcr_written);
        mcr & MCR_RTS != 0 || (!self.rts_seen && without_rts)
    }

    fn dlab(&self) -> bool {
        self.line_control & LCR_DLAB != 0
    }
}

impl ConsoleEnd for Serial {
    fn push_input(&mut self, bytes: &[u8]) -> usize {
        self.push_input(bytes)
    }

    fn peek_output(&mut self, data: &mut [u8]) -> usize {
        Self::peek_output(self, data)
    }

    fn consume_output(&mut self, count: usize) {
        self.consume_output(count);
    }

    fn output_len(&mut self) -> usize {
        Self::output_len(self)
    }
}

impl BusDevice for Serial {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, PORTS, |port| self.read_port(port));
        self.update();
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        write_bytes(offset, data, PORTS, |port, value| self.write_port(port, value));
        self.update();
    }
}
