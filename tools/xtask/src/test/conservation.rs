//! The step that balances the books of a million interrupts in each mode: the guest's tests of conservation, with more of each kind
//! than the suite has, on hardware KVM or in the emulated host. And a tenth of that on a software KVM.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::libtest::Count;
use super::step::{Report, say};
use super::stress::{self, Ran};
use crate::{failure, lab, mutate, workspace};

const MODES: [&str; 3] = ["user", "split", "kernel"];
/// Interrupts in each mode; with `--full` ten times as many.
const INTERRUPTS: u64 = 1_000_000;
/// Interrupts in each mode on a software KVM.
const SOME: u64 = 100_000;
/// Which test sends how many of each [`INTERRUPTS`] and of each [`SOME`]. Where each event arrives by itself one takes far longer than in
/// a flood, and longest where two vCPUs that wait for each other have one processor.
const MIX: [(&str, u64, u64); 13] = [
    ("conservation.ipis_to_oneself", 80_000, 1_200),
    ("conservation.ipis_between_cpus", 80_000, 1_200),
    ("conservation.all_kinds_on_one_cpu", 30_000, 1_200),
    ("conservation.all_kinds_on_two_cpus", 30_000, 1_200),
    ("conservation.all_kinds_on_four_cpus", 30_000, 1_200),
    ("conservation.lines_and_messages", 8_000, 1_200),
    ("conservation.timers_and_sleep", 20_000, 1_200),
    ("conservation.nmis", 3_000, 300),
    ("conservation.requests_merge_to_one", 90_000, 1_200),
    ("conservation.flood_of_edges", 30_000, 23_000),
    ("conservation.flood_of_messages", 40_000, 23_000),
    ("conservation.flood_of_lines_through_the_pic", 300_000, 23_000),
    ("conservation.flood_of_levels", 300_000, 23_000),
];
/// For a million in one mode.
const LIMIT: Duration = Duration::from_secs(3600);

/// What of it is to be run.
#[derive(Debug, PartialEq)]
struct Choice {
    modes: Vec<&'static str>,
    tests: Vec<(&'static str, u64, u64)>,
}

/// Reads `MODE`, `NAME` (a part of a test's name), or `MODE:NAME`.
///
/// # Errors
/// A usage error when no test has that name.
fn choose(part: Option<&str>) -> Result<Choice> {
    let part = part.unwrap_or_default();
    let (mode, name) = match part.split_once(':') {
        Some(both) => both,
        None if MODES.contains(&part) => (part, ""),
        None => ("", part),
    };
    let modes: Vec<_> = MODES.into_iter().filter(|known| mode.is_empty() || *known == mode).collect();
    let tests: Vec<_> = MIX.into_iter().filter(|(test, ..)| test.contains(name)).collect();
    if modes.is_empty() || tests.is_empty() {
        let names: Vec<_> = MIX.iter().filter_map(|(test, ..)| test.strip_prefix("conservation.")).collect();
        return Err(failure::usage(format!(
            "no test of conservation is {part:?}; give a mode ({}), a part of a name ({}), or MODE:NAME",
            MODES.join(", "),
            names.join(", ")
        )));
    }
    Ok(Choice { modes, tests })
}

/// Whether there is something to run.
///
/// # Errors
/// As [`choose`].
pub fn check(part: Option<&str>) -> Result<()> {
    choose(part).map(|_| ())
}

/// Builds, and runs all of it, or a part: see [`choose`].
///
/// # Errors
/// A usage error for a part that there is not; when something does not build, or the emulated host died.
pub fn run(full: bool, part: Option<&str>) -> Result<Report> {
    let choice = choose(part)?;
    say("conservation", "building");
    let tophalf = workspace::build_program("tophalf", "tophalf")?;
    let factor = if full { 10 } else { 1 };
    let mut whole = Report::default();
    for mode in choice.modes {
        // See [`lab::CPUS`] for why.
        let cpus = if mode == "user" { lab::CPUS } else { 1 };
        let runs: Vec<_> = choice.tests.iter().map(|&(test, count, _)| arguments(mode, test, factor * count)).collect();
        let output = match stress::output(&tophalf, &runs, cpus, LIMIT * factor as u32)? {
            Ran::Output(output) => output,
            Ran::Not(reason) => return Ok(Report::skipped(1, reason)),
        };
        whole += judge("conservation", &output, mode, (choice.tests.len() == MIX.len()).then_some(factor * INTERRUPTS));
    }
    Ok(whole)
}

/// Sends 100,000 in each mode through a software KVM's machines, if this machine has one; only in the tests whose names contain `name`.
///
/// # Errors
/// When the program can't be started.
pub fn on_software_kvm(tophalf: &Path, name: Option<&str>) -> Result<Report> {
    let tests: Vec<_> = MIX.into_iter().filter(|(test, ..)| name.is_none_or(|name| test.contains(name))).collect();
    let mut whole = Report::default();
    if mutate::obstacle().is_some() {
        return Ok(whole);
    }
    for mode in MODES {
        let mut output = String::new();
        for &(test, _, count) in &tests {
            output += &stress::here(tophalf, &arguments(mode, test, count), LIMIT)?;
        }
        if !tests.is_empty() {
            whole += judge("stress", &output, mode, (tests.len() == MIX.len()).then_some(SOME));
        }
    }
    Ok(whole)
}

fn arguments(mode: &str, test: &str, count: u64) -> Vec<String> {
    let count = count.to_string();
    ["stress", "--irqchip", mode, "--only", test, "--count", &count].map(str::to_owned).to_vec()
}

/// Says what was sent in a mode; when all went well it must have been as much as is wanted.
fn judge(step: &str, output: &str, mode: &str, wanted: Option<u64>) -> Report {
    let sent = sent(&stress::results(output).0);
    say(step, format_args!("{mode}: {sent} interrupts"));
    let mut report = stress::report(output);
    if report.count.failed == 0 {
        // The summaries of a dozen runs would hide the stories of others.
        report.output.clear();
    }
    if let Some(wanted) = wanted.filter(|_| report.count.failed == 0) {
        report += enough(sent, wanted, mode);
    }
    report
}

/// What the guests have sent, of all kinds.
fn sent(results: &[Value]) -> u64 {
    let of_run = |result: &Value| -> u64 {
        let kinds = result["totals"].as_object().into_iter().flatten();
        kinds.filter_map(|(_, kind)| kind["sent"].as_u64()).sum()
    };
    results.iter().map(of_run).sum()
}

/// A test of its own: that there was something to count.
fn enough(sent: u64, wanted: u64, mode: &str) -> Report {
    let enough = sent >= wanted;
    let reason = (!enough).then(|| format!("only {sent} interrupts in {mode} mode, not {wanted}"));
    Report { count: Count::one(enough), reason, ..Report::default() }
}

#[cfg(test)]
mod tests;
