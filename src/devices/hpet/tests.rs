use std::sync::Arc;

use irqchip::line::{Line, Switch};
use x86::Nanos;

use super::{Hpet, Outputs, PINS, TIMERS};
use crate::clock::MIN_INTERVAL;
use crate::testing::{Clock, Messages, Probe};
use crate::traits::{BusDevice, TimedDevice};

const TICK: Nanos = 10;
const HOUR: Nanos = 3_600_000_000_000;

const CONFIGURATION: u64 = 0x10;
const STATUS: u64 = 0x20;
const COUNTER: u64 = 0xf0;
const ENABLE: u64 = 1;
const LEGACY: u64 = 2;

/// Timer configuration bits.
pub(super) const LEVEL: u64 = 1 << 1;
pub(super) const INTERRUPTS: u64 = 1 << 2;
pub(super) const PERIODIC: u64 = 1 << 3;
pub(super) const VALUE_SET: u64 = 1 << 6;
pub(super) const MODE_32: u64 = 1 << 8;
pub(super) const FSB: u64 = 1 << 14;

pub(super) fn route(pin: u64) -> u64 {
    pin << 9
}

pub(super) fn config(timer: usize) -> u64 {
    0x100 + 0x20 * timer as u64
}

pub(super) fn comparator(timer: usize) -> u64 {
    config(timer) + 8
}

pub(super) fn fsb(timer: usize) -> u64 {
    config(timer) + 0x10
}

/// An HPET and what it is wired to.
pub(super) struct Setup {
    pub(super) hpet: Hpet,
    pub(super) legacy: [Arc<Probe>; 2],
    /// The PIT's and the RTC's lines, and where they go.
    pub(super) others: [(Line, Arc<Probe>); 2],
    pub(super) pins: [Arc<Probe>; PINS],
    pub(super) messages: Arc<Messages>,
    pub(super) clock: Arc<Clock>,
}

pub(super) fn setup() -> Setup {
    let [irq0, irq8] = [(), ()].map(|()| Probe::on_line());
    let [pit, rtc] = [(), ()].map(|()| {
        let (line, probe) = Probe::on_line();
        let (switch, line) = Switch::new(line);
        (switch, (line, probe))
    });
    let pins = [(); PINS].map(|()| Probe::on_line());
    let (msi, messages) = Messages::with_handle();
    let clock = Arc::new(Clock::default());
    let probes = pins.each_ref().map(|(_, probe)| probe.clone());
    let outputs = Outputs { legacy: [irq0.0, irq8.0], replaced: [pit.0, rtc.0], pins: pins.map(|(line, _)| line), msi };
    Setup {
        hpet: Hpet::new(outputs, clock.clone()),
        legacy: [irq0.1, irq8.1],
        others: [pit.1, rtc.1],
        pins: probes,
        messages,
        clock,
    }
}

impl Setup {
    pub(super) fn get(&mut self, now: Nanos, register: u64) -> u64 {
        let mut data = [0xaa; 8];
        self.hpet.read(now, register, &mut data);
        u64::from_le_bytes(data)
    }

    pub(super) fn set(&mut self, now: Nanos, register: u64, value: u64) {
        self.hpet.write(now, register, &value.to_le_bytes());
    }

    fn set_half(&mut self, now: Nanos, register: u64, value: u32) {
        self.hpet.write(now, register, &value.to_le_bytes());
    }

    /// The alarm goes off; gives its time.
    fn expire(&mut self) -> Nanos {
        let now = self.clock.take().expect("an armed alarm");
        self.hpet.expire(now);
        now
    }

    /// Interrupts since the last look: legacy edges, pin edges, messages.
    fn edges(&self) -> ([usize; 2], [usize; PINS], usize) {
        (
            self.legacy.each_ref().map(|probe| probe.take_edges()),
            self.pins.each_ref().map(|probe| probe.take_edges()),
            self.messages.take().len(),
        )
    }
}

const NOTHING: ([usize; 2], [usize; PINS], usize) = ([0; 2], [0; PINS], 0);

