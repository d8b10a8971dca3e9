//! The time-stamp counter: each CPU's own, read by one instruction.
//!
//! To read more: Intel SDM vol. 3B, "Time-Stamp Counter".

use core::sync::atomic::{AtomicU64, Ordering};

/// Ticks a second, 0 before it was measured.
static HZ: AtomicU64 = AtomicU64::new(0);

/// The counter.
pub fn read() -> u64 {
    // SAFETY: every processor with 64-bit mode has it, and the kernel runs in ring 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ticks a second.
pub fn hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

pub(super) fn set_hz(hz: u64) {
    HZ.store(hz, Ordering::Relaxed);
}

/// Nanoseconds in so many ticks.
pub fn nanoseconds(ticks: u64) -> u64 {
    match hz() {
        0 => 0,
        hz => (u128::from(ticks) * 1_000_000_000 / u128::from(hz)) as u64,
    }
}
