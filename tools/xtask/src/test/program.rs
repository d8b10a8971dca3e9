//! Test programs that run where others do not: listed, run in the emulated host, and shown while they run.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::libtest::{Tally, parse_test};
use super::step::{Report, say};
use crate::failure::{self, Failure};
use crate::lab::{self, Copy, Disk, Job};

/// The names of the tests the program would run.
///
/// # Errors
/// When it cannot be started.
pub fn list(tests: &Path, arguments: &[String]) -> Result<Vec<String>> {
    let output = Command::new(tests).args(arguments).arg("--list").output().context("cannot list a program's tests")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// A test program in an emulated host.
pub struct InLab<'a> {
    /// The step that it belongs to.
    pub step: &'static str,
    /// The program.
    pub tests: &'a Path,
    /// Its arguments but for names.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Files that it needs.
    pub files: Vec<Copy>,
    /// Disks of the emulated host.
    pub disks: Vec<Disk>,
    /// CPUs of the emulated host.
    pub cpus: u32,
    /// Limit for all of it.
    pub limit: Duration,
}

impl InLab<'_> {
    /// Runs the tests `names`.
    ///
    /// # Errors
    /// When the emulated host cannot be had.
    pub fn run(&self, names: &[String]) -> Result<Report> {
        in_hosts(self.step, names, |names, progress| Ok(lab::run(self.job(names, progress))?.code == 0))
    }

    fn job(&self, names: &[String], progress: &Shared) -> Job {
        const PROGRAM: &str = "/bin/tests";
        let program = Copy { host: self.tests.to_path_buf(), guest: PROGRAM.to_owned() };
        let names = names.iter().cloned();
        Job {
            command: [PROGRAM.to_owned(), "--exact".to_owned()]
                .into_iter()
                .chain(self.arguments.iter().cloned())
                .chain(names)
                .collect(),
            environment: self.environment.clone(),
            files: self.files.iter().cloned().chain([program]).collect(),
            disks: self.disks.clone(),
            timeout: Some(self.limit),
            cpus: self.cpus,
            stdout: Box::new(progress.clone()),
            stderr: Box::new(progress.clone()),
            ..Job::default()
        }
    }
}

/// Runs the tests by `run`, which says whether all went well. An emulated host that stands still or dies is QEMU's or its kernel's fault:
/// a program in it can end a guest that hangs, and does. So the tests that are left run in a new one, with that in which it happened,
/// which fails when it happens again. One that does not get as far as a test is no host, and neither are many that die.
fn in_hosts(
    step: &'static str,
    names: &[String],
    mut run: impl FnMut(&[String], &Shared) -> Result<bool>,
) -> Result<Report> {
    /// Hosts that may be lost.
    const LOST: usize = 4;
    let progress = Shared::new(step);
    let mut left = names.to_vec();
    let mut tried = None;
    let mut lost = 0;
    loop {
        let error = match run(&left, &progress) {
            Ok(success) => return Ok(progress.take().report(success, None)),
            Err(error) => error,
        };
        match error.downcast_ref::<Failure>() {
            None => return Err(error),
            Some(failure) if failure.is_silent() => return Err(error),
            Some(failure) if failure.code != failure::HOST => {
                return Ok(progress.take().report(false, Some(format!("{error:#}"))));
            }
            Some(_) => {}
        }
        lost += 1;
        if lost > LOST || !progress.with(|progress| progress.tally.is_running()) {
            return Err(error);
        }
        progress.with(Progress::stopped);
        left.retain(|name| !progress.with(|progress| progress.ended.contains(name)));
        let Some(name) = left.first().cloned() else { return Err(error) };
        let story = format!("{name}: {error:#}");
        say(step, &story);
        progress.with(|progress| progress.output.push(story));
        if tried.as_ref() == Some(&name) {
            left.remove(0);
            progress.with(|progress| {
                progress.line(&format!("test {name} ... FAILED"));
                progress.stopped();
            });
        }
        tried = Some(name);
        if left.is_empty() {
            return Ok(progress.take().report(false, Some(format!("{error:#}"))));
        }
    }
}

/// Shows each test with its time as it ends, and keeps everything.
pub struct Progress {
    step: &'static str,
    tally: Tally,
    output: Vec<String>,
    ended: Vec<String>,
    last: Instant,
}

impl Progress {
    /// Nothing so far.
    pub fn new(step: &'static str) -> Self {
        Self { step, tally: Tally::default(), output: Vec::new(), ended: Vec::new(), last: Instant::now() }
    }

    /// Takes a line of the program's output.
    pub fn line(&mut self, line: &str) {
        self.tally.line(line);
        self.output.push(line.to_owned());
        if let Some((name, result)) = parse_test(line) {
            say(self.step, format_args!("{:5.1} s  {name}: {result}", self.last.elapsed().as_secs_f64()));
            self.last = Instant::now();
            self.ended.push(name.to_owned());
        } else if line.starts_with("running ") {
            // The emulated host's own start is nobody's time.
            self.last = Instant::now();
        }
    }

    /// The program was stopped, through no fault of its own.
    pub fn stopped(&mut self) {
        self.tally.stopped();
    }

    /// What came of it, given whether the program was content.
    pub fn report(self, success: bool, reason: Option<String>) -> Report {
        let mut count = self.tally.count();
        if !success && count.failed == 0 {
            count.failed = 1;
        }
        Report { count, output: self.output, reason: reason.or_else(|| self.tally.why()), ..Report::default() }
    }
}

/// Cuts both streams into lines for one [`Progress`].
#[derive(Clone)]
struct Shared {
    progress: Arc<Mutex<Progress>>,
    part: Vec<u8>,
}

impl Shared {
    fn new(step: &'static str) -> Self {
        Self { progress: Arc::new(Mutex::new(Progress::new(step))), part: Vec::new() }
    }

    fn with<T>(&self, action: impl FnOnce(&mut Progress) -> T) -> T {
        action(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(self) -> Progress {
        self.with(|progress| {
            let step = progress.step;
            std::mem::replace(progress, Progress::new(step))
        })
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.with(|progress| progress.line(line.trim_end()));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
