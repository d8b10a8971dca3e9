//! The local APIC against an independent reference: `reference_lapic/model.rs` and its neighbours are written from the
//! Intel SDM alone, as naively as possible, and a seeded random driver runs both on the same register, message, pin,
//! priority and clock trace and compares, after each operation, everything that the guest or the machine can see.
//!
//! `TOPHALF_REFERENCE_OPS` is the number of operations, `TOPHALF_REFERENCE_SEED` the seed (else one fixed and one of
//! the day run half each). A divergence is shrunk and printed as a test to paste into this file.

#[path = "reference_lapic/choices.rs"]
mod choices;
#[path = "reference_lapic/driver.rs"]
mod driver;
#[path = "reference_lapic/generate.rs"]
mod generate;
#[path = "reference_lapic/model.rs"]
mod model;
#[path = "reference_lapic/registers.rs"]
mod registers;
#[path = "reference_lapic/shrink.rs"]
mod shrink;
#[path = "reference_lapic/timer.rs"]
mod timer;

use std::time::{SystemTime, UNIX_EPOCH};

use driver::{Op, Pair, Seen};
use generate::{Generator, Random};

/// Operations on one pair of APICs: few enough to shrink fast, enough to get deep into a state.
const ROUND: u64 = 2_000;
const DEFAULT_OPS: u64 = 300_000;
const FIXED_SEED: u64 = 0x4c41_5049_4331;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs `ops` operations from `seed`.
fn run(seed: u64, ops: u64) -> Seen {
    let mut seen = Seen::default();
    let mut done = 0;
    let mut round = 0;
    while done < ops {
        let mut random = Random::new(seed.wrapping_add(round));
        let variant = random.variant();
        let mut pair = Pair::new(variant, random.start());
        let mut generator = Generator::new(random);
        let mut trace = Vec::with_capacity(ROUND as usize);
        for _ in 0..ROUND.min(ops - done) {
            let op = generator.next(&pair);
            trace.push(op);
            if shrink::apply(&mut pair, op).is_err() {
                let (start, trace) = shrink::shrink(variant, pair.start, trace);
                panic!("seed {seed}, round {round}: {}", shrink::story(variant, start, &trace));
            }
        }
        seen.add(&pair.seen);
        done += ROUND;
        round += 1;
    }
    seen
}

#[test]
fn program_and_reference_agree_on_every_operation() {
    let ops = number("TOPHALF_REFERENCE_OPS").unwrap_or(DEFAULT_OPS);
    if let Some(seed) = number("TOPHALF_REFERENCE_SEED") {
        run(seed, ops);
        return;
    }
    let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    run(FIXED_SEED, ops.div_ceil(2));
    run(FIXED_SEED.wrapping_mul(day + 3), ops / 2);
}

#[test]
fn a_divergence_is_found_shrunk_to_what_it_needs_and_told_as_a_test() {
    // Nothing on the reference's side knows of the request that goes to the program alone, but it has to show.
    let variant = Random::new(FIXED_SEED).variant();
    let mut pair = Pair::new(variant, (0, 0));
    pair.program.accept(0x40, x86::apic::TriggerMode::Edge);
    assert!(shrink::apply(&mut pair, Op::TakeNmi).is_err());
    // Of a trace that fails for one operation in the middle (a read too long for us: a panic), that one is left.
    let mut trace = vec![Op::Eoi; 50];
    trace[20] = Op::MmioRead(0x30, 9);
    let (start, shrunk) = shrink::shrink(variant, (5, 5), trace);
    assert_eq!((start, &shrunk[..]), ((0, 0), &[Op::MmioRead(0x30, 9)][..]));
    assert!(shrink::story(variant, start, &shrunk).contains("Op::MmioRead(48, 9),"));
}

/// Enough of everything happens for the agreement to mean something.
#[test]
fn the_random_trace_reaches_every_kind_of_state() {
    let seen = run(FIXED_SEED, 100_000);
    for (what, times) in seen.list() {
        assert!(times >= 20, "{what}: only {times} times in 100,000 operations");
    }
}
