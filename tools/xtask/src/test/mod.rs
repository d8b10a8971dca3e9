//! `cargo xtask test`: every test there is, step by step, and one verdict.

mod again;
mod boots;
mod conservation;
mod dist;
mod libtest;
mod mutate;
mod oracle;
mod power_cut;
mod program;
mod step;
mod stress;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::{failure, workspace};
use libtest::Count;
use step::Report;

/// The steps, in their order.
const STEPS: [&str; 16] = [
    "fmt",
    "guest-fmt",
    "clippy",
    "guest-clippy",
    "doc",
    "cargo-test",
    "boots",
    "power-cut",
    "stress",
    "conservation",
    "oracle",
    "reference",
    "loom",
    "shuttle",
    "mutate",
    "dist",
];
/// Up to this step they run one after the other, each with all processors; those after it take what is free: an emulated host
/// uses one processor.
const LAST_ALONE: &str = "cargo-test";
/// Steps at once at most: an emulated host takes 4 GiB of memory. And no more than there are processors.
const AT_ONCE: usize = 3;
/// Steps that have no tests to choose from.
const CHECKS: [&str; 8] = ["fmt", "guest-fmt", "clippy", "guest-clippy", "doc", "conservation", "dist", "mutate"];
/// The chips against their reference models, in a release build for as many operations as [`reference_operations`] says.
const REFERENCE_TESTS: [&str; 3] = ["reference_pic", "reference_ioapic", "reference_lapic"];
/// How many schedules shuttle runs the pipeline under.
const SCHEDULES: u32 = 100_000;
/// Limit for a step that builds and runs; a cold build on two cores takes a few minutes.
const LIMIT: Duration = Duration::from_secs(3600);
/// Lines shown of what a failed step printed.
const SHOWN: usize = 200;
/// The same, behind what the failed tests printed themselves.
const SHOWN_AFTER_FAILURES: usize = 20;

/// Run every test: fmt, clippy, doc, unit and integration tests, loom, shuttle, reference models, the guest's own tests, whether they find faults, the Debian package, KVM's controllers as an oracle, boots in the emulated host, and what is left on a disk after a cut of its power.
#[derive(Args)]
pub struct Options {
    /// Also the long runs: 20 boots where otherwise 3 do, ten cuts of power where otherwise one does, ten times the operations against the reference models and KVM's controllers, ten times the interrupts, all faults where otherwise six are looked for
    #[arg(long)]
    full: bool,
    /// Count as failed what passes at a second try only
    #[arg(long)]
    strict: bool,
    /// Only this step (fmt, guest-fmt, clippy, guest-clippy, doc, cargo-test, loom, shuttle, reference, dist, stress, conservation, mutate, oracle, boots, power-cut), or only tests whose name contains this
    #[arg(value_name = "STEP|NAME")]
    filter: Option<String>,
    /// Of that step only tests whose name contains this; of conservation also a mode, or MODE:NAME
    #[arg(value_name = "NAME")]
    part: Option<String>,
}

