//! How steps that run at once are dealt out.

use std::collections::BTreeSet;
use std::sync::Barrier;

use super::*;

#[test]
fn every_step_runs_once_whatever_runs_beside_it() {
    for at_once in 1..=STEPS.len() {
        let reports = together(&STEPS, at_once, |_| Report { count: Count::one(true), ..Report::default() });
        let names: BTreeSet<_> = reports.iter().map(|(name, _)| *name).collect();
        assert_eq!((reports.len(), names), (STEPS.len(), STEPS.into_iter().collect()));
    }
    assert!(together(&[], 0, |_| Report::default()).is_empty());
}

#[test]
fn as_many_run_at_once_as_may() {
    // Each waits for the other: one after the other they would never end.
    let both = Barrier::new(2);
    let run = |_| {
        both.wait();
        Report { count: Count::one(true), ..Report::default() }
    };
    assert_eq!(together(&["boots", "stress"], 2, run).len(), 2);
}
