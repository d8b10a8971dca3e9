//! The reference timer (section "APIC Timer"): a down counter that is walked, not computed.

use crate::choices::*;

/// Walks of more steps than this are shortened by whole periods.
const LONG_WALK: u64 = 64;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefTimer {
    /// LVT bits 18:17.
    pub mode: u8,
    pub initial: u32,
    pub divide: u8,
    /// When the count under way reaches 0.
    end: Option<u64>,
    pub tsc: u64,
}

impl RefTimer {
    /// Figure "Divide Configuration Register".
    fn clocks_per_count(&self) -> u64 {
        match (self.divide >> 3 & 1, self.divide & 3) {
            (0, 0) => 2,
            (0, 1) => 4,
            (0, 2) => 8,
            (0, _) => 16,
            (_, 0) => 32,
            (_, 1) => 64,
            (_, 2) => 128,
            (_, _) => 1,
        }
    }

    pub fn period(&self) -> u64 {
        (self.initial as u64 * self.clocks_per_count()).max(SHORTEST_PERIOD)
    }

    pub fn set_mode(&mut self, mode: u8) {
        let crossing = (mode == 2) != (self.mode == 2);
        if crossing || (mode != self.mode && ONE_SHOT_TO_PERIODIC_DISARMS) {
            self.end = None;
            self.tsc = 0;
        }
        if crossing && CROSSING_CLEARS_INITIAL_COUNT {
            self.initial = 0;
        }
        self.mode = mode;
    }

    pub fn set_initial(&mut self, ns: u64, count: u32) {
        if self.mode == 2 {
            return;
        }
        self.initial = count;
        self.end = match (count, self.mode) {
            (0, _) => None,
            (_, 1) => Some(ns + self.period()),
            (_, _) => Some(ns + count as u64 * self.clocks_per_count()),
        };
    }

    pub fn current(&self, ns: u64) -> u32 {
        let Some(end) = self.end else { return 0 };
        if ns >= end {
            return 0;
        }
        let clocks = self.clocks_per_count();
        // A count that has begun still shows.
        let left = (end - ns).div_ceil(clocks);
        left.min(self.initial as u64) as u32
    }

    pub fn set_divide(&mut self, ns: u64, bits: u32) {
        let new = (bits & 0b1011) as u8;
        if new == self.divide {
            return;
        }
        // What is left of a count starts anew, at the new rate.
        let left = self.current(ns) as u64;
        self.divide = new;
        match self.end {
            Some(end) if end > ns || LATE_DIVIDE_MOVES_THE_END => {
                self.end = Some(ns + left * self.clocks_per_count());
            }
            _ => {}
        }
    }

    pub fn set_tsc_deadline(&mut self, value: u64) {
        if self.mode == 2 {
            self.tsc = value;
        }
    }

    /// The next moment of interest: (in TSC units, when).
    pub fn next(&self) -> Option<(bool, u64)> {
        if self.tsc != 0 {
            return Some((true, self.tsc));
        }
        self.end.map(|end| (false, end))
    }

    pub fn expire(&mut self, ns: u64, tsc: u64) -> bool {
        if self.tsc != 0 {
            if tsc < self.tsc {
                return false;
            }
            self.tsc = 0;
            return true;
        }
        let Some(mut end) = self.end else { return false };
        if ns < end {
            return false;
        }
        self.end = None;
        if self.mode == 1 {
            let period = self.period();
            if (ns - end) / period > LONG_WALK {
                end += (ns - end) / period * period;
            }
            while end <= ns {
                end += period;
            }
            self.end = Some(end);
        }
        true
    }
}
