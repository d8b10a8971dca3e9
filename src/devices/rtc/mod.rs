//! MC146818 real-time clock with CMOS memory (Motorola MC146818A datasheet; century byte and ports as on the PC/AT).
//!
//! Time is the host's at the start of the machine plus machine time, plus what the guest made of it. Flags are computed
//! when the device is looked at; the alarm is armed only while an enabled source waits for its first event, so ticks
//! that nobody fetched never pile up.
//!
//! An update takes the 1984 us before each new second, announced by UIP for 244 us before; until its end the old
//! time is read.
//!
//! Not modelled: the square-wave pin, daylight saving, NMI masking by bit 7 of the index, time bases other than 32.768 kHz. The
//! day of the week follows from the date once the clock runs. Changing the data mode shows the running time in the
//! new mode at once, where the chip needs it written again.

mod calendar;
mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use fault::Fault;
use irqchip::line::Line;
use x86::Nanos;

use crate::clock::Deadline;
use crate::ports::{read_bytes, write_bytes};
use crate::traits::{Alarm, BusDevice, TimedDevice};
use registers::{
    A_DIVIDER, A_DIVIDER_RESET, A_RATE, A_UPDATING, B_ALARM, B_SET, B_UPDATE, C_ALARM, C_INTERRUPT, C_PERIODIC,
    C_UPDATE, D_VALID, REG_A, REG_B, REG_C, REG_D, Registers, is_time,
};

const INDEX: u8 = 0;
const PORTS: u8 = 2;

const SECOND: i128 = 1_000_000_000;
/// How long before a new second the update is announced, in nanoseconds: 244 us and the update itself.
const UPDATING: i128 = 244_000 + 1_984_000;
/// The end of the year 9999, as far as a century byte goes.
const LATEST: u64 = 253_402_300_799;
/// Rate of the divider's first stage.
const BASE_HZ: i128 = 32_768;

/// The clock. Bus offset 0 is the index port (0x70), 1 the data port (0x71).
pub struct Rtc {
    index: u8,
    registers: Registers,
    /// The clock's time in nanoseconds since 1970 is this plus the machine's time.
    base: i128,
    /// Latest time looked at.
    last: Nanos,
    line: Line,
    deadline: Deadline,
}

impl Rtc {
    /// A clock that has kept time with a good battery: `wall` since 1970-01-01 UTC at machine time 0, BCD, 24 hours,
    /// interrupts off.
    pub fn new(wall: Duration, line: Line, alarm: Arc<dyn Alarm>) -> Self {
        Self {
            index: 0,
            registers: Registers::new(),
            base: i128::from(wall.as_secs().min(LATEST)) * SECOND + i128::from(wall.subsec_nanos()),
            last: 0,
            line,
            deadline: Deadline::new(alarm),
        }
    }

    /// The clock's time in nanoseconds since 1970; its fraction of a second is the divider's.
    fn clock(&self, now: Nanos) -> i128 {
        self.base + i128::from(now)
    }

    /// The divider runs.
    fn divides(&self) -> bool {
        self.registers[REG_A] & A_DIVIDER_RESET != A_DIVIDER_RESET
    }

    /// The time registers follow the clock; otherwise they are plain memory.
    fn runs(&self) -> bool {
        self.divides() && self.registers[REG_B] & B_SET == 0
    }

    /// Sets the flags of everything that came to pass up to `now`.
    fn advance(&mut self, now: Nanos) {
        if now <= self.last {
            return;
        }
        let (from, to) = (self.clock(self.last), self.clock(now));
        self.last = now;
        if !self.divides() {
            // Held, so that it has not moved on when it is let go.
            return;
        }
        let mut flags = 0;
        if self.period().is_some_and(|period| stage(from).div_euclid(period) != stage(to).div_euclid(period)) {
            flags |= C_PERIODIC;
        }
        let (from, to) = (from.div_euclid(SECOND), to.div_euclid(SECOND));
        if self.runs() && from != to {
            flags |= C_UPDATE;
            let alarm = self.registers.next_alarm(from as i64);
            if alarm.is_some_and(|at| i128::from(at) <= to) && !fault::is(Fault::RtcAlarmMissed) {
                flags |= C_ALARM;
            }
        }
        self.registers[REG_C] |= flags;
    }

    /// Brings interrupt and alarm in step with the registers.
    fn settle(&mut self) {
        let pending = self.registers.interrupts_pending();
        self.line.set(pending);
        // While one is pending, the next flag changes nothing.
        let next = if pending { None } else { self.next_event() };
        let at = next.map(|clock| Nanos::try_from((clock - self.base).max(0)).unwrap_or(Nanos::MAX));
        self.deadline.set(at);
    }

