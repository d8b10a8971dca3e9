//! The step that compares our controllers with KVM's in the emulated host, whose KVM is another than this machine's: the
//! test program `kvm_oracle`. On this machine's own KVM it is one of cargo's tests.

use std::time::Duration;

use anyhow::Result;

use super::libtest::SHOW;
use super::program::{self, InLab};
use super::step::{Report, say};
use crate::assets::Assets;
use crate::{failure, hardware, lab, workspace};

/// The whole takes some minutes.
const LIMIT: Duration = Duration::from_secs(3600);
/// Operations for each of the two drivers: 50,000 in all, with `--full` ten times as many.
const OPERATIONS: u64 = 25_000;

/// Builds and runs the tests whose names contain `filter`. With hardware KVM there is nothing to do: an emulated host would
/// have the same KVM.
///
/// # Errors
/// When something does not build, or the emulated host died.
pub fn run(full: bool, filter: Option<&str>) -> Result<Report> {
    let Some(obstacle) = hardware::obstacle() else {
        let reason = "cargo-test has run it on this machine's hardware KVM".to_owned();
        return Ok(Report { reason: Some(reason), ..Report::default() });
    };
    say("oracle", "building");
    let tests = workspace::build_test("kvm_oracle")?;
    let filter: Vec<String> = filter.map(str::to_owned).into_iter().collect();
    let names = program::list(&tests, &filter)?;
    if names.is_empty() {
        return Ok(Report::default());
    }
    match Assets::open().and_then(|assets| assets.qemu()) {
        Err(error) if failure::is_missing(&error) => {
            return Ok(Report::skipped(names.len() as u64, format!("{error:#}")));
        }
        other => drop(other?),
    }
    say("oracle", format_args!("in the emulated host ({obstacle})"));
    let operations = if full { 10 * OPERATIONS } else { OPERATIONS };
    let lab = InLab {
        step: "oracle",
        tests: &tests,
        // The seeds are to be seen when all is well, too.
        arguments: ["--test-threads=1", SHOW].map(str::to_owned).to_vec(),
        environment: vec![("TOPHALF_REFERENCE_OPS".to_owned(), operations.to_string())],
        files: Vec::new(),
        disks: Vec::new(),
        cpus: lab::CPUS,
        limit: LIMIT,
    };
    let report = lab.run(&names)?;
    for line in report.output.iter().filter_map(|line| line.split_once(", seen: ")) {
        say("oracle", line.0);
    }
    Ok(report)
}
