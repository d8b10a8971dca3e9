//! Clock hardware: a PC has half a dozen sources, each with its own idea of time.
//!
//! | source | what it is good for |
//! |---|---|
//! | PIT | always there, known frequency |
//! | PM timer | known frequency, one port read |
//! | RTC | wall clock; periodic, alarm and update interrupts |
//! | HPET | says its own frequency |
//! | TSC | fast, every CPU has one; its frequency must be measured |
//! | local APIC timer | every CPU's own interrupt; its frequency must be measured |
//!
//! What the kernel makes of them: [`clock`], the [`tick`], and two kinds of timers, [`timer`] and [`hrtimer`].
//!
//! Before anything is known, [`wait_until`] measures patience with the PM timer, or the PIT where there is none.

pub mod calibrate;
pub mod clock;
pub mod hpet;
pub mod hrtimer;
pub mod pit;
pub mod pm_timer;
pub mod rtc;
pub mod tick;
pub mod timer;
pub mod tsc;
pub mod wheel;

use crate::machine;

/// Waits until `done`, at most so many microseconds of wall time; true if it is done.
pub fn wait_until(microseconds: u64, done: impl Fn() -> bool) -> bool {
    if machine::tables().pm_timer != 0 {
        let mut watch = pm_timer::Stopwatch::start();
        while !done() {
            if watch.microseconds() > microseconds {
                return done();
            }
            core::hint::spin_loop();
        }
        return true;
    }
    // Channel 2 in steps of at most 50 ms.
    let mut left = microseconds;
    while left > 0 {
        let step = left.min(50_000);
        let timer = pit::Channel2::start(pit::ticks(step));
        while !timer.expired() {
            if done() {
                return true;
            }
            core::hint::spin_loop();
        }
        left -= step;
    }
    done()
}

/// Waits so many microseconds of wall time.
pub fn delay(microseconds: u64) {
    wait_until(microseconds, || false);
}
