//! Where the time comes from.

use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that never goes back, in ns since some point in the past.
pub trait Clock: Send + Sync + 'static {
    /// The time now. Any thread.
    fn now(&self) -> u64;

    /// The time now or a little earlier (some ms), if that is cheaper to get.
    fn coarse(&self) -> u64 {
        self.now()
    }

    /// For how long the calling thread has had a processor, in ns; `None` if this clock can't tell.
    fn ran(&self) -> Option<u64> {
        None
    }
}

/// CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> u64 {
        sys::clock::monotonic_ns()
    }

    fn coarse(&self) -> u64 {
        sys::clock::monotonic_coarse_ns()
    }

    fn ran(&self) -> Option<u64> {
        Some(sys::clock::thread_cpu_ns())
    }
}

/// A clock that stands still until it is told to go on: for tests.
#[derive(Debug, Default)]
pub struct Stepped(AtomicU64);

impl Stepped {
    /// Goes on by `ns`.
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for Stepped {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