/// Runs the steps; exit code 1 when anything failed. The last line is `N passed, M failed, K skipped`.
///
/// # Errors
/// Exit code 2 for two names of which the first is no step's, and for a test of conservation that there is not; a step that cannot run is a failure or skipped.
pub fn main(options: &Options) -> Result<u8> {
    let filter = options.filter.as_deref();
    let step = filter.filter(|filter| STEPS.contains(filter));
    let names = if step.is_some() { options.part.as_deref() } else { filter };
    if let (None, Some(filter), Some(_)) = (step, filter, &options.part) {
        return Err(failure::usage(format!("{filter} is no step; a step comes first, then a part of a test's name")));
    }
    if step == Some("conservation") {
        conservation::check(names)?;
    }
    let wanted = |name: &str| match (step, names) {
        (Some(step), _) => step == name,
        (None, Some(_)) => !CHECKS.contains(&name),
        (None, None) => true,
    };
    let steps: Vec<_> = STEPS.into_iter().filter(|name| wanted(name)).collect();
    let (alone, rest) = steps.split_at(steps.iter().position(|name| *name == LAST_ALONE).map_or(0, |last| last + 1));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let run = |name, threads| {
        let run = |names: Option<&str>| run(name, options.full, names, threads);
        step::run(name, || {
            if options.strict { run(names) } else { again::settle(name, run(names), |test| run(test.or(names))) }
        })
    };
    let mut reports: Vec<_> = alone.iter().map(|&name| (name, run(name, processors))).collect();
    let at_once = processors.clamp(1, AT_ONCE).min(rest.len());
    reports.extend(together(rest, at_once, |name| run(name, processors / at_once)));
    let mut total = Count::default();
    for (_, report) in &reports {
        total += report.count;
    }
    for (name, report) in reports.iter().filter(|(_, report)| report.count.failed > 0 || !report.second.is_empty()) {
        show(name, report);
    }
    // Once more, at the very end, where everybody looks first.
    for (name, report) in &reports {
        for test in &report.second {
            println!("passed at the second try: {name}: {test}");
        }
        for failed in report.failed() {
            println!("FAILED: {name}: {failed}");
        }
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(u8::from(total.failed > 0))
}

/// Runs the steps, `at_once` of them at any time, begun in their order.
fn together(
    steps: &[&'static str],
    at_once: usize,
    run: impl Fn(&'static str) -> Report + Sync,
) -> Vec<(&'static str, Report)> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(&name) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run(name);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push((name, report));
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one step, with this many threads for its tests.
fn run(name: &str, full: bool, filter: Option<&str>, threads: usize) -> Result<Report> {
    if let Some(remedy) = missing(name) {
        return Ok(Report::skipped(1, remedy));
    }
    let mut cargo = workspace::cargo();
    cargo.env("RUST_TEST_THREADS", threads.to_string());
    match name {
        "fmt" => step::check(cargo.args(["fmt", "--all", "--check"]), LIMIT),
        "clippy" => step::check(cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]), LIMIT),
        "guest-fmt" => step::check(workspace::guest_cargo().args(["fmt", "--check"]), LIMIT),
        "guest-clippy" => step::check(
            workspace::guest_cargo().args(["clippy", "--release", "--workspace", "--", "-D", "warnings"]),
            LIMIT,
        ),
        "doc" => step::check(cargo.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"), LIMIT),
        "cargo-test" => {
            step::tests(cargo.args(["test", "--workspace", "--no-fail-fast", "--", libtest::SHOW]).args(filter), LIMIT)
        }
        "loom" => {
            cargo
                .args(["test", "--release", "-p", "irqchip", "-p", "bottom_half", "--lib", "--no-fail-fast", "--"])
                .arg(filter.unwrap_or("loom"));
            // Its own directory: the flags would make everything else build anew.
            cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace::target().join("loom"));
            step::tests(&mut cargo, LIMIT)
        }
        "shuttle" => {
            cargo
                .args(["test", "--release", "-p", "irqchip", "-p", "bottom_half", "--lib", "--no-fail-fast", "--"])
                .arg(filter.unwrap_or("shuttle"));
            cargo.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_TARGET_DIR", workspace::target().join("shuttle"));
            cargo.env("TOPHALF_SCHEDULES", SCHEDULES.to_string());
            step::tests(&mut cargo, LIMIT)
        }
        "reference" => {
            let mut cargo = workspace::release("test");
            cargo.env("RUST_TEST_THREADS", threads.to_string());
            cargo.args(REFERENCE_TESTS.iter().flat_map(|test| ["--test", test]));
            cargo.args(["--no-fail-fast", "--"]).args(filter);
            cargo.env("TOPHALF_REFERENCE_OPS", reference_operations(full).to_string());
            step::tests(&mut cargo, LIMIT)
        }
        "dist" => dist::run(),
        "power-cut" => power_cut::run(full, filter),
        "stress" => stress::run(full, filter),
        "conservation" => conservation::run(full, filter),
        "oracle" => oracle::run(full, filter),
        "mutate" => mutate::run(full),
        _ => boots::run(full, filter),
    }
}

/// Operations for each of the three reference models: 100 million in all, with `--full` a billion.
fn reference_operations(full: bool) -> u64 {
    let all: u64 = if full { 1_000_000_000 } else { 100_000_000 };
    all.div_ceil(REFERENCE_TESTS.len() as u64)
}

/// What to do when a part of the toolchain that the step needs is not installed.
fn missing(name: &str) -> Option<String> {
    let component = match name {
        "fmt" | "guest-fmt" => "rustfmt",
        "clippy" | "guest-clippy" => "clippy",
        _ => return None,
    };
    let there = workspace::cargo()
        .args([name.trim_start_matches("guest-"), "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    (!there).then(|| format!("no cargo {}: run `rustup component add {component}`", name.trim_start_matches("guest-")))
}

/// Shows what a failed step printed: its failed tests where it has such, else the end.
fn show(name: &str, report: &Report) {
    println!("\n---- {name} failed");
    if let Some(reason) = &report.reason {
        println!("{reason}");
    }
    let failures = libtest::failures(&report.output);
    for line in &failures {
        println!("{line}");
    }
    let shown = if failures.is_empty() { SHOWN } else { SHOWN_AFTER_FAILURES };
    let hidden = report.output.len().saturating_sub(shown);
    if hidden > 0 {
        println!("({hidden} lines before these)");
    }
    for line in &report.output[hidden..] {
        println!("{line}");
    }
    println!("---- end of {name}\n");
}

#[cfg(test)]
mod tests;
