//! The clock's registers and memory, and what the time looks like in them.

use std::ops::{Index, IndexMut};

use super::calendar::{date_of, day_number, weekday_of};

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
/// As in the ACPI FADT of PCs.
const CENTURY: u8 = 0x32;
const TIME: [u8; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];

pub(super) const REG_A: u8 = 0x0a;
pub(super) const REG_B: u8 = 0x0b;
pub(super) const REG_C: u8 = 0x0c;
pub(super) const REG_D: u8 = 0x0d;

pub(super) const A_UPDATING: u8 = 1 << 7;
pub(super) const A_DIVIDER: u8 = 0x70;
/// Both bits set hold the divider in reset.
pub(super) const A_DIVIDER_RESET: u8 = 0x60;
pub(super) const A_RATE: u8 = 0x0f;
/// 32.768 kHz time base, 1024 Hz periodic rate.
const A_INITIAL: u8 = 0x26;

pub(super) const B_SET: u8 = 1 << 7;
pub(super) const B_PERIODIC: u8 = 1 << 6;
pub(super) const B_ALARM: u8 = 1 << 5;
pub(super) const B_UPDATE: u8 = 1 << 4;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;

/// The flags have the places of their enable bits.
pub(super) const C_PERIODIC: u8 = B_PERIODIC;
pub(super) const C_ALARM: u8 = B_ALARM;
pub(super) const C_UPDATE: u8 = B_UPDATE;
pub(super) const C_INTERRUPT: u8 = 1 << 7;

/// Memory and battery were fine all the time.
pub(super) const D_VALID: u8 = 1 << 7;

const AFTERNOON: u8 = 1 << 7;
/// An alarm byte with both bits set matches any time.
const ANY: u8 = 0xc0;

const DAY_SECONDS: i64 = 86_400;

/// 128 bytes; the flags of register C without the interrupt flag.
pub(super) struct Registers([u8; 128]);

/// Registers that the clock counts.
pub(super) fn is_time(register: u8) -> bool {
    TIME.contains(&register)
}

impl Index<u8> for Registers {
    type Output = u8;
    fn index(&self, register: u8) -> &u8 {
        &self.0[usize::from(register & 0x7f)]
    }
}

impl IndexMut<u8> for Registers {
    fn index_mut(&mut self, register: u8) -> &mut u8 {
        &mut self.0[usize::from(register & 0x7f)]
    }
}

impl Registers {
    pub(super) fn new() -> Self {
        let mut registers = Self([0; 128]);
        registers[REG_A] = A_INITIAL;
        registers[REG_B] = B_24_HOURS;
        registers
    }

    /// Whether an enabled flag is set.
    pub(super) fn interrupts_pending(&self) -> bool {
        self[REG_B] & self[REG_C] & (C_PERIODIC | C_ALARM | C_UPDATE) != 0
    }

    /// What a time register reads at `time` (seconds since 1970), in the present data mode.
    pub(super) fn encode(&self, time: i64, register: u8) -> u8 {
        let (days, second) = (time.div_euclid(DAY_SECONDS), time.rem_euclid(DAY_SECONDS));
        let (year, month, day) = date_of(days);
        match register {
            SECONDS => self.number((second % 60) as u8),
            MINUTES => self.number((second / 60 % 60) as u8),
            HOURS => self.hour((second / 3600) as u8),
            WEEKDAY => self.number(weekday_of(days)),
            DAY => self.number(day),
            MONTH => self.number(month),
            YEAR => self.number(year.rem_euclid(100) as u8),
            _ => self.number(year.div_euclid(100).rem_euclid(100) as u8),
        }
    }

    /// Puts `time` into the time registers.
    pub(super) fn store(&mut self, time: i64) {
        for register in TIME {
            self[register] = self.encode(time, register);
        }
    }

    /// The time in the time registers, in seconds since 1970. What is out of range is taken as the nearest that is
    /// not; a day beyond the end of its month runs on into the next.
    pub(super) fn decode(&self) -> i64 {
        let value = |register| self.value(self[register]);
        let hour = self[HOURS];
        let hour = if self[REG_B] & B_24_HOURS != 0 {
            self.value(hour).min(23)
        } else {
            self.value(hour & !AFTERNOON) % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 }
        };
        let year = i64::from(value(CENTURY)) * 100 + i64::from(value(YEAR));
        let days = day_number(year, value(MONTH), value(DAY).clamp(1, 31));
        let minutes = i64::from(hour) * 60 + i64::from(value(MINUTES).min(59));
        days * DAY_SECONDS + minutes * 60 + i64::from(value(SECONDS).min(59))
    }

    /// The first second after `time` at which the alarm bytes match.
    pub(super) fn next_alarm(&self, time: i64) -> Option<i64> {
        let matches = |alarm: u8, now: u8| self[alarm] & ANY == ANY || self[alarm] == now;
        let mut at = time + 1;
        // Within a day, or never. Whole hours and minutes that can't match are skipped.
        while at <= time + DAY_SECONDS {
            let second = at.rem_euclid(DAY_SECONDS);
            if !matches(HOURS_ALARM, self.hour((second / 3600) as u8)) {
                at += 3600 - second % 3600;
            } else if !matches(MINUTES_ALARM, self.number((second / 60 % 60) as u8)) {
                at += 60 - second % 60;
            } else if !matches(SECONDS_ALARM, self.number((second % 60) as u8)) {
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }

    fn hour(&self, hour: u8) -> u8 {
        if self[REG_B] & B_24_HOURS != 0 {
            return self.number(hour);
        }
        // 12 to 11, there is no 0.
        self.number((hour + 11) % 12 + 1) | if hour >= 12 { AFTERNOON } else { 0 }
    }

    fn number(&self, value: u8) -> u8 {
        if self[REG_B] & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn value(&self, byte: u8) -> u8 {
        if self[REG_B] & B_BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 0xf) }
    }
}