#[test]
fn the_capabilities_say_what_there_is() {
    let mut s = setup();
    // 10 ns, vendor, legacy replacement, 64 bits, last timer 3, revision 1.
    assert_eq!(s.get(0, 0), 10_000_000 << 32 | 0x8086_a301);
    for timer in 0..TIMERS {
        // Pins 20 to 23; messages, 64 bits, periodic.
        assert_eq!(s.get(0, config(timer)), 0x00f0_0000_0000_8030, "timer {timer}");
        assert_eq!((s.get(0, comparator(timer)), s.get(0, fsb(timer))), (u64::MAX, 0));
    }
    for reserved in [8, 0x18, 0x28, 0xe8, 0xf8, 0x118, config(TIMERS), 0x3f8] {
        s.set(0, reserved, u64::MAX);
        assert_eq!(s.get(0, reserved), 0, "{reserved:#x}");
    }
    s.set(0, 0, 0);
    s.set(0, config(0), !(INTERRUPTS | LEVEL));
    assert_eq!(s.get(0, 0) as u32, 0x8086_a301, "read only");
    assert_eq!(s.get(0, config(0)), 0x00f0_0000_0000_8030 | PERIODIC | VALUE_SET | MODE_32 | FSB);
}

#[test]
fn the_counter_counts_while_it_is_enabled() {
    let mut s = setup();
    assert_eq!(s.get(HOUR, COUNTER), 0);
    s.set(HOUR, CONFIGURATION, ENABLE);
    assert_eq!(s.get(HOUR + 9, COUNTER), 0);
    assert_eq!(s.get(HOUR + 10, COUNTER), 1);
    assert_eq!(s.get(2 * HOUR, COUNTER), HOUR / TICK);
    s.set(2 * HOUR, COUNTER, 5);
    assert_eq!(s.get(2 * HOUR, COUNTER), HOUR / TICK, "it can't be set while it runs");
    s.set(2 * HOUR, CONFIGURATION, 0);
    assert_eq!(s.get(3 * HOUR, COUNTER), HOUR / TICK);
    s.set_half(3 * HOUR, COUNTER, 7);
    s.set_half(3 * HOUR, COUNTER + 4, 9);
    assert_eq!(s.get(3 * HOUR, COUNTER), 9 << 32 | 7);
    s.set(3 * HOUR, COUNTER, u64::MAX);
    s.set(3 * HOUR, CONFIGURATION, ENABLE);
    assert_eq!(s.get(3 * HOUR + 20, COUNTER), 1, "it goes round");
    assert_eq!(s.get(3 * HOUR, COUNTER), 1, "an access from a thread that was a little late");
}

#[test]
fn a_one_shot_interrupts_when_the_counter_is_there() {
    let mut s = setup();
    s.set(0, config(2), INTERRUPTS | route(20));
    s.set(0, comparator(2), 1000);
    assert_eq!(s.clock.armed(), None, "the counter stands still");
    s.set(0, CONFIGURATION, ENABLE);
    assert_eq!(s.clock.armed(), Some(1000 * TICK));
    s.hpet.expire(999 * TICK);
    assert_eq!(s.edges(), NOTHING);
    assert_eq!(s.expire(), 1000 * TICK);
    assert_eq!(s.edges(), ([0, 0], [1, 0, 0, 0], 0));
    assert!(!s.pins[0].level(), "an edge on a pin is a pulse");
    assert_eq!(s.clock.armed(), None, "the next match is a turn of 64 bits away");
    assert_eq!((s.get(HOUR, comparator(2)), s.get(HOUR, STATUS)), (1000, 0));
    assert_eq!(s.edges(), NOTHING);
}

#[test]
fn a_comparator_that_was_passed_waits_for_the_next_turn() {
    const TURN: Nanos = (1 << 32) * TICK;
    for mode in [0, MODE_32] {
        let mut s = setup();
        s.set(0, CONFIGURATION, ENABLE);
        s.set(0, config(1), INTERRUPTS | mode | route(21));
        for passed in [999, 1000] {
            s.set(1000 * TICK, comparator(1), passed);
            let next = (mode != 0).then_some(TURN + passed * TICK);
            assert_eq!(s.clock.armed(), next, "it must be ahead, not there");
        }
        s.hpet.expire(TURN + 1000 * TICK);
        assert_eq!(s.edges().1, [0, usize::from(mode != 0), 0, 0]);
        s.set(TURN + 1000 * TICK, comparator(1), 1001);
        assert_eq!(s.clock.armed().is_some(), mode != 0, "64 bits have gone past 1001 for good");
    }
}

