//! The step that runs the guest kernel's tests on hardware KVM or in the emulated host: what this machine's own KVM can't run
//! (instructions that a software KVM does not interpret) is run here. Whether it loses interrupts is seen on the software KVM, too.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::conservation;
use super::libtest::Count;
use super::step::{Report, say};
use crate::assets::Assets;
use crate::failure::Failure;
use crate::kept::Kept;
use crate::lab::{self, Copy, Job};
use crate::{child, failure, hardware, workspace};

/// The suite takes a few minutes in the emulated host.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs the tests whose names contain `filter`: in `user` mode, or in all modes if `full`.
///
/// # Errors
/// When something does not build, or the emulated host died.
pub fn run(full: bool, filter: Option<&str>) -> Result<Report> {
    say("stress", "building");
    let tophalf = workspace::build_program("tophalf", "tophalf")?;
    let only = filter.map(|filter| format!("*{filter}*"));
    let mut whole = Report::default();
    // See [`lab::CPUS`] for why.
    let groups: &[_] = if full { &[("user", lab::CPUS), ("split,kernel", 1)] } else { &[("user", lab::CPUS)] };
    for &(modes, cpus) in groups {
        if let Some(pattern) = &only
            && !any_matches(&tophalf, modes, pattern)?
        {
            continue;
        }
        let mut arguments = ["stress", "--irqchip", modes].map(str::to_owned).to_vec();
        arguments.extend(only.iter().flat_map(|pattern| ["--only".to_owned(), pattern.clone()]));
        whole += match output(&tophalf, &[arguments], cpus, LIMIT)? {
            Ran::Output(output) => report(&output),
            Ran::Not(reason) => Report::skipped(1, reason),
        };
    }
    if hardware::obstacle().is_some() {
        whole += conservation::on_software_kvm(&tophalf, filter)?;
    }
    Ok(whole)
}

/// What became of some runs of the program.
pub(super) enum Ran {
    /// What all of them printed: first what is for people, then the results.
    Output(String),
    /// They can't be had on this machine, and why.
    Not(String),
}

/// Runs the program once with each of these arguments, here, or in an emulated host with so many CPUs that has so much time for all.
pub(super) fn output(tophalf: &Path, runs: &[Vec<String>], cpus: u32, limit: Duration) -> Result<Ran> {
    let Some(obstacle) = hardware::obstacle() else {
        let outputs: Result<Vec<_>> = runs.iter().map(|arguments| here(tophalf, arguments, limit)).collect();
        return Ok(Ran::Output(outputs?.concat()));
    };
    if let Err(error) = Assets::open().and_then(|assets| assets.qemu()) {
        return match error.downcast_ref::<Failure>() {
            Some(missing) if missing.code == failure::HOST => Ok(Ran::Not(format!("{error:#}"))),
            _ => Err(error),
        };
    }
    say("stress", format_args!("in the emulated host ({obstacle})"));
    let lines: Vec<_> = runs.iter().map(|arguments| format!("tophalf {} --json -", arguments.join(" "))).collect();
    // None of the words has a meaning for the shell but patterns, and those that no file matches stay as they are.
    let command = ["sh", "-c", &lines.join("\n")].map(str::to_owned).to_vec();
    in_lab(command, Copy { host: tophalf.to_owned(), guest: "/bin/tophalf".to_owned() }, cpus, limit).map(Ran::Output)
}

fn any_matches(tophalf: &Path, modes: &str, pattern: &str) -> Result<bool> {
    let output = Command::new(tophalf).args(["stress", "--list", "--irqchip", modes, "--only", pattern]).output();
    Ok(output.context("cannot list the guest's tests")?.status.success())
}

/// Runs the program on this machine; gives what it has printed, and then the results.
pub(super) fn here(tophalf: &Path, arguments: &[String], limit: Duration) -> Result<String> {
    // Not among what it prints: the lines of its two streams come in any order.
    let file = NamedTempFile::new().context("no temporary file for the results")?;
    let mut output = String::new();
    child::run(Command::new(tophalf).args(arguments).arg("--json").arg(file.path()), limit, |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    Ok(output + &fs::read_to_string(file.path()).unwrap_or_default())
}

fn in_lab(command: Vec<String>, program: Copy, cpus: u32, limit: Duration) -> Result<String> {
    let (results, stories) = (Kept::default(), Kept::default());
    let job = Job {
        command,
        files: vec![program],
        cpus,
        timeout: Some(limit),
        stdout: Box::new(results.clone()),
        stderr: Box::new(stories.clone()),
        ..Job::default()
    };
    lab::run(job)?;
    // One after the other: a line of a story in the middle of the results would spoil them.
    Ok(stories.text() + &results.text())
}

/// The results are the JSON objects among the lines, one of each run; without one, or with one that has no tests, the whole has failed.
pub(super) fn report(output: &str) -> Report {
    let (results, lines) = results(output);
    let outcomes = |result: &Value| -> Option<Vec<String>> {
        let tests = result["tests"].as_array().filter(|tests| !tests.is_empty())?;
        tests.iter().map(|test| Some(test["outcome"].as_str()?.to_owned())).collect()
    };
    let outcomes: Option<Vec<Vec<String>>> = results.iter().map(outcomes).collect();
    let Some(outcomes) = outcomes.filter(|runs| !runs.is_empty()).map(|runs| runs.concat()) else {
        let all = output.lines().map(str::to_owned).collect();
        return Report {
            count: Count::one(false),
            output: all,
            reason: Some("no results".to_owned()),
            ..Report::default()
        };
    };
    let number = |wanted: &[&str]| outcomes.iter().filter(|outcome| wanted.contains(&outcome.as_str())).count() as u64;
    let count = Count {
        passed: number(&["passed", "known"]),
        skipped: number(&["skipped"]),
        failed: outcomes.len() as u64 - number(&["passed", "known", "skipped"]),
    };
    // What went well would hide the stories of what failed.
    let went_well = |line: &str| matches!(line.split_whitespace().nth(1), Some("ok" | "known" | "skipped"));
    Report { count, output: lines.into_iter().filter(|line| !went_well(line)).collect(), ..Report::default() }
}

/// The JSON objects, which begin and end with a line that is a brace, and the other lines.
pub(super) fn results(output: &str) -> (Vec<Value>, Vec<String>) {
    let (mut objects, mut object, mut others) = (Vec::new(), None, Vec::new());
    for line in output.lines() {
        match (&mut object, line) {
            (None, "{") => object = Some(String::from(line)),
            (None, _) => others.push(line.to_owned()),
            (Some(text), _) => {
                text.push_str(line);
                if line == "}" {
                    // What is no JSON after all leaves the run without results.
                    objects.push(serde_json::from_str(text).unwrap_or_default());
                    object = None;
                }
            }
        }
    }
    // One that has no end is none of ours.
    objects.extend(object.map(|_| Value::Null));
    (objects, others)
}

#[cfg(test)]
mod tests;
