//! The register block against a plain model that lives from tick to tick.
//!
//! The model knows nothing of distances, deadlines or missed periods: each tick it increments the counter and compares.
//! Programs are random; time goes in steps small enough for that, and the counter is set near the ends of 32 and 64
//! bits.

use proptest::prelude::*;
use x86::Nanos;

use super::TIMERS;
use super::tests::{FSB, INTERRUPTS, LEVEL, MODE_32, PERIODIC, VALUE_SET, comparator, config, fsb, route, setup};
use crate::clock::MIN_INTERVAL;
use crate::traits::TimedDevice;

const TICK: Nanos = 10;
const WRITABLE: u64 = LEVEL | INTERRUPTS | PERIODIC | VALUE_SET | MODE_32 | FSB | route_mask();

const fn route_mask() -> u64 {
    0x1f << 9
}

#[derive(Default)]
struct ModelTimer {
    config: u64,
    comparator: u64,
    last_written: u64,
    status: bool,
    /// An edge that keeps a legacy interrupt up.
    held: bool,
}

impl ModelTimer {
    fn has(&self, bit: u64) -> bool {
        self.config & bit != 0
    }

    fn cut(&self, value: u64) -> u64 {
        if self.has(MODE_32) { u64::from(value as u32) } else { value }
    }
}

/// What a timer did to the outside during a stretch of time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    messages: bool,
    edges: bool,
}

struct Model {
    enabled: bool,
    legacy: bool,
    counter: u64,
    timers: [ModelTimer; TIMERS],
}

impl Model {
    fn new() -> Self {
        let timer = || ModelTimer { comparator: u64::MAX, last_written: u64::MAX, ..ModelTimer::default() };
        Self { enabled: false, legacy: false, counter: 0, timers: std::array::from_fn(|_| timer()) }
    }

    /// Whether its interrupts go to IRQ 0 or 8.
    fn is_legacy(&self, n: usize) -> bool {
        self.legacy && n < 2 && !self.timers[n].has(FSB)
    }

    fn works(&self, n: usize) -> bool {
        self.enabled && self.timers[n].has(INTERRUPTS)
    }

    fn tick(&mut self, seen: &mut [Seen; TIMERS]) {
        if !self.enabled {
            return;
        }
        self.counter = self.counter.wrapping_add(1);
        for (n, seen) in seen.iter_mut().enumerate() {
            let is_legacy = self.is_legacy(n);
            let timer = &mut self.timers[n];
            if timer.cut(self.counter) != timer.comparator {
                continue;
            }
            if timer.has(PERIODIC) {
                timer.comparator = timer.cut(timer.comparator.wrapping_add(timer.last_written));
            }
            timer.status |= timer.has(LEVEL);
            if timer.has(INTERRUPTS) {
                seen.messages |= timer.has(FSB);
                seen.edges |= !timer.has(FSB) && !timer.has(LEVEL);
                timer.held |= is_legacy && !timer.has(LEVEL);
            }
        }
    }

    fn set_global(&mut self, value: u64) {
        self.enabled = value & 1 != 0;
        self.legacy = value & 2 != 0;
        self.drop_held();
    }

    fn set_config(&mut self, n: usize, value: u64) {
        let timer = &mut self.timers[n];
        let mut new = value & WRITABLE;
        if !(20..24).contains(&(new >> 9 & 0x1f)) {
            new = new & !route_mask() | timer.config & route_mask();
        }
        if new & PERIODIC == 0 {
            new &= !VALUE_SET;
        }
        timer.config = new;
        timer.comparator = timer.cut(timer.comparator);
        timer.last_written = timer.cut(timer.last_written);
        self.drop_held();
    }

    fn set_comparator(&mut self, n: usize, value: u64) {
        let timer = &mut self.timers[n];
        timer.last_written = timer.cut(value);
        if !timer.has(PERIODIC) || timer.has(VALUE_SET) {
            timer.comparator = timer.last_written;
        }
        timer.config &= !VALUE_SET;
    }

    fn drop_held(&mut self) {
        for n in 0..TIMERS {
            let keeps = self.works(n) && self.is_legacy(n) && !self.timers[n].has(LEVEL);
            self.timers[n].held &= keeps;
        }
    }

