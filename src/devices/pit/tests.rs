use std::sync::Arc;

use parking_lot::Mutex;
use x86::Nanos;
use x86::time::NANOS_PER_SEC;

use super::{PORT_B_OFFSET, Pit};
use crate::clock::MIN_INTERVAL;
use crate::testing::{Clock, Probe, inb, outb};
use crate::traits::{BusDevice, TimedDevice};
use crate::window::Window;

const MS: Nanos = 1_000_000;

fn pit() -> (Pit, Arc<Probe>, Arc<Clock>) {
    let (line, probe) = Probe::on_line();
    let clock = Arc::new(Clock::default());
    let pit = Pit::new(line, clock.clone());
    probe.take_edges();
    (pit, probe, clock)
}

fn program(pit: &mut Pit, now: Nanos, channel: u8, mode: u8, count: u16) {
    outb(pit, now, 3, channel << 6 | 0x30 | mode << 1);
    let [low, high] = count.to_le_bytes();
    outb(pit, now, u64::from(channel), low);
    outb(pit, now, u64::from(channel), high);
}

/// Lets the main loop run until `end`, always on time; counts the edges.
fn run(pit: &mut Pit, probe: &Probe, clock: &Clock, end: Nanos) -> usize {
    let mut edges = probe.take_edges();
    while clock.armed().is_some_and(|at| at <= end) {
        let now = clock.take().unwrap_or(end);
        pit.expire(now);
        edges += probe.take_edges();
    }
    edges
}

#[test]
fn mode_2_at_hz_1000_gives_its_edges_without_drift() {
    let (mut pit, probe, clock) = pit();
    program(&mut pit, 0, 0, 2, 1193);
    assert_eq!(probe.take_edges(), 0, "programming a rate is no edge");
    let edges = run(&mut pit, &probe, &clock, 600 * NANOS_PER_SEC);
    // The load takes one pulse.
    assert_eq!(edges as u64, (600 * 1_193_182 - 1) / 1193);
}

#[test]
fn mode_0_gives_one_edge_count_plus_one_pulses_after_the_write() {
    let (mut pit, probe, clock) = pit();
    program(&mut pit, 0, 0, 0, 11_931);
    assert!(!probe.level());
    let at = clock.armed().expect("an alarm");
    assert_eq!(at, (11_932 * NANOS_PER_SEC).div_ceil(1_193_182));
    clock.take();
    pit.expire(at - 1);
    assert!(!probe.level(), "early calls change nothing");
    assert_eq!(clock.armed(), Some(at));
    clock.take();
    pit.expire(at);
    assert!(probe.level());
    assert_eq!(probe.take_edges(), 1);
    assert_eq!(clock.armed(), None, "one shot");
}

#[test]
fn a_count_written_again_postpones_the_one_shot() {
    let (mut pit, probe, clock) = pit();
    program(&mut pit, 0, 0, 0, 11_931);
    let first = clock.armed();
    outb(&mut pit, 5 * MS, 0, 0x9b);
    assert_eq!(clock.armed(), None, "half a count stops the counter");
    outb(&mut pit, 5 * MS, 0, 0x2e);
    assert!(clock.armed() > first);
    assert_eq!(run(&mut pit, &probe, &clock, 30 * MS), 1);
}

#[test]
fn a_long_stop_gives_one_edge_and_keeps_the_phase() {
    let (mut pit, probe, clock) = pit();
    program(&mut pit, 0, 0, 2, 11_932);
    let stop = 3 * 86_400 * NANOS_PER_SEC + 12_345;
    clock.take();
    pit.expire(stop);
    assert_eq!(probe.take_edges(), 1);
    let tick = crate::clock::ticks_at(stop, 1_193_182);
    let next = 1 + (tick - 1).div_euclid(11_932) * 11_932 + 11_932;
    assert_eq!(clock.armed(), Some(crate::clock::time_of_tick(next, 1_193_182)));
}

#[test]
fn a_tiny_period_cannot_make_the_host_spin() {
    for (mode, count) in [(2, 1), (2, 2), (3, 1), (3, 3), (2, 5)] {
        let (mut pit, probe, clock) = pit();
        program(&mut pit, 0, 0, mode, count);
        let edges = run(&mut pit, &probe, &clock, 10 * MS);
        assert!(edges > 100, "mode {mode} count {count}: {edges}");
        assert!(edges as u64 <= 10 * MS / MIN_INTERVAL + 1, "mode {mode} count {count}: {edges}");
    }
}

#[test]
fn an_alarm_that_comes_late_is_not_made_up_for() {
    let (mut pit, probe, clock) = pit();
    program(&mut pit, 0, 0, 3, 1193);
    let mut edges = 0;
    for i in 1..=10 {
        clock.take();
        pit.expire(i * 10 * MS + 1);
        edges += probe.take_edges();
    }
    assert_eq!(edges, 10);
}

