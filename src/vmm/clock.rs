//! The machine's one clock.

use std::sync::atomic::{AtomicU64, Ordering};

use x86::Nanos;

/// Nanoseconds since the machine was made, from CLOCK_MONOTONIC; the same for every chip, device and vCPU.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    stepped: Option<&'static AtomicU64>,
}

impl Clock {
    /// A clock that reads 0 now.
    pub fn start() -> Self {
        Self { start: sys::clock::monotonic_ns(), stepped: None }
    }

    /// A clock that shows what `time` holds: for a machine that nobody runs but a test.
    pub fn stepped(time: &'static AtomicU64) -> Self {
        Self { stepped: Some(time), ..Self::start() }
    }

    /// The time.
    pub fn now(&self) -> Nanos {
        match self.stepped {
            None => sys::clock::monotonic_ns().saturating_sub(self.start),
            Some(time) => time.load(Ordering::Relaxed),
        }
    }

    /// `at` as an absolute CLOCK_MONOTONIC time in nanoseconds, which timers and futexes want.
    pub fn host(&self, at: Nanos) -> u64 {
        self.start.saturating_add(at)
    }
}