    /// The levels of IRQ 0 and 8 and of the pins.
    fn levels(&self) -> ([bool; 2], [bool; 4]) {
        let (mut legacy, mut pins) = ([false; 2], [false; 4]);
        for (n, timer) in self.timers.iter().enumerate() {
            let level = self.works(n) && !timer.has(FSB) && (timer.has(LEVEL) && timer.status || timer.held);
            let pin = (timer.config >> 9 & 0x1f).wrapping_sub(20) as usize;
            if self.is_legacy(n) {
                legacy[n] |= level;
            } else if let Some(pin) = pins.get_mut(pin) {
                *pin |= level;
            }
        }
        (legacy, pins)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Global(u64),
    Counter(u64),
    Config(usize, u64),
    /// Relative to the counter.
    Comparator(usize, u64),
    Period(usize, u64),
    Clear(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let timer = 0..TIMERS;
    let bits = prop::sample::subsequence(vec![LEVEL, INTERRUPTS, PERIODIC, VALUE_SET, MODE_32, FSB], 0..=6);
    let pins = prop_oneof![20_u64..24, Just(0_u64), Just(2), Just(31)];
    let configs = (timer.clone(), bits, pins);
    prop_oneof![
        6 => prop_oneof![0_u64..40, 0_u64..3000].prop_map(Step::Wait),
        2 => prop_oneof![Just(1_u64), Just(3), Just(0), Just(2)].prop_map(Step::Global),
        1 => prop_oneof![
            (u64::MAX - 200..=u64::MAX),
            (0xffff_ff00_u64..0xffff_ffff),
            (0x4_ffff_ff00_u64..0x4_ffff_ffff),
            any::<u64>()
        ].prop_map(Step::Counter),
        3 => configs.prop_map(|(n, bits, pin)| Step::Config(n, bits.into_iter().fold(route(pin), |all, bit| all | bit))),
        3 => (timer.clone(), prop_oneof![0_u64..300, Just(u64::MAX)]).prop_map(|(n, d)| Step::Comparator(n, d)),
        3 => (timer, prop_oneof![0_u64..50, 0_u64..2000, any::<u64>()]).prop_map(|(n, p)| Step::Period(n, p)),
        1 => (0_u64..16).prop_map(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_block_agrees_with_a_model_that_counts_every_tick(program in prop::collection::vec(steps(), 1..80)) {
        let mut s = setup();
        let mut model = Model::new();
        let mut now: Nanos = 3;
        for n in 0..TIMERS {
            s.set(now, fsb(n), n as u64);
        }
        for step in program {
            match step {
                Step::Wait(ticks) => {
                    let armed = s.clock.armed();
                    let mut seen = [Seen::default(); TIMERS];
                    let before = model.levels();
                    for tick in 1..=ticks {
                        model.tick(&mut seen);
                        let noticed = seen.iter().any(|seen| seen.messages) || model.levels() != before;
                        if noticed {
                            let due = (now / TICK + tick) * TICK;
                            let in_time = armed.is_some_and(|at| at <= due.max(now + MIN_INTERVAL));
                            prop_assert!(in_time, "due at {due}, armed for {armed:?} at {now}");
                        }
                    }
                    now += ticks * TICK;
                    s.hpet.expire(now);
                    let sent = s.messages.take();
                    for (n, seen) in seen.iter().enumerate() {
                        let count = sent.iter().filter(|message| message.1 == n as u32).count();
                        prop_assert_eq!(count, usize::from(seen.messages), "messages of timer {}", n);
                    }
                    for (n, probe) in s.legacy.iter().enumerate() {
                        let wanted = seen[n].edges && model.is_legacy(n);
                        let rose = model.levels().0[n] && !before.0[n];
                        prop_assert_eq!(probe.take_edges() > 0, wanted || rose, "edges of IRQ {}", 8 * n);
                    }
                }
                Step::Global(value) => {
                    model.set_global(value);
                    s.set(now, 0x10, value);
                }
                Step::Counter(value) => {
                    if !model.enabled {
                        model.counter = value;
                    }
                    s.set(now, 0xf0, value);
                }
                Step::Config(n, value) => {
                    model.set_config(n, value);
                    s.set(now, config(n), value);
                }
                Step::Comparator(n, distance) => {
                    let value = model.counter.wrapping_add(distance);
                    model.set_comparator(n, value);
                    s.set(now, comparator(n), value);
                }
                Step::Period(n, period) => {
                    model.set_comparator(n, period);
                    s.set(now, comparator(n), period);
                }
                Step::Clear(bits) => {
                    for (n, timer) in model.timers.iter_mut().enumerate() {
                        timer.status &= bits >> n & 1 == 0;
                    }
                    s.set(now, 0x20, bits);
                }
            }
            prop_assert_eq!(s.get(now, 0xf0), model.counter);
            let status = (0..TIMERS).fold(0, |bits, n| bits | u64::from(model.timers[n].status) << n);
            prop_assert_eq!(s.get(now, 0x20), status);
            for (n, timer) in model.timers.iter().enumerate() {
                prop_assert_eq!(s.get(now, config(n)) & WRITABLE, timer.config, "configuration of timer {}", n);
                prop_assert_eq!(s.get(now, comparator(n)), timer.comparator, "comparator of timer {}", n);
            }
            let legacy = s.legacy.each_ref().map(|probe| probe.level());
            let pins = s.pins.each_ref().map(|probe| probe.level());
            prop_assert_eq!((legacy, pins), model.levels());
            for probe in &s.legacy {
                probe.take_edges();
            }
        }
    }
}
