//! High precision event timer (Intel, IA-PC HPET specification 1.0a, sections "Register Model" and "Theory of Operation").
//!
//! One 64-bit main counter of 100 MHz and [`TIMERS`] comparators, all periodic-capable and 64 bits wide. Timers 0 and 1
//! can replace the PIT and the RTC on their interrupts (legacy replacement); each can go to one of the I/O APIC pins
//! in [`ROUTES`], or send its interrupt as a message (FSB delivery), which goes before the other two.
//!
//! The counter is derived from the time of the access; comparators match when the device is looked at, and the alarm
//! asks for a look at the next match that somebody would notice. After a stop there is one edge for all matches missed, in
//! phase with the program, and no alarm comes sooner than 20 us after an edge.
//!
//! An edge on an I/O APIC pin is a pulse. On the legacy interrupts the line stays up until just before the next edge: the 8259A
//! wants its input high until the acknowledge.
//!
//! A match is an equality, as in hardware: a comparator that the counter has just passed waits for the next turn of the
//! counter. A comparator written the very value that the counter has doesn't match it.
//!
//! Not modelled: writes of the main counter while it runs (they are ignored; software "should" halt it first), accesses
//! other than aligned ones of 4 and 8 bytes (writes are ignored, reads give the bytes).

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod timer;

use std::sync::Arc;

use irqchip::line::{Line, Msi, Switch};
use x86::{Nanos, platform};

use crate::clock::{Deadline, MIN_INTERVAL};
use crate::traits::{Alarm, BusDevice, TimedDevice};
use timer::Timer;

/// Length of the register block in bytes.
pub const WINDOW: u64 = 0x400;
/// Number of comparators.
pub const TIMERS: usize = 4;
/// First I/O APIC pin that a timer can be routed to, and how many there are.
const FIRST_ROUTE: u32 = platform::GSI_HPET as u32;
const PINS: usize = 4;
/// Routing capability of each timer: bit n stands for I/O APIC pin n.
pub const ROUTES: u32 = 0xf << FIRST_ROUTE;

/// Low half of the capabilities, which the ACPI table repeats: vendor, legacy replacement, 64-bit counter, number of
/// the last timer, revision.
pub const BLOCK_ID: u32 = 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u32 - 1) << 8 | 1;
/// Main counter period, 10 ns in femtoseconds.
const PERIOD_FS: u64 = 10_000_000;
/// The same in nanoseconds.
const TICK: Nanos = 10;

const CAPABILITIES: u64 = 0x000;
const CONFIGURATION: u64 = 0x010;
const STATUS: u64 = 0x020;
const MAIN_COUNTER: u64 = 0x0f0;
const FIRST_TIMER: u64 = 0x100;
const TIMER_STRIDE: u64 = 0x20;

const ENABLE: u64 = 1 << 0;
const LEGACY_REPLACEMENT: u64 = 1 << 1;
/// Timers 0 and 1 stand in for the PIT and the RTC.
const LEGACY_TIMERS: usize = 2;

/// Where the interrupts go.
pub struct Outputs {
    /// ISA IRQ 0 and IRQ 8.
    pub legacy: [Line; LEGACY_TIMERS],
    /// The ways there of the PIT and the RTC, open while the timers have their interrupts.
    pub replaced: [Arc<Switch>; LEGACY_TIMERS],
    /// The I/O APIC pins of [`ROUTES`], lowest first.
    pub pins: [Line; PINS],
    /// Messages.
    pub msi: Msi,
}

/// The way an interrupt of a timer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Message,
    Legacy(usize),
    Pin(usize),
    /// It is routed to a pin that it can't reach.
    Nowhere,
}

/// The register block.
pub struct Hpet {
    configuration: u64,
    counter: u64,
    /// The tick, counted from time zero, that `counter` is for.
    tick: u64,
    timers: [Timer; TIMERS],
    outputs: Outputs,
    deadline: Deadline,
}

impl Hpet {
    /// Registers after reset: counter halted at 0, interrupts off, PIT and RTC in their places.
    pub fn new(outputs: Outputs, alarm: Arc<dyn Alarm>) -> Self {
        Self {
            configuration: 0,
            counter: 0,
            tick: 0,
            timers: std::array::from_fn(|_| Timer::new()),
            outputs,
            deadline: Deadline::new(alarm),
        }
    }

    /// A timer will match, and its message then is an NMI or an INIT.
    pub fn can_give_nmi(&self) -> bool {
        self.timers.iter().any(|timer| {
            let sends = self.runs() && timer.interrupts() && timer.sends_messages();
            sends
                && Msi::gets_through(timer.fsb_address().into(), timer.fsb_value())
                && self.next_match(timer).is_some()
        })
    }

    /// When `timer` matches next; `None` beyond the end of time.
    fn next_match(&self, timer: &Timer) -> Option<Nanos> {
        let tick = timer.ticks_to_match(self.counter).and_then(|ticks| self.tick.checked_add(ticks));
        tick.and_then(|tick| tick.checked_mul(TICK))
    }

