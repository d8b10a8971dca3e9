//! One clock measured with another.
//!
//! Both are read at the beginning and at the end of an interval. Between the two reads of a pair the CPU may be taken away (a machine
//! monitor's thread is preempted), so a pair counts only if the TSC says that the reads were close together; the interval is repeated a few times
//! and the closest pairs win.
//!
//! To read more: Linux, arch/x86/kernel/tsc.c (quick PIT calibration).

use x86::apic::{Lvt, reg};
use x86::platform::{PIT_HZ, PM_TIMER_HZ};

use super::{hpet, pit, pm_timer, tsc};
use crate::chips::apic;
use crate::machine;

/// A free-running counter: how to read it, and how wide it is.
#[derive(Clone, Copy)]
pub struct Clock {
    /// Its name.
    pub name: &'static str,
    /// Reads it.
    pub read: fn() -> u64,
    /// Bits that count.
    pub mask: u64,
    /// It counts down.
    pub down: bool,
}

impl Clock {
    fn between(self, from: u64, to: u64) -> u64 {
        let ticks = if self.down { from.wrapping_sub(to) } else { to.wrapping_sub(from) };
        ticks & self.mask
    }
}

/// The TSC.
pub const TSC: Clock = Clock { name: "TSC", read: tsc::read, mask: u64::MAX, down: false };
/// The local APIC timer, which must have been started by [`start_apic_timer`].
pub const APIC_TIMER: Clock =
    Clock { name: "APIC timer", read: || apic::read(reg::TIMER_CURRENT).into(), mask: u32::MAX as u64, down: true };
/// The HPET's counter, of which 32 bits are enough.
pub const HPET: Clock = Clock { name: "HPET", read: hpet::count, mask: u32::MAX as u64, down: false };
/// The PIT's counter 2, which must have been started with the highest count.
pub const PIT: Clock = Clock { name: "PIT", read: || pit::Channel2.count().into(), mask: 0xffff, down: true };

/// The PM timer.
pub fn pm_clock() -> Clock {
    Clock { name: "PM timer", read: || pm_timer::read().into(), mask: pm_timer::mask().into(), down: false }
}

/// Starts the local APIC timer from its highest count, masked, divided by `1 << shift` (0 to 7).
pub fn start_apic_timer(shift: u8) {
    let divide = [0b1011, 0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010][usize::from(shift & 7)];
    apic::write(reg::TIMER_DIVIDE, divide);
    let lvt = Lvt::new().with_vector(crate::arch::vectors::LOCAL_TIMER).with_masked(true);
    apic::write(reg::LVT_TIMER, lvt.into_bits());
    apic::write(reg::TIMER_INITIAL, u32::MAX);
}

/// Ticks of two clocks in the same interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Of the first.
    pub first: u64,
    /// Of the second.
    pub second: u64,
}

/// Both clocks at nearly the same moment: the closest of a few tries, with the TSC's ticks between.
fn pair(first: Clock, second: Clock) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..8 {
        let before = tsc::read();
        let values = ((first.read)(), (second.read)());
        let took = tsc::read().wrapping_sub(before);
        if took < best.0 {
            best = (took, values.0, values.1);
        }
    }
    (best.1, best.2)
}

/// Two clocks that are being measured.
pub(crate) struct Interval {
    first: Clock,
    second: Clock,
    start: (u64, u64),
}

impl Interval {
    fn begin(first: Clock, second: Clock) -> Self {
        Self { first, second, start: pair(first, second) }
    }

    /// Ends it when the first has counted so many ticks since the beginning.
    fn end(self, ticks: u64) -> Measured {
        let Self { first, second, start } = self;
        while first.between(start.0, (first.read)()) < ticks {
            core::hint::spin_loop();
        }
        let end = pair(first, second);
        Measured { first: first.between(start.0, end.0), second: second.between(start.1, end.1) }
    }
}

/// Measures both clocks over about so many ticks of the first; that must be less than half of what either wraps at.
pub fn measure(first: Clock, second: Clock, ticks: u64) -> Measured {
    Interval::begin(first, second).end(ticks)
}

/// Begins to measure the TSC with the PM timer, if there is one: meanwhile the rest of the machine is set up.
pub(crate) fn begin() -> Option<Interval> {
    (machine::tables().pm_timer != 0).then(|| Interval::begin(pm_clock(), TSC))
}

/// Measures the TSC, over at least 10 ms since [`begin`]; with the PIT, which soon wraps, from now on. Called once at the start.
pub(crate) fn init(begun: Option<Interval>) {
    let (interval, hz) = match begun {
        Some(interval) => (interval, PM_TIMER_HZ),
        None => {
            pit::Channel2::start(0xffff);
            (Interval::begin(PIT, TSC), PIT_HZ)
        }
    };
    let measured = interval.end(hz / 100);
    if measured.first > 0 {
        tsc::set_hz((u128::from(measured.second) * u128::from(hz) / u128::from(measured.first)) as u64);
    }
}
