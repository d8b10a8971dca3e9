//! The local APIC timer (Intel SDM vol. 3A, section "APIC Timer"): one-shot, periodic and TSC-deadline.
//!
//! The input clock ticks once a nanosecond (`platform::APIC_TIMER_HZ`), so a count is a duration after the divide
//! shift. Deadlines are absolute: the next one comes from the one before, not from when it was noticed, and a stop of
//! any length costs one interrupt, never a burst of missed ones.

use fault::Fault;
use x86::Nanos;
use x86::apic::TimerMode;

use super::state::TimerState;

/// The shortest period in periodic mode; shorter ones are stretched, so that a guest can't keep its host busy with
/// nothing but expiries. In one-shot mode each expiry costs the guest a register write: no bound is needed.
pub const MIN_PERIOD: Nanos = 100_000;

/// The moment, passed by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The machine's clock.
    pub ns: Nanos,
    /// This vCPU's time-stamp counter as its guest reads it.
    pub tsc: u64,
}

/// When the timer next wants to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// On the machine's clock.
    At(Nanos),
    /// When the guest's TSC reaches this.
    Tsc(u64),
}

impl Deadline {
    /// The deadline has come.
    pub fn is_due(self, now: Now) -> bool {
        match self {
            Self::At(at) => now.ns >= at,
            Self::Tsc(tsc) => now.tsc >= tsc,
        }
    }
}

/// The timer's state; the LVT entry's vector and mask are the local APIC's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    mode: TimerMode,
    initial: u32,
    divide: u32,
    /// When the current count reaches 0; `None` when stopped.
    deadline: Option<Nanos>,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    tsc_deadline: u64,
}

impl Default for Timer {
    fn default() -> Self {
        Self { mode: TimerMode::OneShot, initial: 0, divide: 0, deadline: None, tsc_deadline: 0 }
    }
}

impl Timer {
    /// Follows the mode of the LVT entry. Crossing between TSC-deadline and the counting modes disarms (section
    /// "TSC-Deadline Mode"). Between one-shot and periodic the count goes on and ends by the new mode's rule: the
    /// section's "a write to the LVT Timer Register that changes the timer mode disarms" is not what processors do
    /// there, nor what guests that switch in mid-count expect.
    pub fn set_mode(&mut self, mode: TimerMode) {
        let was = std::mem::replace(&mut self.mode, mode);
        if (was == TimerMode::TscDeadline) != (mode == TimerMode::TscDeadline) {
            self.initial = 0;
            self.deadline = None;
            self.tsc_deadline = 0;
        }
    }

    /// The initial-count register.
    pub fn initial(&self) -> u32 {
        self.initial
    }

    /// Writes the initial count: starts, or with 0 stops. Ignored in TSC-deadline mode.
    pub fn set_initial(&mut self, now: Nanos, count: u32) {
        if self.mode == TimerMode::TscDeadline {
            return;
        }
        if count == 0 && fault::is(Fault::ZeroCountGoesOn) {
            return;
        }
        self.initial = count;
        let early = if fault::is(Fault::TimerEarly) { self.period() / 16 } else { 0 };
        self.deadline = (count != 0).then(|| now.saturating_add(self.period() - early));
    }

    /// The current count; 0 when stopped and in TSC-deadline mode.
    pub fn current(&self, now: Nanos) -> u32 {
        let Some(deadline) = self.deadline else { return 0 };
        let left = deadline.saturating_sub(now);
        // A stretched period would show more than the initial count.
        let ticks = left.div_ceil(1 << self.shift());
        u32::try_from(ticks).unwrap_or(u32::MAX).min(self.initial)
    }

    /// The divide configuration register.
    pub fn divide(&self) -> u32 {
        self.divide
    }

    /// Writes the divide configuration; a count under way keeps its ticks, which now take longer or shorter.
    pub fn set_divide(&mut self, now: Nanos, value: u32) {
        if value & 0b1011 == self.divide {
            return;
        }
        let left = self.current(now);
        self.divide = value & 0b1011;
        if let Some(deadline) = &mut self.deadline {
            *deadline = now.saturating_add(u64::from(left) << shift(self.divide));
        }
    }

    /// IA32_TSC_DEADLINE: 0 when disarmed, fired, or not in TSC-deadline mode.
    pub fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE: arms, or with 0 disarms. Ignored in the other modes.
    pub fn set_tsc_deadline(&mut self, value: u64) {
        let ignored = value == 0 && fault::is(Fault::ZeroDeadlineGoesOn);
        if self.mode == TimerMode::TscDeadline && !ignored {
            self.tsc_deadline = value;
        }
    }

    /// When [`Timer::expire`] next has something to do.
    pub fn next_deadline(&self) -> Option<Deadline> {
        match self.tsc_deadline {
            0 => self.deadline.map(Deadline::At),
            tsc => Some(Deadline::Tsc(tsc)),
        }
    }

    /// Whether the timer fires at `now`; sets up the next period, or stops.
    #[must_use]
    pub fn expire(&mut self, now: Now) -> bool {
        if !self.next_deadline().is_some_and(|deadline| deadline.is_due(now)) {
            return false;
        }
        match self.mode {
            TimerMode::TscDeadline => self.tsc_deadline = 0,
            TimerMode::Periodic if !fault::is(Fault::PeriodicTimerStops) => {
                let period = self.period();
                self.deadline = self.deadline.map(|at| {
                    let missed = (now.ns - at) / period;
                    at.saturating_add((missed + 1).saturating_mul(period))
                });
            }
            _ => self.deadline = None,
        }
        true
    }

    /// Its state; the mode is the LVT entry's.
    pub fn save(&self) -> TimerState {
        let Self { mode: _, initial, divide, deadline, tsc_deadline } = *self;
        TimerState { initial, divide, deadline, tsc_deadline }
    }

    /// The timer that was saved, if there can be one.
    pub fn restore(mode: TimerMode, state: &TimerState) -> Option<Self> {
        let TimerState { initial, divide, deadline, tsc_deadline } = *state;
        let by_tsc = mode == TimerMode::TscDeadline;
        let fits = divide & !0b1011 == 0
            && (by_tsc || tsc_deadline == 0)
            && (!by_tsc || (initial == 0 && deadline.is_none()))
            && (initial != 0 || deadline.is_none());
        fits.then_some(Self { mode, initial, divide, deadline, tsc_deadline })
    }

    fn shift(&self) -> u32 {
        shift(self.divide)
    }

    fn period(&self) -> Nanos {
        let period = u64::from(self.initial) << self.shift();
        if self.mode == TimerMode::Periodic { period.max(MIN_PERIOD) } else { period.max(1) }
    }
}

/// Divide configuration bits 3, 1 and 0 to a shift: 000b divides by 2 … 110b by 128, 111b by 1.
fn shift(divide: u32) -> u32 {
    ((divide & 0b11 | (divide & 0b1000) >> 1) + 1) & 0b111
}