#[test]
fn thirty_two_bits_keep_half_of_the_registers() {
    let mut s = setup();
    s.set(0, comparator(0), 0x1234_5678_9abc_def0);
    s.set(0, config(0), MODE_32);
    assert_eq!(s.get(0, comparator(0)), 0x9abc_def0);
    s.set_half(0, comparator(0) + 4, 7);
    s.set(0, comparator(0), u64::MAX);
    assert_eq!(s.get(0, comparator(0)), 0xffff_ffff);
    s.set(0, config(0), 0);
    s.set_half(0, comparator(0) + 4, 7);
    assert_eq!(s.get(0, comparator(0)), 0x7_ffff_ffff);
}

#[test]
fn a_periodic_timer_is_increased_by_what_was_written_last() {
    let mut s = setup();
    s.set(0, CONFIGURATION, ENABLE);
    // As Linux does it: first the comparator, then the period.
    s.set(0, config(0), INTERRUPTS | PERIODIC | VALUE_SET | MODE_32 | route(23));
    s.set_half(0, comparator(0), 100_250);
    assert_eq!(s.get(0, config(0)) & VALUE_SET, 0, "it clears itself");
    s.set_half(0, comparator(0), 100_000);
    assert_eq!(s.get(0, comparator(0)), 100_250);
    for round in 0..50 {
        assert_eq!(s.expire(), (100_250 + round * 100_000) * TICK);
        assert_eq!(s.edges(), ([0, 0], [0, 0, 0, 1], 0));
        assert_eq!(s.get(s.hpet.tick * TICK, comparator(0)), 100_250 + (round + 1) * 100_000);
    }
    let late = HOUR + 10_005;
    s.hpet.expire(late);
    assert_eq!(s.edges(), ([0, 0], [0, 0, 0, 1], 0), "one for all that were missed");
    let next = s.clock.armed().expect("it goes on");
    assert!(next > late && next <= late + 100_000 * TICK);
    assert_eq!((next / TICK) % 100_000, 250, "in phase");
}

#[test]
fn one_write_with_value_set_is_comparator_and_period() {
    // The specification's own sequence: everything from 0, and halves need the bit each.
    let mut s = setup();
    s.set(0, config(0), INTERRUPTS | PERIODIC | VALUE_SET | route(20));
    s.set(0, comparator(0), 5_000);
    s.set(0, config(1), INTERRUPTS | PERIODIC | VALUE_SET | route(21));
    s.set_half(0, comparator(1), 7_000);
    s.set(0, config(1), INTERRUPTS | PERIODIC | VALUE_SET | route(21));
    s.set_half(0, comparator(1) + 4, 0);
    s.set(0, CONFIGURATION, ENABLE);
    assert_eq!([(); 4].map(|()| s.expire() / TICK), [5_000, 7_000, 10_000, 14_000]);
    assert_eq!(s.edges(), ([0, 0], [2, 2, 0, 0], 0));
}

#[test]
fn a_level_stays_until_its_status_is_written() {
    let mut s = setup();
    s.set(0, config(2), INTERRUPTS | LEVEL | PERIODIC | VALUE_SET | route(22));
    s.set(0, comparator(2), 10_000);
    s.set(0, CONFIGURATION, ENABLE);
    let t = s.expire();
    assert_eq!((s.pins[2].level(), s.get(t, STATUS)), (true, 1 << 2));
    assert_eq!(s.clock.armed(), None, "the next match changes nothing");
    s.set(5 * t, STATUS, 0xb);
    assert!(s.pins[2].level(), "the bits of others");
    s.set(5 * t, STATUS, 1 << 2);
    assert_eq!((s.pins[2].level(), s.get(5 * t, STATUS)), (false, 0));
    assert_eq!(s.clock.armed(), Some(6 * t));
    s.expire();
    s.set(6 * t, CONFIGURATION, 0);
    assert_eq!((s.pins[2].level(), s.get(6 * t, STATUS)), (false, 4), "halted: no interrupts, the status stays");
    s.set(6 * t, CONFIGURATION, ENABLE);
    assert!(s.pins[2].level());
    s.set(6 * t, config(2), LEVEL | route(22));
    assert!(!s.pins[2].level());
}

#[test]
fn status_is_there_without_the_interrupt() {
    let mut s = setup();
    s.set(0, config(3), LEVEL | route(20));
    s.set(0, comparator(3), 50);
    s.set(0, CONFIGURATION, ENABLE);
    assert_eq!(s.clock.armed(), None, "nobody would notice");
    assert_eq!(s.get(49 * TICK, STATUS), 0);
    assert_eq!(s.get(50 * TICK, STATUS), 1 << 3);
    assert_eq!(s.edges(), NOTHING);
    s.set(60 * TICK, config(3), LEVEL | INTERRUPTS | route(20));
    assert!(s.pins[0].level(), "enabled late");
}

