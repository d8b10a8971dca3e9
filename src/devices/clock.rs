//! Device clocks derived from the machine's time, and deadlines that bother the main loop only when they change.

use std::sync::Arc;

use x86::Nanos;
use x86::time::NANOS_PER_SEC;

use crate::traits::Alarm;

/// The least time from an edge of a timer to its next alarm, in nanoseconds: a tiny count must not make the host spin.
pub(crate) const MIN_INTERVAL: Nanos = 20_000;

/// How many whole ticks of a clock of `hz` (at most 1 GHz) have passed at `now`. Always computed from time zero, so
/// that nothing drifts.
pub(crate) fn ticks_at(now: Nanos, hz: u64) -> u64 {
    (u128::from(now) * u128::from(hz) / u128::from(NANOS_PER_SEC)) as u64
}

/// The first time at which `tick` ticks have passed, or the end of time.
pub(crate) fn time_of_tick(tick: u64, hz: u64) -> Nanos {
    let nanos = (u128::from(tick) * u128::from(NANOS_PER_SEC)).div_ceil(u128::from(hz));
    Nanos::try_from(nanos).unwrap_or(Nanos::MAX)
}

/// A device's alarm and what it is armed for.
pub(crate) struct Deadline {
    alarm: Arc<dyn Alarm>,
    armed: Option<Nanos>,
}

impl Deadline {
    pub(crate) fn new(alarm: Arc<dyn Alarm>) -> Self {
        Self { alarm, armed: None }
    }

    /// Arms for `at`; free when it is armed for that already.
    pub(crate) fn set(&mut self, at: Option<Nanos>) {
        if at != self.armed {
            self.armed = at;
            self.alarm.arm(at);
        }
    }

    /// The alarm went off: nothing is armed any more.
    pub(crate) fn fired(&mut self) {
        self.armed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86::platform::{PIT_HZ, PM_TIMER_HZ};

    #[test]
    fn a_tick_begins_exactly_when_it_is_counted() {
        for hz in [PIT_HZ, PM_TIMER_HZ, NANOS_PER_SEC, 1] {
            for tick in [1, 2, 3, 1000, 65_536, 1_193_182, 0x1_0000_0001] {
                let at = time_of_tick(tick, hz);
                assert_eq!(ticks_at(at, hz), tick, "{hz} Hz");
                assert_eq!(ticks_at(at - 1, hz), tick - 1, "{hz} Hz");
            }
        }
    }

    #[test]
    fn a_year_of_ticks_has_no_drift_and_the_end_of_time_no_overflow() {
        assert_eq!(ticks_at(365 * 86_400 * NANOS_PER_SEC, PIT_HZ), 365 * 86_400 * PIT_HZ);
        assert!(ticks_at(u64::MAX, NANOS_PER_SEC) == u64::MAX);
        assert_eq!(time_of_tick(u64::MAX, PIT_HZ), u64::MAX);
    }
}
