use std::time::Duration;

use super::{Gathered, LATENCY, Place, Setting, kinds};
use crate::cli::bench::measure::machine::{Measured, Tally, Trouble};
use crate::cli::bench::measure::peer::KernelIrqchip;
use crate::cli::bench::results::{PerInterrupt, Table};
use crate::cli::stress::plan::Mode;

fn place(mode: Mode, round: u32) -> Place {
    Place { table: Table::Best, mode: Setting::Ours(mode), round, started: Duration::from_secs(1) }
}

/// A TSC of 2 GHz.
fn measured(kind: &str, ticks: &[i64]) -> Measured {
    let tally = |n: u64| Tally { exits: n, kicks: 0, ioctls: 2 * n, system_calls: 3 * n };
    Measured {
        kind: kind.into(),
        trouble: None,
        series: vec![(LATENCY.into(), ticks.iter().map(|ticks| (*ticks, 0)).collect())],
        clocks: vec![(1_000, 500), (2_001_000, 1_000_500)],
        tallies: vec![tally(10), tally(12), tally(12 + 2 + 4 * ticks.len() as u64)],
    }
}

#[test]
fn ticks_become_nanoseconds_and_counts_an_average() {
    let mut gathered = Gathered::default();
    gathered.add(place(Mode::User, 0), vec![measured("self_ipi", &[200, 400, 600])]).unwrap();
    let [row] = &gathered.rows(1)[..] else { panic!("one row") };
    assert_eq!((row.kind.as_str(), row.mode.as_str(), row.rounds.len()), ("self_ipi", "user", 1));
    let summary = row.summary;
    assert_eq!((summary.count, summary.min, summary.p50, summary.max), (3, 100, 200, 300));
    // Looking costs 2 exits; there were 12 besides.
    let each = PerInterrupt { exits: 4.0, kicks: 0.0, ioctls: 8.0, system_calls: 12.0 };
    assert_eq!(row.per_interrupt, Some(each));
    let slowest = row.outliers[0];
    // The last third of a millisecond that began 500 ns after the machine.
    assert_eq!((slowest.latency_ns, slowest.at_ns), (300, 1_000_000_500 + 666_666));
    assert_eq!((row.ratio, &row.missing), (None, &None));
}

#[test]
fn what_was_meant_to_pass_is_no_latency() {
    let mut timer = measured("timer_oneshot", &[]);
    timer.series = vec![
        (LATENCY.into(), vec![(2_000_000, 999_900), (2_000_400, 1_000_000)]),
        ("a part".into(), vec![(20, 0), (40, 0)]),
    ];
    let mut gathered = Gathered::default();
    gathered.add(place(Mode::User, 0), vec![timer]).unwrap();
    let row = &gathered.rows(1)[0];
    assert_eq!((row.summary.min, row.summary.max), (100, 200));
    assert_eq!((row.stages[0].name.as_str(), row.stages[0].summary.max), ("a part", 20));
}

#[test]
fn an_interrupt_before_its_cause_fails_the_run() {
    let mut gathered = Gathered::default();
    let error = gathered.add(place(Mode::Split, 7), vec![measured("msi", &[2_000, -240])]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("msi in mode split, round 7, came 120 ns before"), "{text}");
    assert_eq!(error.exit_code(), vmm::exit_code::HOST);
    // Less than half a nanosecond is rounding.
    gathered.add(place(Mode::Split, 8), vec![measured("msi", &[0])]).unwrap();
}

#[test]
fn ratios_are_to_kernel_mode_in_the_same_rounds_and_the_clock_is_no_row() {
    let mut gathered = Gathered::default();
    for round in 0..6 {
        let drift = 1 + i64::from(round);
        let both = |ticks: i64| vec![measured("clock", &[100]), measured("eoi", &[ticks * drift; 9])];
        gathered.add(place(Mode::User, round), both(6_000)).unwrap();
        gathered.add(place(Mode::Kernel, round), both(2_000)).unwrap();
    }
    assert!((gathered.overhead_ns() - 50.0).abs() < 0.1);
    let rows = gathered.rows(1);
    assert_eq!(rows.len(), 2);
    let user = rows.iter().find(|row| row.mode == "user").unwrap().ratio.expect("a ratio").p50;
    // The host gets slower from round to round, six times in all; both modes suffer alike, as neighbours do.
    assert!((user.low..=user.high).contains(&3.0) && (2.9..3.1).contains(&user.estimate), "{user:?}");
    assert_eq!(rows.iter().find(|row| row.mode == "kernel").unwrap().ratio, None);
    assert!(!gathered.is_precise(0.1, 1), "kernel's own median is anywhere between 1 and 6 us");
}