#[test]
fn levels_share_a_pin_and_hide_edges_on_it() {
    let mut s = setup();
    for (timer, kind, at) in [(0, LEVEL, 10), (1, LEVEL, 20), (2, 0, 30), (3, 0, 5)] {
        s.set(0, config(timer), INTERRUPTS | kind | route(20));
        s.set(0, comparator(timer), at);
    }
    s.set(0, CONFIGURATION, ENABLE);
    s.hpet.expire(7 * TICK);
    assert_eq!(s.pins[0].take_edges(), 1);
    s.hpet.expire(25 * TICK);
    s.hpet.expire(35 * TICK);
    assert_eq!((s.pins[0].take_edges(), s.pins[0].level()), (1, true));
    s.set(40 * TICK, STATUS, 1);
    assert!(s.pins[0].level(), "timer 1 holds it");
    s.set(40 * TICK, STATUS, 2);
    assert!(!s.pins[0].level());
}

#[test]
fn legacy_replacement_takes_irq_0_and_8_over() {
    let mut s = setup();
    for (line, probe) in &mut s.others {
        line.set(true);
        assert!(probe.level());
    }
    for (timer, at) in [(0, 10_000), (1, 20_000)] {
        s.set(0, config(timer), INTERRUPTS | PERIODIC | VALUE_SET | route(20));
        s.set(0, comparator(timer), at);
    }
    s.set(0, CONFIGURATION, ENABLE | LEGACY);
    for (line, probe) in &mut s.others {
        assert!(!probe.level(), "off the wire");
        line.pulse();
        line.set(true);
        assert_eq!((probe.level(), probe.take_edges()), (false, 1), "the one from before");
    }
    s.expire();
    assert_eq!(s.edges(), ([1, 0], [0; PINS], 0), "the route doesn't count");
    assert!(s.legacy[0].level(), "the 8259A wants it up until the acknowledge");
    s.expire();
    assert_eq!(s.edges(), ([1, 1], [0; PINS], 0));
    s.set(25_000 * TICK, CONFIGURATION, ENABLE);
    assert_eq!(s.legacy.each_ref().map(|probe| probe.level()), [false; 2]);
    assert!(s.others.iter().all(|(_, probe)| probe.level()), "back, as they are by now");
    s.expire();
    assert_eq!(s.edges(), ([0, 0], [1, 0, 0, 0], 0), "the route counts again");
}

#[test]
fn a_held_edge_falls_when_the_timer_is_turned_off() {
    for (register, value) in [(config(0), 0), (CONFIGURATION, LEGACY), (config(0), INTERRUPTS | LEVEL)] {
        let mut s = setup();
        s.set(0, config(0), INTERRUPTS);
        s.set(0, comparator(0), 100);
        s.set(0, CONFIGURATION, ENABLE | LEGACY);
        s.expire();
        assert!(s.legacy[0].level());
        s.set(2000 * TICK, register, value);
        assert!(!s.legacy[0].level(), "{register:#x}");
        s.set(2000 * TICK, config(0), INTERRUPTS);
        s.set(2000 * TICK, CONFIGURATION, ENABLE | LEGACY);
        assert!(!s.legacy[0].level(), "and stays down");
    }
}

#[test]
fn a_level_goes_to_a_legacy_interrupt_too() {
    let mut s = setup();
    s.set(0, config(1), INTERRUPTS | LEVEL);
    s.set(0, comparator(1), 100);
    s.set(0, CONFIGURATION, ENABLE | LEGACY);
    s.expire();
    assert!(s.legacy[1].level());
    s.set(200 * TICK, STATUS, 2);
    assert!(!s.legacy[1].level());
}

#[test]
fn a_route_that_is_not_offered_does_not_take() {
    let mut s = setup();
    s.set(0, config(0), INTERRUPTS | route(21));
    for pin in (0..20).chain(24..32) {
        s.set(0, config(0), INTERRUPTS | LEVEL | route(pin));
        assert_eq!(s.get(0, config(0)) as u32 & !0x8030, (INTERRUPTS | LEVEL | route(21)) as u32, "pin {pin}");
    }
    // The route after reset is none of these either.
    s.set(0, config(1), INTERRUPTS);
    s.set(0, comparator(1), 100);
    s.set(0, CONFIGURATION, ENABLE);
    assert_eq!(s.clock.armed(), None);
    s.hpet.expire(HOUR);
    assert_eq!(s.edges(), NOTHING);
}