    /// When an enabled source comes next, by the clock.
    fn next_event(&self) -> Option<i128> {
        let enabled = self.registers[REG_B];
        let clock = self.clock(self.last);
        let periodic = self
            .period()
            .filter(|_| enabled & C_PERIODIC != 0 && self.divides())
            .map(|period| ceil_div((stage(clock).div_euclid(period) + 1) * period * SECOND, BASE_HZ));
        let second = clock.div_euclid(SECOND);
        let update = (enabled & B_UPDATE != 0 && self.runs()).then_some((second + 1) * SECOND);
        let alarm = if enabled & B_ALARM != 0 && self.runs() { self.registers.next_alarm(second as i64) } else { None };
        [periodic, update, alarm.map(|at| i128::from(at) * SECOND)].into_iter().flatten().min()
    }

    /// The period of the periodic interrupt in cycles of the base frequency.
    fn period(&self) -> Option<i128> {
        match self.registers[REG_A] & A_RATE {
            0 => None,
            // The first two codes stand for 256 and 128 Hz, the others fall from 8192 Hz.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1 - u8::from(fault::is(Fault::RtcRateDoubled)))),
        }
    }

    fn read_register(&mut self, register: u8) -> u8 {
        match register {
            REG_A => {
                let fraction = self.clock(self.last).rem_euclid(SECOND);
                let updating = self.runs() && fraction >= SECOND - UPDATING;
                self.registers[REG_A] | if updating { A_UPDATING } else { 0 }
            }
            REG_C => {
                let pending = self.registers.interrupts_pending();
                let kept = if fault::is(Fault::RtcFlagsKept) { self.registers[REG_C] } else { 0 };
                std::mem::replace(&mut self.registers[REG_C], kept) | if pending { C_INTERRUPT } else { 0 }
            }
            REG_D => D_VALID,
            register if is_time(register) && self.runs() => self.registers.encode(self.seconds(), register),
            register => self.registers[register],
        }
    }

    fn write_register(&mut self, register: u8, value: u8) {
        match register {
            REG_A => self.write_control(REG_A, value & (A_DIVIDER | A_RATE)),
            // Stopping the updates also disables their interrupt.
            REG_B if value & B_SET != 0 => self.write_control(REG_B, value & !B_UPDATE),
            REG_B => self.write_control(REG_B, value),
            REG_C | REG_D => {}
            register if is_time(register) && self.runs() => {
                self.store_time();
                self.registers[register] = value;
                self.start();
            }
            register => self.registers[register] = value,
        }
    }

    /// Writes register A or B, either of which can stop and start the clock.
    fn write_control(&mut self, register: u8, value: u8) {
        let (ran, divided) = (self.runs(), self.divides());
        if ran {
            self.store_time();
        }
        self.registers[register] = value;
        if !divided && self.divides() {
            // The first update comes half a second after the divider is let go.
            self.base += SECOND / 2 - self.clock(self.last).rem_euclid(SECOND);
        }
        if !ran && self.runs() {
            self.start();
        }
    }

    /// Leaves the time in the registers, where it stays while the clock doesn't run.
    fn store_time(&mut self) {
        let seconds = self.seconds();
        self.registers.store(seconds);
    }

    /// Takes the time from the registers; the divider goes on where it is.
    fn start(&mut self) {
        let clock = self.clock(self.last);
        self.base += i128::from(self.registers.decode()) * SECOND + clock.rem_euclid(SECOND) - clock;
    }

    fn seconds(&self) -> i64 {
        self.clock(self.last).div_euclid(SECOND) as i64
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        self.advance(now);
        read_bytes(offset, data, PORTS, |port| match port {
            // The index can't be read.
            INDEX => 0xff,
            _ => self.read_register(self.index),
        });
        self.settle();
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        self.advance(now);
        write_bytes(offset, data, PORTS, |port, value| match port {
            // Bit 7 masks NMIs.
            INDEX => self.index = value & 0x7f,
            _ => self.write_register(self.index, value),
        });
        self.settle();
    }
}

impl TimedDevice for Rtc {
    fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        self.advance(now);
        self.settle();
    }
}

/// Cycles of the base frequency up to `clock`.
fn stage(clock: i128) -> i128 {
    (clock * BASE_HZ).div_euclid(SECOND)
}

fn ceil_div(dividend: i128, divisor: i128) -> i128 {
    -(-dividend).div_euclid(divisor)
}
