use super::pin::{DAMPED_FOR, REFIRES_AT_ONCE};
use super::tests::*;
use super::*;

/// EOIs a line that never falls until the damper steps in; how often it fired again before that.
fn storm(bench: &mut Bench) -> usize {
    bench.vectors();
    while bench.chip.next_deadline().is_none() && bench.sent.len() < 2 * REFIRES_AT_ONCE as usize {
        bench.eoi(0x39);
    }
    bench.vectors().len()
}

#[test]
fn a_storm_of_early_eois_is_damped() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.now = 5;
    bench.line(9, true);
    assert_eq!(storm(&mut bench), 10_000);
    assert_eq!(bench.chip.next_deadline(), Some(5 + 10_000_000));
    assert_eq!(bench.read_low(9), LEVEL | SEND_PENDING | 0x39);
    bench.run(|chip, _, sink| chip.destinations_changed(sink));
    bench.now = 4 + DAMPED_FOR;
    bench.expire();
    assert_eq!(bench.vectors(), [], "too early");
    bench.now = 5 + DAMPED_FOR;
    bench.expire();
    assert_eq!(bench.vectors(), [0x39]);
    assert_eq!(bench.chip.next_deadline(), None);
    assert_eq!(storm(&mut bench), 10_000, "and from the start");
    assert_eq!(bench.chip.counters(9).unwrap().damped, 2);
}

#[test]
fn a_fall_or_a_write_of_the_entry_ends_the_damping() {
    let fall: fn(&mut Bench) = |bench| {
        bench.line(9, false);
        bench.line(9, true);
    };
    let write: fn(&mut Bench) = |bench| bench.low(9, LEVEL | 0x39);
    // Found by the reference model: the high half is a part of the entry.
    let write_high: fn(&mut Bench) = |bench| bench.high(9, 0);
    for end in [fall, write, write_high] {
        let mut bench = Bench::with_entry(9, LEVEL | 0x39);
        bench.line(9, true);
        storm(&mut bench);
        end(&mut bench);
        assert_eq!(bench.chip.next_deadline(), None);
        assert_eq!(bench.vectors(), [0x39]);
    }
}

#[test]
fn a_line_that_falls_now_and_then_is_never_damped() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    for _ in 0..3 {
        bench.line(9, true);
        (0..REFIRES_AT_ONCE).for_each(|_| bench.eoi(0x39));
        bench.line(9, false);
        bench.eoi(0x39);
    }
    assert_eq!(bench.chip.counters(9).unwrap().damped, 0);
    assert_eq!(bench.vectors().len() as u32, 3 * (1 + REFIRES_AT_ONCE));
}

#[test]
fn the_damper_of_one_pin_leaves_the_others_alone() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.low(11, LEVEL | 0x3b);
    bench.line(9, true);
    storm(&mut bench);
    bench.line(11, true);
    bench.eoi(0x3b);
    assert_eq!(bench.vectors(), [0x3b, 0x3b]);
}

#[test]
fn the_damper_survives_the_end_of_time() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.now = Nanos::MAX;
    bench.line(9, true);
    storm(&mut bench);
    assert_eq!(bench.chip.next_deadline(), Some(Nanos::MAX));
}
