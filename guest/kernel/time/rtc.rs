//! The real-time clock (MC146818): date and time, and three kinds of interrupts on one line: periodic, alarm, update ended.
//!
//! Register C says which of them came, and reading it is what lowers the line: a handler that does not read it gets no further interrupt.
//!
//! To read more: Motorola MC146818 datasheet, "Interrupts", "Update Cycle".

use x86::platform::RTC;
use x86_64::instructions::port::Port;

use crate::sync::without_interrupts;

/// Register A: update in progress, divider, periodic rate.
pub const REGISTER_A: u8 = 0x0a;
/// Register B: interrupt enables and format.
pub const REGISTER_B: u8 = 0x0b;
/// Register C: interrupt flags, cleared by reading.
pub const REGISTER_C: u8 = 0x0c;

bitflags::bitflags! {
    /// Interrupt kinds, the same bits in registers B (enable) and C (flag).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Interrupts: u8 {
        /// An update of the time has ended: once a second.
        const UPDATE = 1 << 4;
        /// The time is the alarm's.
        const ALARM = 1 << 5;
        /// The periodic rate.
        const PERIODIC = 1 << 6;
        /// Register C only: any enabled flag is set, the line is up.
        const REQUEST = 1 << 7;
    }
}

/// Reads a register.
pub fn read(register: u8) -> u8 {
    without_interrupts(|| {
        // SAFETY: clock registers only.
        unsafe {
            Port::new(RTC).write(register);
            Port::new(RTC + 1).read()
        }
    })
}

/// Writes a register.
pub fn write(register: u8, value: u8) {
    without_interrupts(|| {
        // SAFETY: clock registers only.
        unsafe {
            Port::new(RTC).write(register);
            Port::new(RTC + 1).write(value);
        }
    });
}

/// Enables exactly these kinds, and takes what was flagged.
pub fn enable(kinds: Interrupts) {
    write(REGISTER_B, (read(REGISTER_B) & 0x0f) | (kinds - Interrupts::REQUEST).bits());
    take();
}

/// Takes the flags: which kinds came since the last time.
pub fn take() -> Interrupts {
    Interrupts::from_bits_truncate(read(REGISTER_C))
}

/// Sets the periodic rate: 32,768 Hz >> (rate - 1), for rates 3 to 15.
pub fn set_rate(rate: u8) {
    write(REGISTER_A, (read(REGISTER_A) & 0xf0) | (rate & 0x0f));
}

fn bcd(value: u8) -> u8 {
    (value >> 4) * 10 + (value & 15)
}

/// Seconds, minutes and hours, read without tearing.
pub fn time_of_day() -> (u8, u8, u8) {
    loop {
        let before = (read(0), read(2), read(4));
        let updating = read(REGISTER_A) & 0x80 != 0;
        if !updating && before == (read(0), read(2), read(4)) {
            let (seconds, minutes, hours) = before;
            let binary = read(REGISTER_B) & 4 != 0;
            return if binary { before } else { (bcd(seconds), bcd(minutes), bcd(hours)) };
        }
    }
}

/// Seconds from 1970-01-01 to the clock's date and time, of this century.
pub fn since_epoch() -> u64 {
    loop {
        let time = time_of_day();
        let date = [7, 8, 9].map(read);
        // The date may have changed in between.
        if time != time_of_day() {
            continue;
        }
        let binary = read(REGISTER_B) & 4 != 0;
        let [day, month, year] = date.map(|value| u64::from(if binary { value } else { bcd(value) }));
        let (seconds, minutes, hours) = time;
        let time = u64::from(seconds) + 60 * (u64::from(minutes) + 60 * u64::from(hours));
        return days_since_epoch(2000 + year, month, day) * 86_400 + time;
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The year is taken to begin in March, so that the leap day is its last.
pub fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // The same for 1970-01-01.
    days - 719_468
}
