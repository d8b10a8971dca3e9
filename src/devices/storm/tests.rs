//! The storm, with a stepped clock.

use irqchip::line::LineTarget;
use parking_lot::Mutex;
use x86::storm::*;

use super::*;
use crate::testing::{Clock, Messages};

const LINES: usize = 4;

/// The far end of all lines: levels, and rises.
#[derive(Default)]
struct Wires(Mutex<[(bool, u64); LINES]>);

impl LineTarget for Wires {
    fn set_level(&self, gsi: u8, level: bool) {
        let line = &mut self.0.lock()[usize::from(gsi)];
        line.0 = level;
        line.1 += u64::from(level);
    }
}

struct Setup {
    storm: Storm,
    wires: Arc<Wires>,
    messages: Arc<Messages>,
    clock: Arc<Clock>,
    now: Nanos,
}

fn setup() -> Setup {
    let wires = Arc::new(Wires::default());
    let (msi, messages) = Messages::with_handle();
    let clock = Arc::new(Clock::default());
    let lines = (0..LINES as u8).map(|gsi| Wire::new(gsi, Arc::clone(&wires) as _)).collect();
    Setup { storm: Storm::new(lines, msi, Arc::clone(&clock) as _), wires, messages, clock, now: 0 }
}

impl Setup {
    fn write(&mut self, number: usize, register: u64, value: u64) {
        let len = if matches!(register, CONTROL | GSI | DATA | ACKNOWLEDGE) { 4 } else { 8 };
        self.storm.write(self.now, channel(number, register) - BASE, &value.to_le_bytes()[..len]);
    }