/// What tracing costs is told by the same mode, and `kernel`'s too.
#[test]
fn ratios_of_traced_modes_are_to_the_same_modes_untraced() {
    let mut gathered = Gathered::default();
    for (table, mode, ticks) in [
        (Table::Best, Mode::User, 400),
        (Table::Best, Mode::Kernel, 100),
        (Table::Traced, Mode::User, 600),
        (Table::Traced, Mode::Kernel, 300),
    ] {
        for round in 0..2 {
            gathered.add(Place { table, ..place(mode, round) }, vec![measured("msi", &[ticks])]).unwrap();
        }
    }
    let rows = gathered.rows(1);
    let ratios: Vec<_> = rows.iter().map(|row| (row.table, row.ratio.map(|ratio| ratio.p50.estimate))).collect();
    let wanted =
        [(Table::Best, Some(4.0)), (Table::Best, None), (Table::Traced, Some(1.5)), (Table::Traced, Some(3.0))];
    assert_eq!(ratios, wanted);
}

#[test]
fn precise_is_what_does_not_differ_from_round_to_round() {
    let mut gathered = Gathered::default();
    assert!(!gathered.is_precise(0.1, 1), "nothing at all");
    for round in 0..6 {
        let ticks = 2_000 + 10 * i64::from(round);
        gathered.add(place(Mode::User, round), vec![measured("eoi", &[ticks; 5])]).unwrap();
    }
    assert!(gathered.is_precise(0.1, 1));
    assert!(!gathered.is_precise(0.001, 1));
}

#[test]
fn what_is_missing_says_why_and_what_fails_once_is_told() {
    let skipped = |why: Trouble| Measured { kind: "eoi".into(), trouble: Some(why), ..Measured::default() };
    let mut gathered = Gathered::default();
    gathered.add(place(Mode::User, 0), vec![skipped(Trouble::Missing("no HPET".into()))]).unwrap();
    assert_eq!(gathered.rows(1)[0].missing.as_deref(), Some("no HPET"));
    assert!(gathered.failures.is_empty());
    gathered.add(place(Mode::User, 1), vec![measured("eoi", &[10])]).unwrap();
    gathered.add(place(Mode::User, 2), vec![skipped(Trouble::Failed("in vain".into()))]).unwrap();
    let row = &gathered.rows(1)[0];
    assert_eq!((row.rounds.len(), &row.missing), (1, &None));
    assert_eq!(gathered.failures, ["eoi in mode user, round 2: in vain"]);
}

#[test]
fn qemus_ticks_have_the_rate_of_our_machines_and_what_it_lacks_is_said() {
    let mut gathered = Gathered::default();
    let qemu = Place { mode: Setting::Qemu(KernelIrqchip::On), ..place(Mode::Kernel, 0) };
    let ours = measured("self_ipi", &[200, 400, 600]);
    let theirs = Measured { clocks: Vec::new(), tallies: Vec::new(), ..measured("self_ipi", &[200, 400, 600]) };
    gathered.add(place(Mode::Kernel, 0), vec![ours]).unwrap();
    gathered.add(qemu, vec![theirs]).unwrap();
    gathered.leave_out(Setting::Qemu(KernelIrqchip::Off), ["self_ipi", kinds::CLOCK].into_iter(), "it is no more");
    let rows = gathered.rows(1);
    assert_eq!(rows.iter().map(|row| row.mode.as_str()).collect::<Vec<_>>(), ["kernel", "qemu-on", "qemu-off"]);
    assert_eq!(rows[0].summary, rows[1].summary);
    assert!(rows[1].summary.count == 3 && rows[1].per_interrupt.is_none());
    assert_eq!((rows[2].summary.count, rows[2].missing.as_deref()), (0, Some("it is no more")));
}