#[test]
fn mode_3_shows_a_square_wave_in_the_status() {
    let (mut pit, _, _) = pit();
    program(&mut pit, 0, 0, 3, 1000);
    let mut out_at = |tick: u64| {
        let now = crate::clock::time_of_tick(tick, 1_193_182);
        outb(&mut pit, now, 3, 0xe2);
        inb(&mut pit, now, 0)
    };
    assert_eq!(out_at(0), 0xf6, "null count before the load");
    assert_eq!(out_at(1), 0xb6);
    assert_eq!(out_at(500), 0xb6);
    assert_eq!(out_at(501), 0x36);
    assert_eq!(out_at(1000), 0x36);
    assert_eq!(out_at(1001), 0xb6);
}

#[test]
fn a_latched_count_stays_until_read_and_status_comes_first() {
    let (mut pit, _, _) = pit();
    program(&mut pit, 0, 1, 2, 0);
    let t = |tick| crate::clock::time_of_tick(tick, 1_193_182);
    outb(&mut pit, t(101), 3, 0x40);
    outb(&mut pit, t(201), 3, 0x40);
    assert_eq!([inb(&mut pit, t(301), 1), inb(&mut pit, t(401), 1)], (65_536u32 - 100).to_le_bytes()[..2]);
    outb(&mut pit, t(501), 3, 0xc4);
    assert_eq!(inb(&mut pit, t(601), 1), 0xb4);
    assert_eq!([inb(&mut pit, t(602), 1), inb(&mut pit, t(603), 1)], (65_536u32 - 500).to_le_bytes()[..2]);
    assert_eq!(inb(&mut pit, t(701), 1), (65_536u32 - 700).to_le_bytes()[0], "live again");
}

#[test]
fn the_speaker_gate_times_calibration_loops() {
    // As Linux calibrates its TSC: mode 0 on counter 2, wait for OUT in port B.
    let (mut pit, _, _) = pit();
    outb(&mut pit, 0, PORT_B_OFFSET, 0x01);
    program(&mut pit, 0, 2, 0, 59_659);
    let end = crate::clock::time_of_tick(59_660, 1_193_182);
    assert_eq!(inb(&mut pit, end - 1, PORT_B_OFFSET) & 0x21, 0x01);
    assert_eq!(inb(&mut pit, end, PORT_B_OFFSET) & 0x21, 0x21);
}

#[test]
fn a_closed_gate_stops_counter_2() {
    let (mut pit, _, _) = pit();
    program(&mut pit, 0, 2, 0, 100);
    assert_eq!(inb(&mut pit, 10 * MS, PORT_B_OFFSET) & 0x20, 0);
    outb(&mut pit, 10 * MS, PORT_B_OFFSET, 0x03);
    assert_eq!(inb(&mut pit, 10 * MS + 50_000, PORT_B_OFFSET) & 0x23, 0x03);
    assert_eq!(inb(&mut pit, 10 * MS + 100_000, PORT_B_OFFSET) & 0x23, 0x23);
}

#[test]
fn port_b_stores_its_low_nibble_and_toggles_refresh() {
    let (mut pit, _, _) = pit();
    outb(&mut pit, 0, PORT_B_OFFSET, 0xff);
    assert_eq!(inb(&mut pit, 0, PORT_B_OFFSET) & 0xdf, 0x0f);
    assert_eq!(inb(&mut pit, 15_084, PORT_B_OFFSET) & 0x10, 0);
    assert_eq!(inb(&mut pit, 15_085, PORT_B_OFFSET) & 0x10, 0x10);
    assert_eq!(inb(&mut pit, 30_170, PORT_B_OFFSET) & 0x10, 0);
}

#[test]
fn bcd_counts_in_decimal() {
    let (mut pit, _, _) = pit();
    outb(&mut pit, 0, 3, 0x35);
    outb(&mut pit, 0, 0, 0x00);
    outb(&mut pit, 0, 0, 0x10);
    let now = crate::clock::time_of_tick(2, 1_193_182);
    assert_eq!([inb(&mut pit, now, 0), inb(&mut pit, now, 0)], [0x99, 0x09]);
}

#[test]
fn a_window_shows_port_b_and_odd_accesses_get_all_ones() {
    let (pit, _, _) = pit();
    let pit = Arc::new(Mutex::new(pit));
    let mut port_b = Window::new(pit.clone(), PORT_B_OFFSET);
    outb(&mut port_b, 0, 0, 0x02);
    let mut data = [0; 4];
    port_b.read(0, 0, &mut data);
    assert_eq!(data, [0x22, 0xff, 0xff, 0xff]);
    assert_eq!(inb(&mut *pit.lock(), 0, 3), 0xff, "the control register can't be read");
    assert_eq!(inb(&mut *pit.lock(), 0, 4), 0xff);
}

#[test]
fn a_late_reader_sees_the_time_go_on_even_if_another_vcpu_was_ahead() {
    let (mut pit, probe, _) = pit();
    program(&mut pit, 5 * MS, 0, 2, 1193);
    inb(&mut pit, 9 * MS, 0);
    probe.take_edges();
    inb(&mut pit, 8 * MS, 0);
    assert_eq!(probe.take_edges(), 0);
}
