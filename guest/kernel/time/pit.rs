//! The 8254 interval timer: three 16-bit counters at 1.193182 MHz.
//!
//! Counter 0 drives ISA interrupt 0. Counter 2 can be gated and watched through system control port B, without any interrupt: good for
//! measuring.
//!
//! To read more: Intel 8254 datasheet, "Mode Definitions", "Read-Back Command".

use x86::platform::{PIT, PIT_HZ, PORT_B};
use x86_64::instructions::port::Port;

/// Counts in so many microseconds.
pub const fn ticks(microseconds: u64) -> u16 {
    let ticks = microseconds * PIT_HZ / 1_000_000;
    if ticks > 0xffff {
        0xffff
    } else if ticks == 0 {
        1
    } else {
        ticks as u16
    }
}

fn out(port: u16, value: u8) {
    // SAFETY: the timer can only cause interrupts.
    unsafe { Port::new(port).write(value) };
}

fn inp(port: u16) -> u8 {
    // SAFETY: as above.
    unsafe { Port::new(port).read() }
}

/// Counter 0, the one with the interrupt.
pub struct Channel0;

impl Channel0 {
    /// One interrupt after `count` (mode 0).
    pub fn one_shot(count: u16) {
        Self::load(0x30, count);
    }

    /// An interrupt each `count` (mode 2); 0 means 65,536.
    pub fn periodic(count: u16) {
        Self::load(0x34, count);
    }

    /// No further interrupt: a mode word stops the counter until a count is written.
    pub fn stop() {
        out(PIT + 3, 0x30);
    }

    fn load(mode: u8, count: u16) {
        out(PIT + 3, mode);
        out(PIT, count as u8);
        out(PIT, (count >> 8) as u8);
    }

    /// The count right now.
    pub fn count() -> u16 {
        out(PIT + 3, 0x00); // latch
        u16::from(inp(PIT)) | u16::from(inp(PIT)) << 8
    }
}

/// Counter 2 counting down once, speaker off.
pub struct Channel2;

impl Channel2 {
    /// Starts it (mode 0): its output, low now, goes high after `count`.
    pub fn start(count: u16) -> Self {
        out(PORT_B, (inp(PORT_B) & 0xfc) | 1); // gate on, speaker off
        out(PIT + 3, 0xb0);
        out(PIT + 2, count as u8);
        out(PIT + 2, (count >> 8) as u8);
        Self
    }

    /// Its output is high.
    pub fn expired(&self) -> bool {
        inp(PORT_B) & 0x20 != 0
    }

    /// The count right now; it goes on below 0 when it has expired.
    pub fn count(&self) -> u16 {
        out(PIT + 3, 0x80); // latch
        u16::from(inp(PIT + 2)) | u16::from(inp(PIT + 2)) << 8
    }
}
