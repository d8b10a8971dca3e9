//! The step that boots real kernels: the test program `boots`, on hardware KVM or in the emulated host.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::libtest::{Tally, parse_test};
use super::step::Report;
use crate::assets::{Assets, Kernel};
use crate::failure::Failure;
use crate::lab::{self, Copy, Job};
use crate::{child, failure, hardware, workspace};

const HOUR: Duration = Duration::from_secs(3600);

/// Builds and runs the tests whose names contain `filter`.
///
/// # Errors
/// When something does not build, or the emulated host died.
pub fn run(full: bool, filter: Option<&str>) -> Result<Report> {
    println!("   building");
    let tests = workspace::build(&["test", "--release", "--test", "boots", "--no-run"], "boots")?;
    let tophalf = workspace::build_program("tophalf", "tophalf")?;
    let mut arguments = vec!["--ignored".to_owned()];
    arguments.extend(filter.map(str::to_owned));
    let found = list(&tests, &arguments)?;
    if found == 0 {
        return Ok(Report::default());
    }
    let obstacle = hardware::obstacle();
    let (kernel, initrd) = match needed(obstacle.is_some()) {
        Ok(assets) => assets,
        Err(error) if is_missing(&error) => return Ok(Report::skipped(found, format!("{error:#}"))),
        Err(error) => return Err(error),
    };
    arguments.push("--test-threads=1".to_owned());
    let mut environment = vec![("TOPHALF_FULL", "1")];
    if !full {
        environment.clear();
    }
    let limit = if full { 4 * HOUR } else { HOUR };
    if let Some(obstacle) = obstacle {
        println!("   in the emulated host ({obstacle})");
        environment.push(("TOPHALF_LAB", "1"));
        in_lab(&Files { tests, tophalf, kernel: kernel.image, initrd }, arguments, &environment, limit)
    } else {
        let mut command = Command::new(&tests);
        command.args(&arguments).envs(environment);
        command.env("TOPHALF_BIN", tophalf).env("TOPHALF_KERNEL", kernel.image).env("TOPHALF_INITRD", initrd);
        let mut progress = Progress::default();
        let finished = child::run(&mut command, limit, |line| progress.line(line))?;
        let reason = finished.timed_out.then(|| format!("killed after {} s", limit.as_secs()));
        Ok(progress.report(finished.success, reason))
    }
}

fn needed(emulated: bool) -> Result<(Kernel, PathBuf)> {
    let assets = Assets::open()?;
    if emulated {
        assets.qemu()?;
    }
    Ok((assets.kernel()?, assets.guest_initrd()?))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == failure::HOST)
}

/// Counts the tests the program would run.
fn list(tests: &Path, arguments: &[String]) -> Result<u64> {
    let output = Command::new(tests).args(arguments).arg("--list").output().context("cannot list the boot tests")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| line.ends_with(": test")).count() as u64)
}

struct Files {
    tests: PathBuf,
    tophalf: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

fn in_lab(files: &Files, arguments: Vec<String>, environment: &[(&str, &str)], limit: Duration) -> Result<Report> {
    let places = [
        ("TOPHALF_TESTS", &files.tests, "/bin/boots"),
        ("TOPHALF_BIN", &files.tophalf, "/bin/tophalf"),
        ("TOPHALF_KERNEL", &files.kernel, "/guest/vmlinuz"),
        ("TOPHALF_INITRD", &files.initrd, "/guest/initrd"),
    ];
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let progress = Shared::default();
    let job = Job {
        command: ["boots".to_owned()].into_iter().chain(arguments).collect(),
        environment: places
            .iter()
            .map(|&(name, _, guest)| own(&(name, guest)))
            .chain(environment.iter().map(own))
            .collect(),
        files: places.iter().map(|&(_, host, guest)| Copy { host: host.clone(), guest: guest.to_owned() }).collect(),
        timeout: Some(limit),
        stdout: Box::new(progress.clone()),
        stderr: Box::new(progress.clone()),
        ..Job::default()
    };
    let (success, reason) = match lab::run(job) {
        Ok(outcome) => (outcome.code == 0, None),
        Err(error) if error.downcast_ref::<Failure>().is_none_or(Failure::is_silent) => return Err(error),
        Err(error) => (false, Some(format!("{error:#}"))),
    };
    Ok(progress.take().report(success, reason))
}

/// Shows each test with its time as it ends, and keeps everything.
struct Progress {
    tally: Tally,
    output: Vec<String>,
    last: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { tally: Tally::default(), output: Vec::new(), last: Instant::now() }
    }
}

impl Progress {
    fn line(&mut self, line: &str) {
        self.tally.line(line);
        self.output.push(line.to_owned());
        if let Some((name, result)) = parse_test(line) {
            println!("   {:7.1} s  {name}: {result}", self.last.elapsed().as_secs_f64());
            self.last = Instant::now();
        } else if line.starts_with("running ") {
            // The emulated host's own start is nobody's time.
            self.last = Instant::now();
        }
    }

    fn report(self, success: bool, reason: Option<String>) -> Report {
        let mut count = self.tally.count();
        if !success && count.failed == 0 {
            count.failed = 1;
        }
        Report { count, output: self.output, reason }
    }
}

/// Cuts both streams into lines for one [`Progress`].
#[derive(Clone, Default)]
struct Shared {
    progress: Arc<Mutex<Progress>>,
    part: Vec<u8>,
}

impl Shared {
    fn take(self) -> Progress {
        std::mem::take(&mut *self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).line(line.trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
