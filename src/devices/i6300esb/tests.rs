//! The watchdog with a stepped clock, driven as Linux's `i6300esb` does it, and otherwise.

use super::*;
use crate::testing::{Clock, Control, Probe};

/// A tick of the slow clock: 2^15 cycles of 33 MHz.
const TICK: Nanos = (1 << 15) * NANOS_PER_SEC / 33_000_000;

struct Setup {
    chip: I6300Esb,
    line: Arc<Probe>,
    clock: Arc<Clock>,
    control: Arc<Control>,
    timed_out: Arc<AtomicBool>,
    now: Nanos,
}

fn setup() -> Setup {
    let (line, probe) = Probe::on_line();
    let (clock, control, timed_out) = (Arc::new(Clock::default()), Arc::new(Control::default()), Arc::default());
    let chip = I6300Esb::new(line, Arc::clone(&clock) as _, Arc::clone(&control) as _, Arc::clone(&timed_out));
    Setup { chip, line: probe, clock, control, timed_out, now: 5_000 }
}

impl Setup {
    fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    fn unlock(&mut self) {
        self.chip.write(self.now, RELOAD, &[0x80, 0]);
        self.chip.write(self.now, RELOAD, &[0x86, 0]);
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.unlock();
        self.chip.write(self.now, offset, &value.to_le_bytes());
    }

