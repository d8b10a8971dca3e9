//! One step of the test run: what it is called, how it went, and what it printed.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::libtest::{self, Count, Tally};
use crate::failure::Failure;
use crate::{child, signals};

/// How a step went.
#[derive(Debug, Default)]
pub struct Report {
    /// Its tests, or itself where it has none.
    pub count: Count,
    /// What to show at the end when something failed.
    pub output: Vec<String>,
    /// Why something was skipped or failed as a whole.
    pub reason: Option<String>,
    /// What failed first and passed when it was tried again.
    pub second: Vec<String>,
}

impl Report {
    /// A step that could not run: all its tests are skipped.
    pub fn skipped(tests: u64, reason: String) -> Self {
        Self { count: Count { skipped: tests, ..Count::default() }, reason: Some(reason), ..Self::default() }
    }

    /// The tests that failed, but for those that passed at a second try.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        let passed_later = |test: &&str| self.second.iter().any(|second| second == test);
        libtest::failed(&self.output).into_iter().filter(move |test| !passed_later(test))
    }
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.output.extend(other.output);
        self.reason = self.reason.take().or(other.reason);
        self.second.extend(other.second);
    }
}

/// Runs the step `name`, says how it went and how long it took, and gives its report.
pub fn run(name: &str, step: impl FnOnce() -> Result<Report>) -> Report {
    println!("== {name}");
    let started = Instant::now();
    let report = step().unwrap_or_else(|error| {
        // A signal ends the run, not only the step that it came in.
        if let Some(ended) = error.downcast_ref::<Failure>().filter(|failure| failure.is_silent()) {
            signals::end(ended.code.into());
        }
        Report { count: Count::one(false), reason: Some(format!("{error:#}")), ..Report::default() }
    });
    let Count { passed, failed, skipped } = report.count;
    let word = if failed > 0 { "FAILED" } else { "ok" };
    let reason = report.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let took = started.elapsed().as_secs_f64();
    println!("   {name}: {word}, {passed} passed, {failed} failed, {skipped} skipped{reason}, {took:.1} s");
    // Already now: who waits need not wait for the end of all steps to know.
    for test in report.failed() {
        println!("   {name}: FAILED: {test}");
    }
    for test in &report.second {
        println!("   {name}: passed at the second try: {test}");
    }
    report
}

/// A step that is one check: it passes when the command succeeds.
///
/// # Errors
/// When the command cannot be started.
pub fn check(command: &mut Command, limit: Duration) -> Result<Report> {
    let mut output = Vec::new();
    let finished = watch(command, limit, |line| output.push(line.to_owned()))?;
    Ok(Report { count: Count::one(finished.success), output, reason: late(&finished, limit), ..Report::default() })
}

/// A step that runs test programs: their tests count.
///
/// # Errors
/// When the command cannot be started.
pub fn tests(command: &mut Command, limit: Duration) -> Result<Report> {
    let mut output = Vec::new();
    let mut tally = Tally::default();
    let finished = watch(command, limit, |line| {
        tally.line(line);
        output.push(line.to_owned());
    })?;
    let mut count = tally.count();
    // It did not compile, or was killed.
    if !finished.success && count.failed == 0 {
        count.failed = 1;
    }
    Ok(Report { count, output, reason: late(&finished, limit).or_else(|| tally.why()), ..Report::default() })
}

fn late(finished: &child::Finished, limit: Duration) -> Option<String> {
    finished.timed_out.then(|| format!("killed after {} s", limit.as_secs()))
}

/// Says what `step` is doing or has done; several may run at once.
pub fn say(step: &str, what: impl Display) {
    println!("   {step}: {what}");
}

/// Runs the command; on a terminal the line it is at stays visible, unless several steps run at once.
fn watch(command: &mut Command, limit: Duration, mut take: impl FnMut(&str)) -> Result<child::Finished> {
    let live = io::stdout().is_terminal() && thread::current().name() == Some("main");
    let finished = child::run(command, limit, |line| {
        if live {
            let short: String = line.trim().chars().filter(|c| !c.is_control()).take(76).collect();
            print!("\r\x1b[K   {short}");
            // Progress is only for looking at.
            let _ = io::stdout().flush();
        }
        take(line);
    });
    if live {
        print!("\r\x1b[K");
    }
    finished
}
