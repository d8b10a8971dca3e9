//! 8254 programmable interval timer with system control port B (Intel 8254 and 82C54 datasheets; port B as in the
//! Intel PIIX and ICH datasheets, section "NMI Status and Control Register").
//!
//! Three counters of 1.193182 MHz. Counter 0's OUT is the interrupt line, counter 2's gate and OUT are in port B.
//! Everything is derived from the time of the access; the alarm asks only for the next rise of counter 0's OUT.
//! Falls of OUT show on the line when the device is next looked at, or with the next rise: an edge-triggered input
//! can't tell.
//!
//! After a stop of any length there is one edge for all those missed, in phase with the program. The alarm is not
//! armed sooner than 20 us after an edge was delivered, so that a tiny count can't make the host spin.
//!
//! Not modelled: the speaker, NMI sources in port B (they read as zero).

mod counter;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fault::Fault;
use irqchip::line::Line;
use x86::Nanos;
use x86::platform::PIT_HZ;

use crate::clock::{Deadline, MIN_INTERVAL, ticks_at, time_of_tick};
use crate::ports::{read_bytes, write_bytes};
use crate::traits::{Alarm, BusDevice, TimedDevice};
use counter::Counter;

/// Offset of port B (0x61) from the timer's first port (0x40).
pub const PORT_B_OFFSET: u64 = 0x21;

const CONTROL: u8 = 3;
const PORTS: u8 = 4;

/// Half the period of port B's refresh toggle, in nanoseconds.
const REFRESH: Nanos = 15_085;
const PORT_B_GATE: u8 = 1 << 0;
/// Gate, speaker enable, parity and channel check disable.
const PORT_B_WRITABLE: u8 = 0x0f;
const PORT_B_REFRESH: u8 = 1 << 4;
const PORT_B_OUT: u8 = 1 << 5;

/// The timer and port B. Its bus offsets are 0 to 3 (ports 0x40 to 0x43) and [`PORT_B_OFFSET`]; with
/// [`crate::Window`] the latter can be put on the bus by itself.
pub struct Pit {
    counters: [Counter; 3],
    port_b: u8,
    line: Line,
    deadline: Deadline,
    /// No alarm before this.
    not_before: Nanos,
}

impl Pit {
    /// A timer that nobody has programmed: all OUTs high, nothing counts.
    pub fn new(line: Line, alarm: Arc<dyn Alarm>) -> Self {
        let mut pit = Self {
            counters: [Counter::new(true), Counter::new(true), Counter::new(false)],
            port_b: 0,
            line,
            deadline: Deadline::new(alarm),
            not_before: 0,
        };
        pit.line.set(true);
        pit
    }

    /// Reads port B.
    pub fn read_port_b(&mut self, now: Nanos) -> u8 {
        self.advance(now);
        self.settle(now);
        let refresh = if now / REFRESH % 2 == 1 { PORT_B_REFRESH } else { 0 };
        let out = if self.counters[2].out() { PORT_B_OUT } else { 0 };
        self.port_b | refresh | out
    }

    /// Writes port B: counter 2's gate, and bits that are only stored.
    pub fn write_port_b(&mut self, now: Nanos, value: u8) {
        self.advance(now);
        self.port_b = value & PORT_B_WRITABLE;
        self.counters[2].set_gate(value & PORT_B_GATE != 0);
        self.settle(now);
    }

    /// Brings the counters to `now`.
    fn advance(&mut self, now: Nanos) {
        let tick = ticks_at(now, PIT_HZ);
        for counter in &mut self.counters {
            counter.advance(tick);
        }
    }

    /// Brings line and alarm in step with counter 0.
    fn settle(&mut self, now: Nanos) {
        let counter = &mut self.counters[0];
        if counter.take_rise() {
            self.line.set(fault::is(Fault::PitEdgeMissed));
            self.line.set(true);
            self.not_before = now.saturating_add(MIN_INTERVAL);
        }
        self.line.set(counter.out());
        let rise = counter.next_rise().map(|tick| time_of_tick(tick, PIT_HZ).max(self.not_before));
        self.deadline.set(rise);
    }

    fn control(&mut self, value: u8) {
        let select = usize::from(value >> 6);
        match self.counters.get_mut(select) {
            Some(counter) => counter.control(value),
            None => {
                for (i, counter) in self.counters.iter_mut().enumerate() {
                    if value & (2 << i) != 0 {
                        counter.read_back(value);
                    }
                }
            }
        }
    }
}

impl BusDevice for Pit {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        if offset == PORT_B_OFFSET {
            data.fill(0xff);
            if let Some(first) = data.first_mut() {
                *first = self.read_port_b(now);
            }
            return;
        }
        self.advance(now);
        self.settle(now);
        // The control register can't be read.
        read_bytes(offset, data, PORTS, |port| self.counters.get_mut(usize::from(port)).map_or(0xff, Counter::read));
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        if offset == PORT_B_OFFSET {
            if let Some(&value) = data.first() {
                self.write_port_b(now, value);
            }
            return;
        }
        self.advance(now);
        write_bytes(offset, data, PORTS, |port, value| match port {
            CONTROL => self.control(value),
            _ => self.counters[usize::from(port)].write(value),
        });
        self.settle(now);
    }
}

impl TimedDevice for Pit {
    fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        self.advance(now);
        self.settle(now);
    }
}