    fn read(&mut self, number: usize, register: u64) -> u64 {
        let len = if matches!(register, CONTROL | GSI | DATA | ACKNOWLEDGE) { 4 } else { 8 };
        let mut data = [0; 8];
        self.storm.read(self.now, channel(number, register) - BASE, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    fn start(&mut self, number: usize, source: Source, period: u64, events: u64) {
        self.write(number, PERIOD, period);
        self.write(number, LEFT, events);
        self.write(number, CONTROL, source.start().into());
    }

    /// Goes on to `to`, calling the device when its alarm goes off.
    fn run_to(&mut self, to: Nanos) -> usize {
        let mut calls = 0;
        while let Some(at) = self.clock.armed().filter(|&at| at <= to) {
            self.clock.take();
            self.now = at.max(self.now);
            self.storm.expire(self.now);
            calls += 1;
        }
        self.now = to;
        calls
    }

    fn line(&self, gsi: usize) -> (bool, u64) {
        self.wires.0.lock()[gsi]
    }
}

#[test]
fn it_says_what_it_is() {
    let mut t = setup();
    let mut word = [0; 4];
    t.storm.read(0, SIGNATURE, &mut word);
    assert_eq!(u32::from_le_bytes(word), SIGNATURE_VALUE);
    t.storm.read(0, COUNT_OF_CHANNELS, &mut word);
    assert_eq!(u32::from_le_bytes(word), CHANNELS as u32);
    t.storm.read(0, CHANNEL_0 + CHANNELS as u64 * CHANNEL_BYTES, &mut word);
    assert_eq!(word, [0xff; 4], "there is no further channel");
}

#[test]
fn a_channel_raises_its_events_one_a_period_and_then_no_more() {
    let mut t = setup();
    t.write(2, GSI, 3);
    t.now = 1000;
    t.start(2, Source::Pulse, 100, 5);
    assert_eq!(t.clock.armed(), Some(1100), "the first comes a period after the start");
    assert_eq!(t.run_to(1350), 3);
    assert_eq!((t.line(3), t.read(2, SENT), t.read(2, LEFT)), ((false, 3), 3, 2));
    assert!(t.storm.is_raising());
    t.run_to(10_000);
    assert_eq!((t.line(3).1, t.read(2, SENT), t.read(2, LEFT)), (5, 5, 0));
    assert_eq!(t.read(2, CONTROL) as u32 & CONTROL_RUN, 0);
    assert!(t.clock.armed().is_none() && !t.storm.is_raising());
}

#[test]
fn a_late_channel_catches_up_to_a_batch_and_skips_the_rest() {
    let mut t = setup();
    t.write(0, GSI, 1);
    t.start(0, Source::Pulse, 10, NO_END);
    t.clock.take();
    t.now = 10 * (BATCH + 100);
    t.storm.expire(t.now);
    assert_eq!((t.read(0, SENT), t.read(0, SKIPPED)), (BATCH, 100));
    assert_eq!(t.clock.armed(), Some(t.now + 1), "and goes on at once");
    assert_eq!(t.read(0, LEFT), NO_END);
    t.start(0, Source::Pulse, 10, BATCH + 30);
    t.write(0, SENT, 0);
    t.clock.take();
    t.now += 10 * (BATCH + 100);
    t.storm.expire(t.now);
    assert_eq!((t.read(0, SENT), t.read(0, LEFT)), (BATCH, 0), "no more are skipped than there are");
    assert_eq!(t.read(0, SKIPPED), 130);
    assert!(t.clock.armed().is_none());
}

#[test]
fn a_level_stays_up_until_it_is_acknowledged_and_further_events_merge() {
    let mut t = setup();
    t.write(1, GSI, 2);
    t.start(1, Source::Level, 100, 3);
    t.run_to(250);
    assert_eq!((t.line(2), t.read(1, SENT), t.read(1, MERGED)), ((true, 1), 2, 1));
    assert_eq!(t.read(1, ACKNOWLEDGE), 1);
    t.write(1, ACKNOWLEDGE, 1);
    assert_eq!((t.line(2), t.read(1, ACKNOWLEDGE)), ((false, 1), 0));
    t.run_to(1000);
    assert_eq!((t.line(2), t.read(1, MERGED)), ((true, 2), 1), "the last one stays up though the channel is done");
    t.write(1, ACKNOWLEDGE, 1);
    assert_eq!(t.line(2), (false, 2));
}

#[test]
fn stopping_lowers_the_line() {
    let mut t = setup();
    t.write(1, GSI, 2);
    t.start(1, Source::Level, 100, NO_END);
    t.run_to(150);
    assert!(t.line(2).0);
    t.write(1, CONTROL, 0);
    assert!(!t.line(2).0);
    assert!(t.clock.armed().is_none());
}

#[test]
fn messages_go_where_the_channel_says() {
    let mut t = setup();
    t.write(7, ADDRESS, 0xfee0_1000);
    t.write(7, DATA, 0x51);
    t.start(7, Source::Msi, 50, 2);
    // Not before it is started again.
    t.write(7, DATA, 0x52);
    t.run_to(1000);
    assert_eq!(t.messages.take(), [(0xfee0_1000, 0x51); 2]);
}

#[test]
fn a_ring_raises_on_each_running_channel() {
    let mut t = setup();
    for (number, gsi) in [(0, 1), (1, 2)] {
        t.write(number, GSI, gsi);
        t.start(number, Source::Pulse, 0, 2);
    }
    t.write(2, GSI, 3);
    assert!(t.clock.armed().is_none(), "with no period, nothing comes by itself");
    assert!(!t.storm.is_raising());
    for _ in 0..3 {
        t.storm.write(t.now, RING, &1_u32.to_le_bytes());
    }
    assert_eq!([1, 2, 3].map(|gsi| t.line(gsi).1), [2, 2, 0], "no more than there are");
    assert_eq!((t.read(0, LEFT), t.read(0, CONTROL) as u32 & CONTROL_RUN), (0, 0));
}

#[test]
fn nonsense_starts_nothing() {
    let mut t = setup();
    t.start(0, Source::Pulse, 100, 0);
    assert_eq!(t.read(0, CONTROL) as u32 & CONTROL_RUN, 0, "no events");
    t.write(0, GSI, LINES as u64);
    t.start(0, Source::Level, 100, 1);
    assert_eq!(t.read(0, CONTROL) as u32 & CONTROL_RUN, 0, "no such line");
    t.write(0, LEFT, 1);
    t.write(0, CONTROL, (3 << CONTROL_SOURCE_SHIFT | CONTROL_RUN).into());
    assert_eq!(t.read(0, CONTROL) as u32 & CONTROL_RUN, 0, "no such source");
    assert!(t.clock.armed().is_none());
    // At the end of time nothing overflows.
    t.write(0, GSI, 0);
    t.now = Nanos::MAX - 1;
    t.start(0, Source::Pulse, u64::MAX, NO_END);
    t.storm.expire(Nanos::MAX);
    assert!(t.line(0).1 > 0);
}

#[test]
fn wide_registers_are_also_two_halves_and_other_accesses_are_none() {
    let mut t = setup();
    let period = channel(3, PERIOD) - BASE;
    t.storm.write(0, period, &0x1111_1111_u32.to_le_bytes());
    t.storm.write(0, period + 4, &0x2222_2222_u32.to_le_bytes());
    assert_eq!(t.read(3, PERIOD), 0x2222_2222_1111_1111);
    let mut half = [0; 4];
    t.storm.read(0, period + 4, &mut half);
    assert_eq!(u32::from_le_bytes(half), 0x2222_2222);
    for (offset, len) in [(period, 1), (period, 2), (period + 2, 4), (period + 4, 8), (channel(3, CONTROL) - BASE, 8)] {
        let mut data = [0; 8];
        t.storm.write(0, offset, &[0; 8][..len]);
        t.storm.read(0, offset, &mut data[..len]);
        assert!(data[..len].iter().all(|&byte| byte == 0xff), "{len} bytes at {offset:#x}");
    }
    assert_eq!(t.read(3, PERIOD), 0x2222_2222_1111_1111);
}
