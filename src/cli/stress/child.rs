//! One test in one machine: what it reports, and how that is judged.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde::Deserialize;
use vmm::protocol::words;
use vmm::test_record::Needs;
use vmm::{Error, Signal, exit_code};

use super::image::Image;
use super::plan::{Job, Verdict};
use super::process::{self, Ended, Launch, keep};
use super::watch::Watch;

#[cfg(test)]
mod tests;

/// What the agent writes, one JSON object a line.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Log { text: String },
    Panic { text: String },
    Begin {},
    Complete { outcome: String, text: String },
    Measure { name: String, value: u64 },
    Count { kind: String, sent: u64, delivered: u64, merged: u64, spurious: u64 },
}

/// Interrupts of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Delivered.
    pub delivered: u64,
    /// Merged where the architecture merges.
    pub merged: u64,
    /// Spurious.
    pub spurious: u64,
}

/// Who said how a test went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The test itself.
    Test,
    /// The guest kernel, which gave up.
    Guest,
    /// One of the limits.
    Limit,
    /// Nobody: the machine ended without a result.
    Nobody,
}

/// How a test went.
#[derive(Debug)]
pub struct TestResult {
    /// How it came out.
    pub verdict: Verdict,
    /// Who said so.
    pub judge: Judge,
    /// Why, if it did not pass.
    pub why: String,
    /// The seed it had.
    pub seed: u64,
    /// How long its machine ran.
    pub took: Duration,
    /// Counts by kind, in the order of their first report.
    pub counts: Vec<(String, Counts)>,
    /// Measured values.
    pub measures: Vec<(String, u64)>,
    /// The guest's log.
    pub log: VecDeque<String>,
    /// What the machine said: the state of the vCPUs and chips, when something went wrong.
    pub machine: VecDeque<String>,
    /// The user ended it.
    pub interrupted: bool,
}

/// Runs `job` with `seed`.
///
/// # Errors
///
/// When no machine can be had: a fault of this host, not of the test.
pub fn run(image: &Image, job: &Job, seed: u64, count: Option<u64>) -> Result<TestResult, Error> {
    let mut words = vec![format!("{}={}", words::TEST, job.test.name()), format!("{}={seed}", words::SEED)];
    words.extend(count.map(|count| format!("{}={count}", words::COUNT)));
    let launch = Launch { mode: job.mode, cpus: job.cpus, words, same_cpuid: false, traced: false };
    let started = Instant::now();
    let mut story = Story::default();
    let limit = Duration::from_millis(job.test.limit_ms.into());
    let Ended { status, exceeded, machine } =
        process::run(image, &launch, limit, |line, watch| story.event(line, watch))?;
    story.machine.extend(machine);
    Ok(story.end(job, seed, started.elapsed(), status, exceeded))
}

/// What is known of a run so far.
#[derive(Default)]
struct Story {
    outcome: Option<(String, String)>,
    panic: Option<String>,
    begun: bool,
    counts: Vec<(String, Counts)>,
    measures: Vec<(String, u64)>,
    log: VecDeque<String>,
    machine: VecDeque<String>,
}

impl Story {
    fn event(&mut self, line: &str, watch: &mut Watch) {
        match serde_json::from_str(line) {
            Ok(Event::Log { text }) => text.lines().for_each(|line| keep(&mut self.log, line.to_owned())),
            Ok(Event::Panic { text }) => self.panic = Some(text),
            Ok(Event::Begin {}) => {
                self.begun = true;
                watch.begin();
            }
            Ok(Event::Complete { outcome, text }) => self.outcome = Some((outcome, text)),
            Ok(Event::Measure { name, value }) => self.measures.push((name, value)),
            Ok(Event::Count { kind, sent, delivered, merged, spurious }) => {
                self.count(kind, Counts { sent, delivered, merged, spurious });
            }
            Err(_) => keep(&mut self.machine, line.to_owned()),
        }
    }

    fn count(&mut self, kind: String, more: Counts) {
        let at = self.counts.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            self.counts.push((kind, Counts::default()));
            self.counts.len() - 1
        });
        let counts = &mut self.counts[at].1;
        // Saturating: a guest may report anything.
        counts.sent = counts.sent.saturating_add(more.sent);
        counts.delivered = counts.delivered.saturating_add(more.delivered);
        counts.merged = counts.merged.saturating_add(more.merged);
        counts.spurious = counts.spurious.saturating_add(more.spurious);
    }

    fn end(self, job: &Job, seed: u64, took: Duration, status: ExitStatus, exceeded: Option<String>) -> TestResult {
        let (verdict, judge, why) = self.verdict(job, status, exceeded);
        // ^C reaches the whole foreground group: the child tells that it was asked to end.
        let interrupted = status.signal() == Some(Signal::Interrupt.number());
        let Self { counts, measures, log, machine, .. } = self;
        TestResult { verdict, judge, why, seed, took, counts, measures, log, machine, interrupted }
    }

    fn verdict(&self, job: &Job, status: ExitStatus, exceeded: Option<String>) -> (Verdict, Judge, String) {
        let failed = |judge, why: String| (job.judge(false), judge, why);
        if let Some(limit) = exceeded {
            return failed(Judge::Limit, limit);
        }
        if let Some(panic) = &self.panic {
            return failed(Judge::Guest, format!("the guest kernel gave up: {panic}"));
        }
        let ends_in_reset = job.test.needed().contains(Needs::ALONE);
        match (&self.outcome, status.code()) {
            (Some((outcome, _)), _) if outcome == "passed" => match job.judge(true) {
                Verdict::Failed => {
                    (Verdict::Failed, Judge::Test, "passed, where it is known to fail: is it mended?".into())
                }
                verdict => (verdict, Judge::Test, String::new()),
            },
            (Some((outcome, text)), _) if outcome == "skipped" => (Verdict::Skipped, Judge::Test, text.clone()),
            (Some((_, text)), _) => failed(Judge::Test, text.clone()),
            (None, Some(code)) if self.begun && ends_in_reset && code == i32::from(exit_code::RESET) => {
                (job.judge(true), Judge::Test, String::new())
            }
            (None, Some(code)) if code == i32::from(exit_code::HALTED) => {
                failed(Judge::Limit, "all vCPUs have halted for good, and the test has not ended".into())
            }
            (None, _) => failed(Judge::Nobody, format!("the machine ended without a result: {status}")),
        }
    }
}
