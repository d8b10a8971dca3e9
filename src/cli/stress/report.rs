//! The results of a whole run: the summary, JSON, JUnit XML, and the story of a failure.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};
use vmm::Error;

use super::child::{Counts, TestResult};
use super::image::Image;
use super::plan::{Job, Verdict};

#[cfg(test)]
mod tests;

/// Lines of the guest's log in a story.
const LOG_LINES: usize = 40;

/// Version of the JSON form.
const VERSION: u32 = 1;

/// All results so far.
pub struct Report {
    seed: u64,
    rows: Vec<Row>,
    json: Option<Box<dyn Write>>,
    junit: Option<File>,
}

struct Row {
    test: String,
    mode: &'static str,
    cpus: u32,
    result: TestResult,
}

impl Report {
    /// Nothing yet; `seed` is the first round's.
    pub fn new(seed: u64) -> Self {
        Self { seed, rows: Vec::new(), json: None, junit: None }
    }

    /// Opens the files that the results are to go to.
    ///
    /// # Errors
    ///
    /// A usage error if one can't be made.
    pub fn open(&mut self, json: Option<&Path>, junit: Option<&Path>) -> Result<(), Error> {
        let create = |path: &Path| {
            File::create(path)
                .map_err(|e| Error::Usage(format!("{} can't be written: {e}; give another file", path.display())))
        };
        self.json = match json {
            Some(path) if path == Path::new("-") => Some(Box::new(io::stdout())),
            Some(path) => Some(Box::new(create(path)?)),
            None => None,
        };
        self.junit = junit.map(create).transpose()?;
        Ok(())
    }

    /// Adds a result.
    pub fn add(&mut self, job: &Job, result: TestResult) {
        self.rows.push(Row { test: job.test.name().to_owned(), mode: job.mode.name(), cpus: job.cpus, result });
    }

    /// A test failed.
    pub fn has_failed(&self) -> bool {
        self.count(Verdict::Failed) > 0
    }

    /// Writes the files.
    ///
    /// # Errors
    ///
    /// A host error if they can't be written to the end.
    pub fn finish(&mut self) -> Result<(), Error> {
        let failed = |e| Error::host("the results can't be written", e);
        let (json, junit) = (self.to_json(), self.to_junit());
        if let Some(file) = &mut self.json {
            writeln!(file, "{json:#}").and_then(|()| file.flush()).map_err(failed)?;
        }
        if let Some(file) = &mut self.junit {
            let text = junit.to_string().map_err(|e| failed(io::Error::other(e)))?;
            file.write_all(text.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }

    /// Counts by kind, and how the tests came out.
    pub fn summary(&self, took: Duration) -> String {
        let mut text = String::from("\nkind            sent    delivered       merged     spurious\n");
        for (kind, Counts { sent, delivered, merged, spurious }) in self.totals() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{kind:8} {sent:>11} {delivered:>12} {merged:>12} {spurious:>12}");
        }
        let [passed, failed, skipped, known] =
            [Verdict::Passed, Verdict::Failed, Verdict::Skipped, Verdict::Known].map(|verdict| self.count(verdict));
        let _ = write!(text, "\n{passed} passed, {failed} failed, {skipped} skipped");
        if known > 0 {
            let _ = write!(text, ", {known} failed where they are known to");
        }
        let _ = writeln!(text, " in {:.0} s; seed {}", took.as_secs_f64(), self.seed);
        text
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.result.verdict == verdict).count()
    }

    fn totals(&self) -> Vec<(&str, Counts)> {
        let mut totals: Vec<(&str, Counts)> = Vec::new();
        for (kind, counts) in self.rows.iter().flat_map(|row| &row.result.counts) {
            let at = totals.iter().position(|(known, _)| known == kind).unwrap_or_else(|| {
                totals.push((kind, Counts::default()));
                totals.len() - 1
            });
            let total = &mut totals[at].1;
            total.sent = total.sent.saturating_add(counts.sent);
            total.delivered = total.delivered.saturating_add(counts.delivered);
            total.merged = total.merged.saturating_add(counts.merged);
            total.spurious = total.spurious.saturating_add(counts.spurious);
        }
        totals
    }

    fn to_json(&self) -> Value {
        let tests: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let totals: serde_json::Map<String, Value> =
            self.totals().into_iter().map(|(kind, counts)| (kind.to_owned(), json!(counts))).collect();
        json!({ "version": VERSION, "seed": self.seed, "tests": tests, "totals": totals })
    }

    fn to_junit(&self) -> quick_junit::Report {
        let mut report = quick_junit::Report::new("tophalf stress");
        for mode in ["user", "split", "kernel"] {
            let mut suite = TestSuite::new(mode);
            suite.add_test_cases(self.rows.iter().filter(|row| row.mode == mode).map(Row::to_junit));
            if suite.tests > 0 {
                report.add_test_suite(suite);
            }
        }
        report
    }
}

impl Row {
    fn to_json(&self) -> Value {
        let Self { test, mode, cpus, result } = self;
        let verdict = match result.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
            Verdict::Known => "known",
        };
        let counts: serde_json::Map<String, Value> =
            result.counts.iter().map(|(kind, counts)| (kind.clone(), json!(counts))).collect();
        let measures: serde_json::Map<String, Value> =
            result.measures.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "name": test, "irqchip": mode, "cpus": cpus, "seed": result.seed, "outcome": verdict,
            "judge": result.judge, "why": result.why,
            "seconds": result.took.as_secs_f64(), "counts": counts, "measures": measures,
        })
    }

    fn to_junit(&self) -> TestCase {
        let result = &self.result;
        let status = match result.verdict {
            Verdict::Passed | Verdict::Known => TestCaseStatus::success(),
            Verdict::Skipped => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(&result.why);
                status
            }
            Verdict::Failed => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(&result.why);
                status
            }
        };
        let mut case = TestCase::new(&self.test, status);
        case.set_time(result.took);
        if result.verdict == Verdict::Failed {
            case.set_system_out(lines(result.log.iter()));
            case.set_system_err(lines(result.machine.iter()));
        }
        case
    }
}

fn lines<'a>(lines: impl Iterator<Item = &'a String>) -> String {
    lines.map(|line| format!("{line}\n")).collect()
}

/// What somebody needs to find out why a test failed: the guest's log, where each vCPU was, how to run it again.
pub fn story(image: &Image, job: &Job, result: &TestResult, path: Option<&Path>) -> String {
    let mut text = String::new();
    let skipped = result.log.len().saturating_sub(LOG_LINES);
    for line in result.log.iter().skip(skipped) {
        let _ = writeln!(text, "    guest: {line}");
    }
    for line in &result.machine {
        let _ = writeln!(text, "    machine: {}", with_symbol(image, line));
    }
    let image = path.map(|path| format!(" --image {}", path.display())).unwrap_or_default();
    let (name, mode, cpus, seed) = (job.test.name(), job.mode.name(), job.cpus, result.seed);
    let _ = write!(text, "    again: tophalf stress --only {name} --irqchip {mode} --cpus {cpus} --seed {seed}{image}");
    text
}

/// The line, with the name of the function after an instruction pointer ("RIP 0x…").
fn with_symbol(image: &Image, line: &str) -> String {
    let symbol = || {
        let (_, rest) = line.split_once("RIP 0x")?;
        let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        image.symbol(u64::from_str_radix(&digits, 16).ok()?)
    };
    match symbol() {
        Some(symbol) => format!("{line} <{symbol}>"),
        None => line.to_owned(),
    }
}
