use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use x86::Nanos;
use x86::time::NANOS_PER_SEC;

use super::Rtc;
use super::calendar::{date_of, day_number, weekday_of};
use crate::testing::{Clock, Probe, inb, outb};
use crate::traits::{BusDevice, TimedDevice};

const S: Nanos = NANOS_PER_SEC;
const MS: Nanos = 1_000_000;
const US: Nanos = 1_000;

/// 2026-11-17 (a Tuesday) 13:59:58 UTC.
const WALL: u64 = 1_794_923_998;

struct Setup {
    rtc: Rtc,
    irq: Arc<Probe>,
    clock: Arc<Clock>,
}

fn at(wall: u64, nanos: u32) -> Setup {
    let (line, irq) = Probe::on_line();
    let clock = Arc::new(Clock::default());
    Setup { rtc: Rtc::new(Duration::new(wall, nanos), line, clock.clone()), irq, clock }
}

impl Setup {
    fn get(&mut self, now: Nanos, register: u8) -> u8 {
        outb(&mut self.rtc, now, 0, register);
        inb(&mut self.rtc, now, 1)
    }

    fn set(&mut self, now: Nanos, register: u8, value: u8) {
        outb(&mut self.rtc, now, 0, register);
        outb(&mut self.rtc, now, 1, value);
    }

    /// Century, year, month, day, weekday, hours, minutes, seconds.
    fn time(&mut self, now: Nanos) -> [u8; 8] {
        [0x32, 9, 8, 7, 6, 4, 2, 0].map(|register| self.get(now, register))
    }

    fn expire(&mut self) -> Nanos {
        let now = self.clock.take().expect("an armed alarm");
        self.rtc.expire(now);
        now
    }
}

#[test]
fn the_time_is_the_hosts_plus_the_machines() {
    let mut s = at(WALL, 0);
    assert_eq!(s.time(0), [0x20, 0x26, 0x11, 0x17, 3, 0x13, 0x59, 0x58]);
    assert_eq!(s.time(2 * S), [0x20, 0x26, 0x11, 0x17, 3, 0x14, 0x00, 0x00]);
    assert_eq!(s.time(2 * S + 45 * 86_400 * S)[..4], [0x20, 0x27, 0x01, 0x01]);
}

#[test]
fn binary_and_twelve_hours_change_what_is_read() {
    let mut s = at(WALL, 0);
    s.set(0, 0x0b, 0x06);
    assert_eq!(s.time(0), [20, 26, 11, 17, 3, 13, 59, 58]);
    s.set(0, 0x0b, 0x00);
    assert_eq!(s.get(0, 4), 0x81);
    assert_eq!(s.get(11 * 3600 * S, 4), 0x12, "midnight is 12 AM");
    assert_eq!(s.get(23 * 3600 * S, 4), 0x92, "noon is 12 PM");
}

#[test]
fn updating_shows_before_the_second_changes_and_not_after() {
    let mut s = at(WALL, 0);
    assert_eq!(s.get(0, 0x0a), 0x26);
    assert_eq!(s.get(S - 2228 * US - 1, 0x0a), 0x26);
    assert_eq!(s.get(S - 2228 * US, 0x0a), 0xa6);
    assert_eq!(s.get(S - 1, 0x0a), 0xa6);
    assert_eq!(s.get(S - 1, 0), 0x58);
    assert_eq!(s.get(S, 0x0a), 0x26);
    assert_eq!(s.get(S, 0), 0x59);
    s.set(S, 0x0b, 0x82);
    assert_eq!(s.get(2 * S - 1, 0x0a), 0x26, "SET stops the updates");
}

#[test]
fn the_subsecond_part_of_the_wall_clock_sets_the_phase() {
    let mut s = at(WALL, 400_000_000);
    assert_eq!(s.get(600 * MS - 1, 0), 0x58);
    assert_eq!(s.get(600 * MS, 0), 0x59);
}

#[test]
fn a_time_set_by_the_guest_runs_on_in_phase() {
    let mut s = at(WALL, 0);
    let t = 3 * S + 300 * MS;
    s.set(t, 0x0b, 0x82);
    for (register, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)] {
        s.set(t, register, value);
    }
    assert_eq!(s.get(t + 5 * S, 0), 0x59, "stopped");
    s.set(t + 5 * S, 0x0b, 0x02);
    assert_eq!(s.time(t + 5 * S + 699 * MS), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]);
    assert_eq!(s.time(t + 5 * S + 700 * MS), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
}

