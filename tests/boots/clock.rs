//! The guest's clock against the host's over the same stretch, in every timer mode and with every clocksource.
//!
//! The host asks "what time is it?" and the guest answers; the guest read its clock somewhere between the question and
//! the answer. Two such readings bound the stretch from both sides, and the bounds must be within 1% of what the
//! guest says. What makes these red: ticks that are lost or doubled, a counter with a wrong frequency or one that
//! stands still while the vCPU is out of the guest.

use std::fs;
use std::time::{Duration, Instant};

use crate::session::Session;

/// The least time between two readings.
const STRETCH: Duration = Duration::from_secs(6);
/// The share of a stretch that the guest's clock may be off.
const TOLERANCE: f64 = 0.01;
/// What /proc/uptime rounds off.
const RESOLUTION: f64 = 0.01;

struct Reading {
    asked: Instant,
    answered: Instant,
    guest: f64,
    stolen: u64,
}

impl Reading {
    fn take(session: &mut Session) -> Self {
        let stolen = stolen_ticks();
        let asked = Instant::now();
        session.send("clock");
        let (answered, answer) = session.answer();
        Self { asked, answered, guest: answer.parse().expect("an uptime"), stolen }
    }
}

/// One stretch: whether the guest's clock was right, and whether the host lost more than 1% of its time to others.
struct Stretch {
    /// How far the guest is outside of what the host can have seen, in seconds; negative is too slow.
    off: f64,
    length: f64,
    stolen: bool,
}

impl Stretch {
    fn measure(session: &mut Session) -> Self {
        let first = Reading::take(session);
        session.send(&format!("quiet {}", STRETCH.as_secs()));
        session.answer_is("quiet");
        session.answer_is("awake");
        let last = Reading::take(session);
        let guest = last.guest - first.guest;
        let shortest = (last.asked - first.answered).as_secs_f64() - RESOLUTION;
        let longest = (last.answered - first.asked).as_secs_f64() + RESOLUTION;
        let off = if guest < shortest { guest - shortest } else { (guest - longest).max(0.0) };
        // USER_HZ is 100 on x86.
        let stolen = (last.stolen - first.stolen) as f64 / 100.0 > longest * 0.01;
        Self { off, length: shortest, stolen }
    }

    fn is_right(&self) -> bool {
        self.off.abs() <= self.length * TOLERANCE
    }
}

/// The "steal" column of /proc/stat, all CPUs.
fn stolen_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    line.split_whitespace().nth(8).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn assert_in_step(session: &mut Session, what: &str) {
    let mut stretch = Stretch::measure(session);
    if !stretch.is_right() && stretch.stolen {
        stretch = Stretch::measure(session);
    }
    let Stretch { off, length, .. } = stretch;
    println!("{what}: {off:+.3} s outside what is possible over {length:.1} s");
    assert!(stretch.is_right(), "{what}: off by {off:+.3} s over {length:.1} s");
}

/// Boots with `words`; the clock events come from `events`; then every clocksource is tried.
fn keeps_time(words: &str, events: &str, sources: &[&str]) {
    let mut session = Session::start(&["--cpus", "2"], words);
    let device = session.ask("events");
    assert_eq!(device, events, "{words:?}");
    let available = session.ask("sources");
    for source in sources {
        assert!(available.split(' ').any(|name| name == *source), "no {source} in {available:?} with {words:?}");
    }
    // What counts ticks is no clock: on a slow host ticks merge, and are not made up for.
    let clocks = available.split_whitespace().filter(|name| !name.ends_with("jiffies"));
    for source in clocks {
        assert_eq!(session.ask(&format!("source {source}")), source);
        assert_in_step(&mut session, &format!("{events}, {source}"));
    }
    session.end();
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn the_clock_is_right_with_tsc_deadlines() {
    keeps_time("", "lapic-deadline", &["tsc", "hpet", "acpi_pm"]);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn the_clock_is_right_with_one_shots() {
    keeps_time("lapic=notscdeadline", "lapic", &["tsc", "acpi_pm"]);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn the_clock_is_right_with_a_periodic_tick() {
    keeps_time("lapic=notscdeadline nohz=off highres=off", "lapic", &["tsc", "acpi_pm"]);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn the_clock_is_right_with_the_pit() {
    keeps_time("nolapic hpet=disable", "pit", &["tsc", "acpi_pm"]);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn the_clock_is_right_with_the_hpet() {
    keeps_time("nolapic", "hpet", &["tsc", "hpet", "acpi_pm"]);
}
