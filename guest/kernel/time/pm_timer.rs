//! The ACPI power-management timer: a counter at 3.579545 MHz behind one port, of 24 or 32 bits.
//!
//! To read more: ACPI specification, "Power Management Timer".

use x86::platform::PM_TIMER_HZ;
use x86_64::instructions::port::Port;

use crate::machine;

/// The counter; 0 where there is no timer.
pub fn read() -> u32 {
    match machine::tables().pm_timer {
        0 => 0,
        // SAFETY: the tables say that this is the timer; reading it has no effect.
        port => unsafe { Port::<u32>::new(port).read() },
    }
}

/// Bits that count.
pub fn mask() -> u32 {
    if machine::tables().pm_timer_32 { u32::MAX } else { 0xff_ffff }
}

/// Ticks from `from` to `to`, over at most one wrap.
pub fn between(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & mask()
}

/// Time since its start. Must be looked at more often than the counter wraps (4.7 seconds with 24 bits).
pub struct Stopwatch {
    last: u32,
    ticks: u64,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self { last: read(), ticks: 0 }
    }

    /// Ticks since the start.
    pub fn ticks(&mut self) -> u64 {
        let now = read();
        self.ticks += u64::from(between(self.last, now));
        self.last = now;
        self.ticks
    }

    /// Microseconds since the start.
    pub fn microseconds(&mut self) -> u64 {
        self.ticks() * 1_000_000 / PM_TIMER_HZ
    }
}
