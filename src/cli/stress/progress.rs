//! What is shown while tests run: a line for each that ended, and on a terminal the one that runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::child::TestResult;
use super::plan::{Job, Verdict};

/// The display, on standard error.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For so many runs.
    pub fn new(runs: usize) -> Self {
        // Draws nothing unless stderr is a terminal.
        let bar = ProgressBar::new(runs as u64);
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar }
    }

    /// A test begins.
    pub fn begins(&self, job: &Job) {
        self.bar.set_message(format!("{} {}", job.mode.name(), job.test.name()));
    }

    /// A test has ended.
    pub fn ended(&self, job: &Job, result: &TestResult) {
        let verdict = match result.verdict {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
            Verdict::Known => "known",
        };
        let why = match result.verdict {
            Verdict::Passed => String::new(),
            Verdict::Known => format!(": {}", job.test.why_known()),
            _ => format!(": {}", result.why),
        };
        let seconds = result.took.as_secs_f64();
        self.say(&format!("{:7} {verdict:7} {seconds:6.2} s  {}{why}", job.mode.name(), job.test.name()));
        self.bar.inc(1);
    }

    /// Lines above the display.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| super::outcome::say_on_stderr(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
