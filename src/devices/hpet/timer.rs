//! One comparator: its registers, and when it matches.

use fault::Fault;
use x86::Nanos;

use super::{ROUTES, merge};

const CONFIGURATION: u64 = 0x00;
const COMPARATOR: u64 = 0x08;
const FSB_ROUTE: u64 = 0x10;

const LEVEL: u64 = 1 << 1;
const INTERRUPT_ENABLE: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const PERIODIC_CAPABLE: u64 = 1 << 4;
const SIZE_64: u64 = 1 << 5;
const VALUE_SET: u64 = 1 << 6;
const MODE_32: u64 = 1 << 8;
const ROUTE_SHIFT: u32 = 9;
const ROUTE: u64 = 0x1f << ROUTE_SHIFT;
const FSB_ENABLE: u64 = 1 << 14;
const FSB_CAPABLE: u64 = 1 << 15;

const WRITABLE: u64 = LEVEL | INTERRUPT_ENABLE | PERIODIC | VALUE_SET | MODE_32 | ROUTE | FSB_ENABLE;
const FIXED: u64 = PERIODIC_CAPABLE | SIZE_64 | FSB_CAPABLE | (ROUTES as u64) << 32;

/// A comparator.
pub(super) struct Timer {
    /// The writable bits.
    configuration: u64,
    comparator: u64,
    /// What was written last, which a periodic comparator is increased by at each match.
    period: u64,
    /// Value and address of the message.
    fsb: u64,
    /// Level-triggered: matched, and not cleared yet.
    pub(super) status: bool,
    /// Edge-triggered on a legacy interrupt: the line is up since the last edge.
    pub(super) held: bool,
    /// No alarm before this.
    pub(super) not_before: Nanos,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self {
            configuration: 0,
            comparator: u64::MAX,
            period: u64::MAX,
            fsb: 0,
            status: false,
            held: false,
            not_before: 0,
        }
    }

    fn has(&self, bit: u64) -> bool {
        self.configuration & bit != 0
    }

    pub(super) fn is_level(&self) -> bool {
        self.has(LEVEL)
    }

    pub(super) fn interrupts(&self) -> bool {
        self.has(INTERRUPT_ENABLE)
    }

    pub(super) fn sends_messages(&self) -> bool {
        self.has(FSB_ENABLE)
    }

    /// The I/O APIC pin.
    pub(super) fn route(&self) -> u32 {
        ((self.configuration & ROUTE) >> ROUTE_SHIFT) as u32
    }

    pub(super) fn fsb_address(&self) -> u32 {
        (self.fsb >> 32) as u32
    }

    pub(super) fn fsb_value(&self) -> u32 {
        self.fsb as u32
    }

    /// The bits of the main counter that are compared.
    fn width(&self) -> u64 {
        if self.has(MODE_32) { u32::MAX.into() } else { u64::MAX }
    }

    pub(super) fn read(&self, register: u64) -> u64 {
        match register {
            CONFIGURATION => self.configuration | FIXED,
            COMPARATOR => self.comparator,
            FSB_ROUTE => self.fsb,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, register: u64, value: u64, mask: u64) {
        match register {
            CONFIGURATION => self.configure(merge(self.configuration, value, mask) & WRITABLE),
            COMPARATOR => self.compare(value, mask),
            FSB_ROUTE => self.fsb = merge(self.fsb, value, mask),
            _ => {}
        }
    }

    fn configure(&mut self, mut new: u64) {
        if ROUTES >> ((new & ROUTE) >> ROUTE_SHIFT) & 1 == 0 {
            // "If the value is not supported by this particular timer, then the value read back will not match".
            new = new & !ROUTE | self.configuration & ROUTE;
        }
        if new & PERIODIC == 0 {
            // It is for periodic timers only.
            new &= !VALUE_SET;
        }
        self.configuration = new;
        self.comparator &= self.width();
        self.period &= self.width();
    }

    /// A write of the comparator register. A periodic timer's is the period, and the comparator too if that was asked for.
    fn compare(&mut self, value: u64, mask: u64) {
        let mask = mask & self.width();
        if mask == 0 {
            return;
        }
        self.period = merge(self.period, value, mask);
        if !self.has(PERIODIC) || self.has(VALUE_SET) {
            self.comparator = merge(self.comparator, value, mask);
            self.configuration &= !VALUE_SET;
        }
    }

    /// How far the counter has to go from `counter` to the next match: one turn if it is there.
    fn distance(&self, counter: u64) -> u128 {
        match self.comparator.wrapping_sub(counter) & self.width() {
            0 => u128::from(self.width()) + 1,
            ticks => ticks.into(),
        }
    }

    /// The same, or `None` beyond the end of time.
    pub(super) fn ticks_to_match(&self, counter: u64) -> Option<u64> {
        self.distance(counter).try_into().ok()
    }

    /// The main counter went `ticks` further from `counter`; whether it matched, at least once.
    pub(super) fn pass(&mut self, counter: u64, ticks: u64) -> bool {
        let Some(beyond) = u128::from(ticks).checked_sub(self.distance(counter)) else { return false };
        if self.has(PERIODIC) {
            let step = match self.period {
                // It comes to the same comparator again after a turn.
                0 => u128::from(self.width()) + 1,
                period => period.into(),
            };
            // As many periods as were passed; a turn's worth of them is none, so what is cut off doesn't count.
            let matches = (1 + beyond / step) as u64;
            self.comparator = self.comparator.wrapping_add(self.period.wrapping_mul(matches)) & self.width();
        }
        self.has(PERIODIC) || !fault::is(Fault::HpetMatchMissed)
    }
}