#[test]
fn a_divider_reset_makes_the_next_second_come_half_a_second_later() {
    // As Linux sets the clock.
    let mut s = at(WALL, 0);
    let t = S + 123 * MS;
    s.set(t, 0x0b, 0x82);
    s.set(t, 0x0a, 0x76);
    s.set(t, 0, 0x30);
    s.set(t, 0x0b, 0x02);
    assert_eq!(s.get(t + 7 * S, 0), 0x30, "the divider is held");
    s.set(t + 7 * S, 0x0a, 0x26);
    assert_eq!(s.get(t + 7 * S + 500 * MS - 1, 0), 0x30);
    assert_eq!(s.get(t + 7 * S + 500 * MS, 0), 0x31);
    assert_eq!(s.get(t + 7 * S, 2), 0x59);
}

#[test]
fn what_is_out_of_range_becomes_the_nearest_time() {
    for (written, read) in [
        ([0x20, 0x26, 0x00, 0x00, 0, 0x99, 0x99, 0x99], [0x20, 0x26, 0x01, 0x01, 5, 0x23, 0x59, 0x59]),
        ([0x20, 0x26, 0x99, 0x99, 0, 0x12, 0x60, 0x00], [0x20, 0x26, 0x12, 0x31, 5, 0x12, 0x59, 0x00]),
        ([0x20, 0x26, 0x02, 0x31, 0, 0x00, 0x00, 0x61], [0x20, 0x26, 0x03, 0x03, 3, 0x00, 0x00, 0x59]),
    ] {
        let mut s = at(WALL, 0);
        s.set(0, 0x0b, 0x82);
        for (register, value) in [0x32, 9, 8, 7, 6, 4, 2, 0].into_iter().zip(written) {
            s.set(0, register, value);
        }
        s.set(0, 0x0b, 0x02);
        assert_eq!(s.time(0), read);
    }
}

#[test]
fn a_register_written_while_the_clock_runs_counts() {
    let mut s = at(WALL, 0);
    s.set(0, 4, 0x07);
    assert_eq!(s.time(2 * S)[5..], [0x08, 0x00, 0x00]);
}

#[test]
fn periodic_interrupts_come_at_the_rate_and_wait_for_register_c() {
    let mut s = at(WALL, 0);
    s.set(0, 0x0b, 0x42);
    let mut ticks = 0;
    loop {
        let now = s.expire();
        assert!(s.irq.level());
        assert_eq!(s.clock.armed(), None, "no tick before the last was fetched");
        assert_eq!(s.get(now, 0x0c) & 0xc0, 0xc0);
        assert!(!s.irq.level());
        ticks += 1;
        if now >= 10 * S {
            assert_eq!((ticks, now), (10_240, 10 * S));
            break;
        }
    }
}

#[test]
fn every_rate_select_has_its_frequency() {
    for (rate, hz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        let mut s = at(WALL, 0);
        s.set(0, 0x0a, 0x20 | rate);
        s.set(0, 0x0b, 0x42);
        assert_eq!(s.clock.armed(), Some(S.div_ceil(hz)), "rate {rate}");
    }
    let mut s = at(WALL, 0);
    s.set(0, 0x0a, 0x20);
    s.set(0, 0x0b, 0x42);
    assert_eq!(s.clock.armed(), None, "rate 0 is off");
}

#[test]
fn missed_ticks_are_one_interrupt() {
    let mut s = at(WALL, 0);
    s.set(0, 0x0b, 0x42);
    s.clock.take();
    s.rtc.expire(3600 * S + 1);
    assert_eq!(s.irq.take_edges(), 1);
    assert_eq!(s.get(3600 * S + 1, 0x0c) & 0xc0, 0xc0);
    assert!(!s.irq.level());
    assert_eq!(s.get(3600 * S + 1, 0x0c), 0);
    assert_eq!(s.clock.armed(), Some(3600 * S + S.div_ceil(1024)), "still in phase");
}

#[test]
fn the_alarm_interrupts_at_its_time() {
    let mut s = at(WALL, 0);
    for (register, value) in [(5, 0x14), (3, 0x00), (1, 0x30), (0x0b, 0x22)] {
        s.set(0, register, value);
    }
    assert_eq!(s.clock.armed(), Some(32 * S));
    s.expire();
    assert!(s.irq.level());
    assert_eq!(s.get(32 * S, 0x0c), 0xf0, "with the periodic and update flags, which are not enabled");
    assert_eq!(s.clock.armed(), Some((32 + 86_400) * S));
}

#[test]
fn alarm_bytes_with_the_top_bits_match_anything() {
    let mut s = at(WALL, 0);
    for (register, value) in [(5, 0xff), (3, 0xc0), (1, 0x05), (0x0b, 0x22)] {
        s.set(0, register, value);
    }
    assert_eq!(s.clock.armed(), Some(7 * S));
    s.set(0, 1, 0xff);
    assert_eq!(s.clock.armed(), Some(S), "every second");
    s.set(0, 1, 0x77);
    assert_eq!(s.clock.armed(), None, "a second that never comes");
}

