//! The machine's one clock.

use x86::Nanos;

/// Nanoseconds since the machine was made, from CLOCK_MONOTONIC; the same for every chip, device and vCPU.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
}

impl Clock {
    /// A clock that reads 0 now.
    pub fn start() -> Self {
        Self { start: sys::clock::monotonic_ns() }
    }

    /// The time.
    pub fn now(&self) -> Nanos {
        sys::clock::monotonic_ns().saturating_sub(self.start)
    }

    /// `at` as an absolute CLOCK_MONOTONIC time in nanoseconds, which timers and futexes want.
    pub fn host(&self, at: Nanos) -> u64 {
        self.start.saturating_add(at)
    }
}
