//! From a trace that diverges to the shortest found that still does, as a test to paste.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::driver::{Op, Pair};
use crate::model::Variant;

/// Applies `op`; a panic is a divergence too: the guest must never cause one.
pub fn apply(pair: &mut Pair, op: Op) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| pair.apply(op))).unwrap_or_else(|_| Err("a panic".into()))
}

/// Runs `trace`; on a divergence how many operations it took, and what differed.
pub fn replay(variant: Variant, start: (u64, u64), trace: &[Op]) -> Result<(), (usize, String)> {
    let mut pair = Pair::new(variant, start);
    for (index, &op) in trace.iter().enumerate() {
        apply(&mut pair, op).map_err(|what| (index + 1, what))?;
    }
    Ok(())
}

/// Drops what is not needed, in ever smaller pieces, until no single operation can go.
pub fn shrink(variant: Variant, start: (u64, u64), mut trace: Vec<Op>) -> ((u64, u64), Vec<Op>) {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let start = if replay(variant, (0, 0), &trace).is_err() { (0, 0) } else { start };
    let mut piece = trace.len();
    while piece > 0 {
        let mut dropped = false;
        let mut from = 0;
        while from < trace.len() {
            let to = (from + piece).min(trace.len());
            let rest: Vec<Op> = trace[..from].iter().chain(&trace[to..]).copied().collect();
            match replay(variant, start, &rest) {
                Err((needed, _)) => {
                    trace = rest[..needed].to_vec();
                    dropped = true;
                }
                Ok(()) => from = to,
            }
        }
        if piece > 1 || !dropped {
            piece /= 2;
        }
    }
    merge_steps(variant, start, &mut trace);
    std::panic::set_hook(loud);
    (start, trace)
}

/// Makes one step of several, where it still diverges.
fn merge_steps(variant: Variant, start: (u64, u64), trace: &mut Vec<Op>) {
    let mut at = 0;
    while at + 1 < trace.len() {
        if let (Op::Step(ns, tsc), Op::Step(more_ns, more_tsc)) = (trace[at], trace[at + 1]) {
            let mut merged = trace.clone();
            merged.splice(at..at + 2, [Op::Step(ns + more_ns, tsc.wrapping_add(more_tsc))]);
            if replay(variant, start, &merged).is_err() {
                *trace = merged;
                continue;
            }
        }
        at += 1;
    }
}

/// The trace as a test.
pub fn story(variant: Variant, start: (u64, u64), trace: &[Op]) -> String {
    let what = replay(variant, start, trace).err().map_or_else(|| "it agrees now".into(), |(_, what)| what);
    let ops: String = trace.iter().map(|op| format!("        Op::{op:?},\n")).collect();
    format!(
        "program and reference differ: {what}\n\n#[test]\nfn found_by_chance() {{\n    let variant = \
         model::{variant:?};\n    let trace = [\n{ops}    ];\n    assert_eq!(shrink::replay(variant, {start:?}, \
         &trace), Ok(()));\n}}\n"
    )
}
