//! A second try for tests whose host may break a machine's rules: an emulated one loses an interrupt or delivers it twice now and then
//! (see `lab::CPUS`), and a shared one stops a CPU for as long as it likes. What passes then is shown all the same, and `--strict`
//! counts it as failed. Where chance is in the seed and not in the host (models, oracle, schedules, fuzzing) there is none: another seed
//! would hide what the first has found.

use anyhow::Result;

use super::libtest;
use super::step::{Report, say};
use crate::failure::{self, Failure};

/// The steps that run guests for real.
const STEPS: [&str; 5] = ["cargo-test", "boots", "power-cut", "stress", "conservation"];
/// Those of them in an emulated host, which can be lost with all that is in it.
const IN_LAB: [&str; 4] = ["boots", "power-cut", "stress", "conservation"];
/// The one whose tests may have a seed of their own.
const SEEDED: &str = "cargo-test";
/// More failed tests of one step are no accident.
const FEW: usize = 3;

/// What became of `step` in the end, when it went like `first` and `run` runs its tests whose names contain something, or all of them.
///
/// # Errors
/// Those of `first`, or of the second try.
pub fn settle(
    step: &str,
    first: Result<Report>,
    mut run: impl FnMut(Option<&str>) -> Result<Report>,
) -> Result<Report> {
    let mut report = match first {
        Ok(report) => report,
        Err(error) if IN_LAB.contains(&step) && is_lost(&error) => {
            say(step, format_args!("once more: {error:#}"));
            let mut report = run(None)?;
            report.second.push(format!("all of {step}: {error:#}"));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    for test in worth_it(step, &report) {
        say(step, format_args!("once more: {test}"));
        let again = match run(Some(&test)) {
            Err(error) if is_lost(&error) => Report { output: vec![format!("{test}: {error:#}")], ..Report::default() },
            other => other?,
        };
        if again.count.failed == 0 && again.count.passed > 0 {
            report.count.failed -= 1;
            report.count.passed += 1;
            report.second.push(test);
        } else {
            report.output.extend(again.output);
        }
    }
    Ok(report)
}

/// The failed tests, if they are few, and all that failed.
fn worth_it(step: &str, report: &Report) -> Vec<String> {
    let failed: Vec<_> = libtest::failed(&report.output).into_iter().map(str::to_owned).collect();
    let known = failed.len() as u64 == report.count.failed && failed.len() <= FEW;
    // Guests are given a seed always; of the other tests only those that choose at random print one.
    let seeded =
        |test: &String| step == SEEDED && libtest::story(&report.output, test).any(|line| line.contains("seed"));
    if STEPS.contains(&step) && known && !failed.iter().any(seeded) { failed } else { Vec::new() }
}

/// Whether the emulated host was lost, or was not to be had; not the user's own ^C.
fn is_lost(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == failure::HOST && !failure.is_silent())
}

#[cfg(test)]
mod tests;