#[test]
fn a_twelve_hour_alarm_tells_morning_from_afternoon() {
    let mut s = at(WALL, 0);
    for (register, value) in [(5, 0x02), (3, 0x00), (1, 0x00), (0x0b, 0x20)] {
        s.set(0, register, value);
    }
    assert_eq!(s.clock.armed(), Some((12 * 3600 + 2) * S));
    s.set(0, 5, 0x82);
    assert_eq!(s.clock.armed(), Some(2 * S));
}

#[test]
fn update_ended_interrupts_each_second() {
    let mut s = at(WALL, 250_000_000);
    s.set(0, 0x0b, 0x12);
    assert_eq!(s.expire(), 750 * MS);
    assert!(s.irq.level());
    assert_eq!(s.get(750 * MS, 0x0c) & 0x90, 0x90);
    assert_eq!(s.expire(), 1750 * MS);
}

#[test]
fn set_stops_the_update_interrupt_and_disables_it() {
    let mut s = at(WALL, 0);
    s.set(0, 0x0b, 0x12);
    s.set(0, 0x0b, 0x92);
    assert_eq!(s.get(0, 0x0b), 0x82);
    assert_eq!(s.clock.armed(), None);
    assert_eq!(s.get(5 * S, 0x0c) & 0x10, 0);
}

#[test]
fn a_flag_interrupts_when_it_is_enabled_late() {
    let mut s = at(WALL, 0);
    s.set(5 * S, 0x0b, 0x12);
    assert!(s.irq.level());
    s.set(5 * S, 0x0b, 0x02);
    assert!(!s.irq.level());
}

#[test]
fn memory_keeps_its_bytes_and_status_registers_are_read_only() {
    let mut s = at(WALL, 0);
    for register in (0x0e..0x80).filter(|&register| register != 0x32) {
        s.set(0, register, register ^ 0x5a);
    }
    for register in (0x0e..0x80).filter(|&register| register != 0x32) {
        assert_eq!(s.get(0, register | 0x80), register ^ 0x5a, "bit 7 is no address bit");
    }
    s.set(0, 0x0d, 0);
    s.set(0, 0x0c, 0xff);
    assert_eq!(s.get(0, 0x0d), 0x80);
    assert_eq!(s.get(0, 0x0c), 0);
    assert_eq!(inb(&mut s.rtc, 0, 0), 0xff, "the index can't be read");
}

#[test]
fn a_word_write_sets_index_and_data() {
    let mut s = at(WALL, 0);
    s.rtc.write(0, 0, &[0x40, 0x99]);
    assert_eq!(s.get(0, 0x40), 0x99);
}

#[test]
fn known_days() {
    assert_eq!(day_number(1970, 1, 1), 0);
    assert_eq!(day_number(2000, 3, 1), 11_017);
    assert_eq!(day_number(2099, 12, 31), 47_481);
    assert_eq!(date_of(11_016), (2000, 2, 29));
    assert_eq!(date_of(-1), (1969, 12, 31));
    assert_eq!(weekday_of(day_number(2026, 11, 17)), 3);
    // Every day of four centuries follows the one before.
    let mut expected = (1970, 1, 1);
    for day in 0..146_097 {
        assert_eq!(date_of(day), expected);
        let (year, month, of_month) = expected;
        assert_eq!(day_number(year, month, of_month), day);
        expected = (year, month, of_month + 1);
        if date_of(day + 1).2 == 1 {
            expected = if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) };
        }
    }
}

proptest! {
    #[test]
    fn no_nonsense_in_the_time_registers_breaks_the_clock(
        bytes in prop::array::uniform8(any::<u8>()),
        mode in 0..4u8,
        nanos in 0..10 * S,
    ) {
        let mut s = at(WALL, 0);
        s.set(0, 0x0b, 0x80 | mode << 1);
        for (register, value) in [0x32, 9, 8, 7, 6, 4, 2, 0].into_iter().zip(bytes) {
            s.set(0, register, value);
        }
        prop_assert_eq!(s.time(0), bytes);
        s.set(0, 0x0b, 0x20 | mode << 1);
        // A sane time has come of it: it reads back, and stays when it is set again.
        let time = s.time(nanos);
        s.set(nanos, 0x0b, 0xa0 | mode << 1);
        s.set(nanos, 0x0b, 0x20 | mode << 1);
        prop_assert_eq!(s.time(nanos), time);
    }
}
