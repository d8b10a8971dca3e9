//! The clocks of the kernel: **monotonic** time since the start, **real** time as people know it, both in nanoseconds; a thread's
//! CPU time is [`crate::sched::Task::cpu_time`].
//!
//! Between two looks the TSC says how much time has passed; a multiplication and a shift make nanoseconds of ticks. Real time is
//! monotonic time and an offset, read once from the RTC, so setting it does not disturb who measures time.
//!
//! To read more: Linux, Documentation/core-api/timekeeping.rst; kernel/time/timekeeping.c; clock_gettime(2).

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use super::{rtc, tsc};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The TSC when time began.
static BASE: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds in 2^32 ticks of the TSC.
static TO_NANOSECONDS: AtomicU64 = AtomicU64::new(0);
/// Ticks of the TSC in 2^32 ns.
static TO_TICKS: AtomicU64 = AtomicU64::new(0);
/// The latest time that anybody has read: CPUs may differ a little.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// Real time less monotonic time.
static REAL_OFFSET: AtomicU64 = AtomicU64::new(0);

/// Time begins. The TSC's rate is known.
pub(crate) fn init() {
    let hz = u128::from(tsc::hz().max(1));
    BASE.store(tsc::read(), Ordering::Relaxed);
    TO_NANOSECONDS.store(((u128::from(SECOND) << 32) / hz) as u64, Ordering::Relaxed);
    TO_TICKS.store(((hz << 32) / u128::from(SECOND)) as u64, Ordering::Relaxed);
}

fn scale(value: u64, factor: &AtomicU64) -> u64 {
    ((u128::from(value) * u128::from(factor.load(Ordering::Relaxed))) >> 32) as u64
}

/// Nanoseconds since the start; never goes back, on no CPU.
pub fn monotonic() -> u64 {
    let ticks = tsc::read().saturating_sub(BASE.load(Ordering::Relaxed));
    let now = scale(ticks, &TO_NANOSECONDS);
    now.max(LATEST.fetch_max(now, Ordering::Relaxed))
}

/// The TSC at this monotonic time, not before it.
pub(super) fn tsc_at(monotonic: u64) -> u64 {
    BASE.load(Ordering::Relaxed) + scale(monotonic, &TO_TICKS) + 2
}

/// Nanoseconds since 1970-01-01 00:00:00 UTC.
pub fn real() -> u64 {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| set_real(rtc::since_epoch() * SECOND));
    monotonic() + REAL_OFFSET.load(Ordering::Relaxed)
}

/// Sets real time. Monotonic time goes on as it was.
pub fn set_real(now: u64) {
    REAL_OFFSET.store(now.saturating_sub(monotonic()), Ordering::Relaxed);
}