    fn reload(&mut self) {
        self.unlock();
        self.chip.write(self.now, RELOAD, &(RELOAD_RELOAD as u16).to_le_bytes());
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.chip.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Both stages `ticks` long, without interrupt, enabled.
    fn start(&mut self, ticks: u32) {
        self.chip.write_config(self.now, CONFIG, CONFIG_INTERRUPT as u8);
        self.set(PRELOAD_1, ticks - 1);
        self.set(PRELOAD_2, ticks - 1);
        self.chip.write_config(self.now, LOCK, LOCK_ENABLE);
    }

    /// The time at which its alarm goes off, relative to now.
    fn armed_in(&self) -> Option<Nanos> {
        self.clock.armed().map(|at| at - self.now)
    }

    /// The alarm goes off.
    fn expire(&mut self) {
        self.now = self.clock.take().expect("it is armed");
        self.chip.expire(self.now);
    }
}

/// `actual` is `ticks` ticks, rounded down.
#[track_caller]
fn assert_ticks(actual: Option<Nanos>, ticks: Nanos) {
    let exact = u128::from(ticks) * (1 << 15) * 1_000_000_000 / 33_000_000;
    assert_eq!(actual.map(u128::from), Some(exact));
}

#[test]
fn after_reset_nothing_counts() {
    let t = setup();
    assert_eq!((t.read(PRELOAD_1), t.read(PRELOAD_2)), (PRELOAD_MAX, PRELOAD_MAX));
    assert_eq!((t.read(INTERRUPT_STATUS), t.read(RELOAD)), (0, 0));
    assert!(t.clock.armed().is_none() && !t.line.level());
}

#[test]
fn unfed_it_expires_after_both_stages_and_once() {
    let mut t = setup();
    t.start(1000);
    assert_ticks(t.armed_in(), 1000);
    t.expire();
    assert!(t.control.take().is_empty(), "that was the first stage");
    assert_ticks(t.armed_in(), 1000);
    t.expire();
    assert_eq!(t.control.take(), [MachineEvent::WatchdogExpired]);
    assert!(t.timed_out());
    assert_eq!(t.read(RELOAD), RELOAD_TIMEOUT);
    assert!(t.clock.armed().is_none());
    t.reload();
    assert!(t.clock.armed().is_none(), "only a reset makes it count again");
}

#[test]
fn fed_it_does_not_expire() {
    let mut t = setup();
    t.start(1000);
    for _ in 0..10 {
        // In the second stage, shortly before the end.
        t.expire();
        t.now += 999 * TICK;
        t.reload();
        assert_ticks(t.armed_in(), 1000);
    }
    assert!(t.control.take().is_empty() && !t.timed_out());
}

#[test]
fn an_alarm_before_its_time_is_nothing() {
    let mut t = setup();
    t.start(1000);
    t.clock.take();
    t.now += 10;
    t.chip.expire(t.now);
    assert_eq!(t.clock.armed(), Some(5_000 + 1000 * (1 << 15) * 1_000 / 33));
    assert!(t.control.take().is_empty());
}

#[test]
fn registers_take_one_write_for_each_unlocking() {
    let mut t = setup();
    t.chip.write(0, PRELOAD_1, &1_u32.to_le_bytes());
    assert_eq!(t.read(PRELOAD_1), PRELOAD_MAX, "locked");
    t.set(PRELOAD_1, 0xfff_1234);
    assert_eq!(t.read(PRELOAD_1), 0xf_1234, "20 bits");
    t.chip.write(0, PRELOAD_2, &1_u32.to_le_bytes());
    assert_eq!(t.read(PRELOAD_2), PRELOAD_MAX, "locked again");
    for keys in [&[0x86, 0x80][..], &[0x80, 0x80], &[0x80, 0x00, 0x86], &[0x86]] {
        for &key in keys {
            t.chip.write(0, RELOAD, &[key, 0]);
        }
        t.chip.write(0, PRELOAD_2, &1_u32.to_le_bytes());
        assert_eq!(t.read(PRELOAD_2), PRELOAD_MAX, "{keys:x?}");
        // Whatever was begun is over.
        t.chip.write(0, RELOAD, &[0, 0]);
    }
    for key in [0x80, 0x80, 0x86] {
        t.chip.write(0, RELOAD, &[key, 0]);
    }
    t.chip.write(0, PRELOAD_2, &7_u32.to_le_bytes());
    assert_eq!(t.read(PRELOAD_2), 7, "the first key twice begins anew");
    // A locked reload feeds nothing.
    t.start(1000);
    let armed = t.clock.armed();
    t.now += 500;
    t.chip.write(t.now, RELOAD, &(RELOAD_RELOAD as u16).to_le_bytes());
    assert_eq!(t.clock.armed(), armed);
}

#[test]
fn the_lock_holds() {
    let mut t = setup();
    t.start(1000);
    t.chip.write_config(t.now, LOCK, LOCK_ENABLE | LOCK_LOCKED);
    t.chip.write_config(t.now, LOCK, 0);
    assert_eq!(t.chip.read_config(LOCK), LOCK_ENABLE | LOCK_LOCKED);
    assert!(t.clock.armed().is_some());
    let mut t = setup();
    t.start(1000);
    t.chip.write_config(t.now, LOCK, 0);
    assert!(t.clock.armed().is_none(), "not locked, it can be disabled");
}

#[test]
fn the_first_stage_interrupts_until_it_is_acknowledged() {
    let mut t = setup();
    t.start(1000);
    t.chip.write_config(t.now, CONFIG, CONFIG_INTERRUPT_IRQ as u8);
    t.expire();
    assert!(t.line.level());
    assert_eq!(t.read(INTERRUPT_STATUS), INTERRUPT_ACTIVE);
    t.chip.write(t.now, INTERRUPT_STATUS, &0_u32.to_le_bytes());
    assert!(t.line.level());
    t.chip.write(t.now, INTERRUPT_STATUS, &INTERRUPT_ACTIVE.to_le_bytes());
    assert_eq!((t.line.level(), t.read(INTERRUPT_STATUS)), (false, 0));
    // With interrupts off the status is there all the same.
    let mut t = setup();
    t.start(1000);
    t.expire();
    assert_eq!((t.line.level(), t.read(INTERRUPT_STATUS)), (false, INTERRUPT_ACTIVE));
}

#[test]
fn with_the_output_disabled_it_only_says_so() {
    let mut t = setup();
    t.start(10);
    t.chip.write_config(t.now, CONFIG, (CONFIG_OUTPUT_DISABLED | CONFIG_INTERRUPT) as u8);
    t.expire();
    t.expire();
    assert!(t.control.take().is_empty() && t.timed_out());
}

#[test]
fn free_running_it_has_one_stage_and_no_end() {
    let mut t = setup();
    t.start(1000);
    t.chip.write_config(t.now, LOCK, 0);
    t.chip.write_config(t.now, LOCK, LOCK_ENABLE | LOCK_FREE_RUNNING);
    for _ in 0..5 {
        t.expire();
        assert_ticks(t.armed_in(), 1000);
    }
    assert!(t.control.take().is_empty() && !t.timed_out());
}

/// The host would do nothing else.
#[test]
fn the_shortest_period_is_no_storm() {
    let mut t = setup();
    t.start(1);
    t.chip.write_config(t.now, LOCK, 0);
    t.chip.write_config(t.now, CONFIG, (CONFIG_FAST | CONFIG_INTERRUPT) as u8);
    t.chip.write_config(t.now, LOCK, LOCK_ENABLE | LOCK_FREE_RUNNING);
    assert_eq!(t.armed_in(), Some(MIN_INTERVAL));
}

#[test]
fn the_fast_clock_counts_microseconds() {
    let mut t = setup();
    t.start(1 << 10);
    t.chip.write_config(t.now, LOCK, 0);
    t.chip.write_config(t.now, CONFIG, (CONFIG_FAST | CONFIG_INTERRUPT) as u8);
    t.chip.write_config(t.now, LOCK, LOCK_ENABLE);
    assert_ticks(t.armed_in(), 1);
}

#[test]
fn the_cause_of_the_reset_is_there_until_it_is_cleared() {
    let (line, _) = Probe::on_line();
    let battery = Arc::new(AtomicBool::new(true));
    let (clock, control) = (Arc::new(Clock::default()), Arc::new(Control::default()));
    let mut chip = I6300Esb::new(line, clock, control, Arc::clone(&battery));
    let mut data = [0; 2];
    chip.read(RELOAD, &mut data);
    assert_eq!(u16::from_le_bytes(data), RELOAD_TIMEOUT as u16);
    chip.write(0, RELOAD, &(RELOAD_TIMEOUT as u16).to_le_bytes());
    assert!(battery.load(Ordering::Relaxed), "locked");
    for value in [0x80_u16, 0x86, (RELOAD_TIMEOUT | RELOAD_RELOAD) as u16] {
        chip.write(0, RELOAD, &value.to_le_bytes());
    }
    assert!(!battery.load(Ordering::Relaxed));
}

#[test]
fn odd_accesses_do_no_harm() {
    let mut t = setup();
    t.unlock();
    for offset in [0, 1, 2, 13, 15, 16, u64::MAX] {
        for len in [1, 3, 8] {
            t.chip.write(0, offset, &[0xff; 8][..len]);
            t.chip.read(offset, &mut [0; 8][..len]);
        }
    }
    t.chip.write_config(0, 0x61, 0xff);
    t.chip.write_config(0, 0x6b, 0xff);
    assert_eq!(t.read(PRELOAD_1), PRELOAD_MAX);
    t.chip.expire(Nanos::MAX);
    t.chip.write_config(Nanos::MAX, LOCK, LOCK_ENABLE);
    t.chip.expire(Nanos::MAX);
    t.chip.expire(Nanos::MAX);
    assert_eq!(t.control.take(), [MachineEvent::WatchdogExpired], "the end of time is an end");
}
