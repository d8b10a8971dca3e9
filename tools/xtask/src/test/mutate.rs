//! The step that sees whether the guest's tests find faults: six of those that the program can be built with, others each day; all of
//! them with `--full`. On this machine's own /dev/kvm, whatever it is.

use anyhow::Result;

use super::libtest::Count;
use super::step::{self, Report};
use super::{LIMIT, workspace};
use crate::mutate;

/// Tries six faults, or all if `full`. Each counts as a test, which has passed if the fault was found. Before them come the tests of what
/// chooses a fault, which is in no other build.
///
/// # Errors
/// When something does not build.
pub fn run(full: bool) -> Result<Report> {
    let mut report = step::tests(workspace::cargo().args(["test", "-p", "fault", "--features", "faults"]), LIMIT)?;
    if let Some(obstacle) = mutate::obstacle() {
        report.count += Count { skipped: 1, ..Count::default() };
        report.reason = Some(obstacle);
        return Ok(report);
    }
    for outcome in mutate::run(full)? {
        report.count += Count::one(outcome.verdict.is_found());
        if !outcome.verdict.is_found() {
            report.output.push(format!("{}: {}", outcome.fault, outcome.verdict));
        }
    }
    Ok(report)
}
