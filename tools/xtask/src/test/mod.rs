//! `cargo xtask test`: every test there is, step by step, and one verdict.

mod boots;
mod libtest;
mod step;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::workspace;
use libtest::Count;
use step::Report;

/// The steps, in their order.
const STEPS: [&str; 7] = ["fmt", "clippy", "doc", "cargo-test", "loom", "reference", "boots"];
/// The chips against their reference models, in a release build for as many operations as [`reference_operations`] says.
const REFERENCE_TESTS: [&str; 3] = ["reference_pic", "reference_ioapic", "reference_lapic"];
/// Limit for a step that builds and runs; a cold build on two cores takes a few minutes.
const LIMIT: Duration = Duration::from_secs(3600);
/// Lines shown of what a failed step printed.
const SHOWN: usize = 200;

/// Run every test: fmt, clippy, doc, unit and integration tests, loom, reference models, boots in the emulated host.
#[derive(Args)]
pub struct Options {
    /// Also the long runs: 20 boots where otherwise 5 do, ten times the operations against the reference models
    #[arg(long)]
    full: bool,
    /// Only this step (fmt, clippy, doc, cargo-test, loom, reference, boots), or only tests whose name contains this
    filter: Option<String>,
}

/// Runs the steps; exit code 1 when anything failed. The last line is `N passed, M failed, K skipped`.
///
/// # Errors
/// None of its own: a step that cannot run is a failure or skipped.
pub fn main(options: &Options) -> Result<u8> {
    let filter = options.filter.as_deref();
    let step = filter.filter(|filter| STEPS.contains(filter));
    let names = if step.is_some() { None } else { filter };
    let wanted = |name: &str| match (step, names) {
        (Some(step), _) => step == name,
        // These have no tests to choose from.
        (None, Some(_)) => !["fmt", "clippy", "doc"].contains(&name),
        (None, None) => true,
    };
    let mut total = Count::default();
    let mut failed = Vec::new();
    for name in STEPS.into_iter().filter(|name| wanted(name)) {
        let report = step::run(name, || run(name, options.full, names));
        total += report.count;
        if report.count.failed > 0 {
            failed.push((name, report));
        }
    }
    for (name, report) in &failed {
        show(name, report);
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(u8::from(total.failed > 0))
}

fn run(name: &str, full: bool, filter: Option<&str>) -> Result<Report> {
    if let Some(remedy) = missing(name) {
        return Ok(Report::skipped(1, remedy));
    }
    let mut cargo = workspace::cargo();
    match name {
        "fmt" => step::check(cargo.args(["fmt", "--all", "--check"]), LIMIT),
        "clippy" => step::check(cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]), LIMIT),
        "doc" => step::check(cargo.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"), LIMIT),
        "cargo-test" => step::tests(cargo.args(["test", "--workspace", "--no-fail-fast", "--"]).args(filter), LIMIT),
        "loom" => {
            cargo.args(["test", "--release", "-p", "irqchip", "--lib", "--"]).arg(filter.unwrap_or("loom"));
            // Its own directory: the flags would make everything else build anew.
            cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace::target().join("loom"));
            step::tests(&mut cargo, LIMIT)
        }
        "reference" => {
            cargo.args(["test", "--release"]).args(REFERENCE_TESTS.iter().flat_map(|test| ["--test", test]));
            cargo.args(["--no-fail-fast", "--"]).args(filter);
            cargo.env("TOPHALF_REFERENCE_OPS", reference_operations(full).to_string());
            step::tests(&mut cargo, LIMIT)
        }
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
        "fmt" => "rustfmt",
        "clippy" => "clippy",
        _ => return None,
    };
    let there = workspace::cargo().args([name, "--version"]).output().is_ok_and(|output| output.status.success());
    (!there).then(|| format!("no cargo {name}: run `rustup component add {component}`"))
}

/// Shows the end of what a failed step printed.
fn show(name: &str, report: &Report) {
    println!("\n---- {name} failed");
    if let Some(reason) = &report.reason {
        println!("{reason}");
    }
    let hidden = report.output.len().saturating_sub(SHOWN);
    if hidden > 0 {
        println!("({hidden} lines before these)");
    }
    for line in &report.output[hidden..] {
        println!("{line}");
    }
    println!("---- end of {name}\n");
}