#[test]
fn messages_go_before_pins_and_legacy_interrupts() {
    let mut s = setup();
    for timer in [0, 3] {
        s.set(0, config(timer), INTERRUPTS | FSB | PERIODIC | VALUE_SET | route(20));
        s.set(0, comparator(timer), 100_000);
        s.set(0, fsb(timer), 0xfee0_1000 << 32 | (0x4040 + timer as u64));
    }
    s.set(0, CONFIGURATION, ENABLE | LEGACY);
    s.expire();
    assert_eq!(s.messages.take(), [(0xfee0_1000, 0x4040), (0xfee0_1000, 0x4043)]);
    s.set_half(s.hpet.tick * TICK, fsb(0), 0x77);
    s.set_half(s.hpet.tick * TICK, fsb(0) + 4, 0xdead_0000);
    s.expire();
    assert_eq!(s.messages.take(), [(0xdead_0000, 0x77), (0xfee0_1000, 0x4043)], "any address: it is a memory write");
    assert_eq!(s.edges(), NOTHING);
}

#[test]
fn tiny_periods_do_not_make_the_host_spin() {
    for (period, kind) in [(1, FSB), (1, 0), (3, FSB), (0, FSB)] {
        let mut s = setup();
        s.set(0, config(0), INTERRUPTS | kind | PERIODIC | VALUE_SET | MODE_32 | route(20));
        s.set(0, comparator(0), 1);
        s.set(0, comparator(0), period);
        s.set(0, CONFIGURATION, ENABLE);
        let mut now = 0;
        for _ in 0..100 {
            let Some(at) = s.clock.take() else { break };
            assert!(now == 0 || at >= now + MIN_INTERVAL, "{at} after {now}");
            now = at;
            s.hpet.expire(now);
        }
        assert!(now <= 101 * MIN_INTERVAL || period == 0);
    }
}

#[test]
fn odd_accesses_read_bytes_and_write_nothing() {
    let mut s = setup();
    s.set(0, COUNTER, 0x1122_3344_5566_7788);
    let mut data = [0; 3];
    s.hpet.read(0, COUNTER + 6, &mut data);
    assert_eq!(data, [0x22, 0x11, 0x00]);
    for (offset, len) in [(0, 1), (0, 2), (2, 4), (4, 8), (0, 3), (1, 8)] {
        s.hpet.write(0, COUNTER + offset, &[0xff; 8][..len]);
    }
    assert_eq!(s.get(0, COUNTER), 0x1122_3344_5566_7788);
    s.hpet.write(0, u64::MAX - 7, &[0xff; 8]);
    s.hpet.read(0, u64::MAX, &mut data);
    assert_eq!(data, [0; 3]);
}

/// Each thing that keeps the message from being sent, or from being an NMI or an INIT.
#[test]
fn a_timer_that_will_match_says_whether_its_message_is_an_nmi() {
    const ADDRESS: u64 = 0xfee0_0000 << 32;
    const NMI: u64 = 4 << 8;
    let mut s = setup();
    s.set(0, CONFIGURATION, ENABLE);
    s.set(0, fsb(1), ADDRESS | NMI);
    s.set(0, comparator(1), 1000);
    s.set(0, config(1), INTERRUPTS | FSB);
    assert!(s.hpet.can_give_nmi());
    for (name, register, value) in [
        ("a fixed interrupt", fsb(1), ADDRESS | 0x40),
        ("no interrupt message", fsb(1), NMI),
        ("a pin", config(1), INTERRUPTS | route(20)),
        ("no interrupt", config(1), FSB),
        ("halted", CONFIGURATION, 0),
    ] {
        let before = s.get(0, register);
        s.set(0, register, value);
        assert!(!s.hpet.can_give_nmi(), "{name}");
        s.set(0, register, before);
        assert!(s.hpet.can_give_nmi(), "{name} no more");
    }
    s.set(0, fsb(1), ADDRESS | 5 << 8);
    assert!(s.hpet.can_give_nmi(), "INIT");
    // Once it has matched, a whole turn of the counter is beyond the end of time; one of 32 bits is not.
    assert_eq!((s.expire(), s.messages.take().len()), (1000 * TICK, 1));
    assert!(!s.hpet.can_give_nmi());
    s.set(1000 * TICK, config(1), INTERRUPTS | FSB | MODE_32);
    assert!(s.hpet.can_give_nmi());
}
