//! One fault: tests until one fails.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::choice::{self, Fault};
use super::results::{self, Failure, Judge, Run, Verdict};
use crate::child;

/// The variable that names the fault to the program.
const VARIABLE: &str = "TOPHALF_FAULT";
/// For the tests of one pattern. The suite has limits of its own, which report; who exceeds this one has hung without a
/// report.
const LIMIT: Duration = Duration::from_secs(180);
/// The same for the whole suite.
const LIMIT_OF_ALL: Duration = Duration::from_secs(900);

/// The program with faults.
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// The one that was built at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The faults that it can have and that the guest's tests should find.
    ///
    /// # Errors
    /// When it does not say.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        let output = Command::new(&self.path).arg("faults").output().context("cannot list the faults")?;
        let mut faults = choice::parse(&String::from_utf8_lossy(&output.stdout))?;
        faults.retain(|fault| !fault.first.is_empty());
        Ok(faults)
    }

    /// Runs the tests that are to be tried first, then all, until one finds the fault. That test must pass without it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn look_for(&self, fault: &Fault, seed: u64) -> Result<Verdict> {
        let mut unreported = Vec::new();
        for pattern in fault.first.iter().map(String::as_str).chain(["*"]) {
            match self.stress(pattern, Some(&fault.name), seed)? {
                Run::Clean => {}
                Run::Failed(Failure { test, judge: Judge::Nobody, why }) => unreported.push(format!("{test}: {why}")),
                Run::Failed(failure) => {
                    let passes = self.stress(&failure.test, None, seed)? == Run::Clean;
                    return Ok(if passes { Verdict::Found(failure) } else { Verdict::Unfit(failure) });
                }
                Run::NoResults => unreported.push(format!("{pattern}: the suite gave no results")),
            }
        }
        Ok(if unreported.is_empty() { Verdict::Survived } else { Verdict::Unreported(unreported) })
    }

    /// Runs the tests that match until one fails.
    fn stress(&self, pattern: &str, fault: Option<&str>, seed: u64) -> Result<Run> {
        // Not its output: the lines of its two streams would come in any order.
        let file = NamedTempFile::new().context("no temporary file for the results")?;
        let mut command = Command::new(&self.path);
        command.args(["stress", "--fail-fast", "--only", pattern, "--seed", &seed.to_string()]);
        command.arg("--json").arg(file.path());
        match fault {
            Some(fault) => command.env(VARIABLE, fault),
            None => command.env_remove(VARIABLE),
        };
        let limit = if pattern == "*" { LIMIT_OF_ALL } else { LIMIT };
        child::run(&mut command, limit, |_| {})?;
        Ok(results::read(&fs::read_to_string(file.path()).unwrap_or_default()))
    }
}