    fn runs(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    fn way(&self, index: usize) -> Way {
        let timer = &self.timers[index];
        if timer.sends_messages() {
            Way::Message
        } else if self.configuration & LEGACY_REPLACEMENT != 0 && index < LEGACY_TIMERS {
            Way::Legacy(index)
        } else {
            match timer.route().checked_sub(FIRST_ROUTE) {
                Some(pin) if (pin as usize) < PINS => Way::Pin(pin as usize),
                _ => Way::Nowhere,
            }
        }
    }

    /// Brings the counter to `now`; what matched on the way interrupts.
    fn advance(&mut self, now: Nanos) {
        let tick = now / TICK;
        let Some(passed) = tick.checked_sub(self.tick) else { return };
        self.tick = tick;
        if passed == 0 || !self.runs() {
            return;
        }
        for index in 0..TIMERS {
            if self.timers[index].pass(self.counter, passed) {
                self.matched(now, index);
            }
        }
        self.counter = self.counter.wrapping_add(passed);
    }

    fn matched(&mut self, now: Nanos, index: usize) {
        let way = self.way(index);
        let timer = &mut self.timers[index];
        if timer.is_level() {
            timer.status = true;
        }
        if !timer.interrupts() {
            return;
        }
        timer.not_before = now.saturating_add(MIN_INTERVAL);
        match way {
            Way::Message => self.outputs.msi.send(timer.fsb_address().into(), timer.fsb_value()),
            _ if timer.is_level() => {}
            Way::Legacy(n) => {
                timer.held = true;
                self.outputs.legacy[n].set(false);
                self.outputs.legacy[n].set(true);
            }
            // A level on the same pin hides it, as it would on the wire.
            Way::Pin(n) if !self.outputs.pins[n].level() => self.outputs.pins[n].pulse(),
            Way::Pin(_) | Way::Nowhere => {}
        }
    }

    /// Brings lines, switches and alarm in step with the registers.
    fn settle(&mut self) {
        let replaces = self.configuration & LEGACY_REPLACEMENT != 0;
        let mut legacy = [false; LEGACY_TIMERS];
        let mut pins = [false; PINS];
        let mut next: Option<Nanos> = None;
        for index in 0..TIMERS {
            let way = self.way(index);
            let works = self.runs() && self.timers[index].interrupts();
            let timer = &mut self.timers[index];
            timer.held &= works && !timer.is_level() && matches!(way, Way::Legacy(_));
            let level = works && (timer.is_level() && timer.status || timer.held);
            match way {
                Way::Legacy(n) => legacy[n] = level,
                Way::Pin(n) => pins[n] |= level,
                Way::Message | Way::Nowhere => {}
            }
            // A match that changes nothing is not waited for.
            let idle = match way {
                Way::Message => false,
                Way::Nowhere => true,
                Way::Legacy(_) | Way::Pin(_) => timer.is_level() && timer.status,
            };
            if works && !idle {
                let timer = &self.timers[index];
                let at = self.next_match(timer).map(|at| at.max(timer.not_before));
                next = [next, at].into_iter().flatten().min();
            }
        }
        // First the old source goes, then the new one comes.
        for (n, level) in legacy.into_iter().enumerate() {
            if replaces {
                self.outputs.replaced[n].set_closed(false);
            }
            self.outputs.legacy[n].set(level);
            if !replaces {
                self.outputs.replaced[n].set_closed(true);
            }
        }
        for (line, level) in self.outputs.pins.iter_mut().zip(pins) {
            line.set(level);
        }
        self.deadline.set(next);
    }

    /// The register at `offset`, a multiple of 8.
    fn register(&self, offset: u64) -> u64 {
        match offset {
            CAPABILITIES => PERIOD_FS << 32 | u64::from(BLOCK_ID),
            CONFIGURATION => self.configuration,
            STATUS => self.timers.iter().enumerate().fold(0, |bits, (n, timer)| bits | u64::from(timer.status) << n),
            MAIN_COUNTER => self.counter,
            _ => timer_at(offset).map_or(0, |(n, register)| self.timers[n].read(register)),
        }
    }

    /// Writes the bits of `mask` of the register at `offset`, a multiple of 8.
    fn write_register(&mut self, offset: u64, value: u64, mask: u64) {
        match offset {
            CONFIGURATION => {
                self.configuration = merge(self.configuration, value, mask) & (ENABLE | LEGACY_REPLACEMENT);
            }
            STATUS => {
                for (n, timer) in self.timers.iter_mut().enumerate() {
                    timer.status &= (value & mask) >> n & 1 == 0;
                }
            }
            MAIN_COUNTER if !self.runs() => self.counter = merge(self.counter, value, mask),
            _ => {
                if let Some((n, register)) = timer_at(offset) {
                    self.timers[n].write(register, value, mask);
                }
            }
        }
    }
}

impl BusDevice for Hpet {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        self.advance(now);
        self.settle();
        // An access has at most 8 bytes, so it is in this register and the next.
        let first = offset & !7;
        let registers = [self.register(first), first.checked_add(8).map_or(0, |next| self.register(next))];
        let bytes = registers.into_iter().flat_map(u64::to_le_bytes).skip((offset & 7) as usize);
        for (byte, value) in data.iter_mut().zip(bytes) {
            *byte = value;
        }
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        self.advance(now);
        match *data {
            [a, b, c, d] if offset.is_multiple_of(4) => {
                let shift = 8 * (offset & 4);
                let value = u64::from(u32::from_le_bytes([a, b, c, d]));
                self.write_register(offset & !7, value << shift, u64::from(u32::MAX) << shift);
            }
            [a, b, c, d, e, f, g, h] if offset.is_multiple_of(8) => {
                self.write_register(offset, u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::MAX);
            }
            _ => {}
        }
        self.settle();
    }
}

impl TimedDevice for Hpet {
    fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        self.advance(now);
        self.settle();
    }
}

/// The timer, and the offset in its block, of a register.
fn timer_at(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(FIRST_TIMER)?;
    let index = usize::try_from(offset / TIMER_STRIDE).ok()?;
    (index < TIMERS).then_some((index, offset % TIMER_STRIDE))
}

fn merge(old: u64, new: u64, mask: u64) -> u64 {
    old & !mask | new & mask
}
