//! The step that cuts the power of an emulated host: its QEMU is killed while a guest in it writes, and with it goes what was only in
//! that host's page cache. What the guest had been told is on its disk must be in the image here.
//!
//! Then the same with a program whose flush does nothing ([`FAULT`]): something must be lost, or the first test shows nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::libtest::Count;
use super::step::{Report, say};
use crate::assets::{Assets, Kernel};
use crate::lab::{self, Copy, Disk, Job};
use crate::{failure, quote, workspace};

/// The tests, and whether flushes work in them.
const TESTS: [(&str, bool); 2] =
    [("power_cut::what_a_guest_has_synced_survives", true), ("power_cut::without_flushes_something_is_lost", false)];
/// The fault that makes a flush do nothing.
const FAULT: &str = "FlushForgotten";
/// The guest runs `sh /load.sh 0`.
const CMDLINE: &str = "console=ttyS0 quiet th.virtio th.root=/dev/vda th.sh=c2ggL2xvYWQuc2ggMA==";
/// Linux's Documentation/admin-guide/sysctl/vm.rst, section "dirty_writeback_centisecs": 0 disables periodic write-back, so that
/// hardly anything but a flush gets what was written out of the page cache (a disk without a history still has its first pages taken).
const NO_WRITE_BACK: &str = "echo 0 >/proc/sys/vm/dirty_writeback_centisecs; ";
/// Records that the guest is told are on the disk before the end.
const RECORDS: usize = 20;
/// Cuts with working flushes in a long run, each with seven records more.
const CUTS: usize = 10;
/// Bytes of one.
const RECORD: usize = 4096;
/// Bytes of the disk that the guest's load has for itself.
const SECOND: u64 = 16 << 20;
/// From the start of QEMU to the cut; it takes half a minute.
const LIMIT: Duration = Duration::from_secs(600);
/// An emulated host that died or stood still by itself, which is not our fault, is started again so often.
const TRIES: u32 = 3;

/// Runs the tests whose names contain `filter`, always in an emulated host.
///
/// # Errors
/// When something does not build, or there is no emulated host to be had.
pub fn run(full: bool, filter: Option<&str>) -> Result<Report> {
    let wanted: Vec<_> = TESTS.into_iter().filter(|(name, _)| filter.is_none_or(|part| name.contains(part))).collect();
    if wanted.is_empty() {
        return Ok(Report::default());
    }
    let parts = match Parts::find() {
        Err(error) if failure::is_missing(&error) => {
            return Ok(Report::skipped(wanted.len() as u64, format!("{error:#}")));
        }
        other => other?,
    };
    let mut report = Report::default();
    for (name, flushes) in wanted {
        say("power-cut", "building");
        let program = if flushes { workspace::build_program("tophalf", "tophalf")? } else { crate::mutate::build()? };
        let mut passed = true;
        // Each cut at another moment.
        for cuts in 0..if full && flushes { CUTS } else { 1 } {
            let found = cut(&parts, &program, (!flushes).then_some(FAULT), RECORDS + 7 * cuts)?;
            say("power-cut", format_args!("{name}: {found}"));
            passed &= if flushes { found.is_whole() } else { !found.lost.is_empty() };
            report.output.push(found.to_string());
            if !passed {
                report.output.extend(found.console);
                break;
            }
        }
        let word = if passed { "ok" } else { "FAILED" };
        say("power-cut", format_args!("{name}: {word}"));
        report.count += Count::one(passed);
        report.output.push(format!("test {name} ... {word}"));
    }
    Ok(report)
}

/// What the tests need beside the program.
struct Parts {
    kernel: Kernel,
    initrd: PathBuf,
    image: PathBuf,
    /// Where e2fsck and debugfs are, beside mke2fs.
    checkers: PathBuf,
}

impl Parts {
    fn find() -> Result<Self> {
        let assets = Assets::open()?;
        assets.qemu()?;
        let mke2fs = assets.mke2fs()?;
        Ok(Self {
            kernel: assets.kernel()?,
            initrd: assets.guest_initrd()?,
            image: assets.disk_image()?,
            checkers: mke2fs.parent().unwrap_or(Path::new("/sbin")).to_path_buf(),
        })
    }

    fn check(&self, program: &str, arguments: &[&str], image: &Path) -> Result<Output> {
        let mut command = Command::new(self.checkers.join(program));
        command.args(arguments).arg(image).env("LC_ALL", "C").stdin(Stdio::null());
        command.output().with_context(|| format!("cannot run {program}"))
    }
}

/// What was found on the disk after the cut.
struct Found {
    /// Records that the guest had been told are on the disk.
    synced: usize,
    /// Those of them that are not there.
    lost: Vec<usize>,
    /// What e2fsck finds wrong after the journal has been replayed.
    wrong: Option<String>,
    console: Vec<String>,
}

impl Found {
    fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.wrong.is_none()
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records synced, {} of them lost", self.synced, self.lost.len())?;
        self.wrong.as_ref().map_or(Ok(()), |wrong| write!(f, "; e2fsck: {wrong}"))
    }
}

/// Boots the guest in an emulated host, kills that when enough records are synced, and looks at the disk.
fn cut(parts: &Parts, program: &Path, fault: Option<&str>, records: usize) -> Result<Found> {
    let scratch = tempfile::tempdir_in(workspace::target()).context("no temporary directory")?;
    let (root, second) = (scratch.path().join("root"), scratch.path().join("second"));
    let mut left = TRIES;
    let console = loop {
        fs::copy(&parts.image, &root).context("cannot copy the disk image")?;
        File::create(&second).and_then(|file| file.set_len(SECOND)).context("cannot make a disk image")?;
        let console = Console::new(records);
        let ended = lab::run(job(parts, program, fault, &[&root, &second], &console));
        if console.is_enough() {
            break console.lines();
        }
        left -= 1;
        match ended {
            // What is left of its console says why.
            Ok(outcome) => bail!("the guest ended with {}:\n{}", outcome.code, console.lines().join("\n")),
            Err(error) if left > 0 && failure::is_missing(&error) => say("power-cut", format_args!("{error:#}")),
            Err(error) => return Err(error),
        }
    };
    let synced = console.iter().filter(|line| number(line).is_some()).count();
    let replayed = parts.check("e2fsck", &["-fp"], &root)?;
    let checked = parts.check("e2fsck", &["-fn"], &root)?;
    let broken = replayed.status.code().is_none_or(|code| code > 1) || !checked.status.success();
    let wrong = broken.then(|| String::from_utf8_lossy(&[replayed.stdout, checked.stdout].concat()).into_owned());
    let mut lost = Vec::new();
    for number in 0..synced {
        let file = parts.check("debugfs", &["-R", &format!("cat /data/r{number}")], &root)?;
        if file.stdout != record(number) {
            lost.push(number);
        }
    }
    Ok(Found { synced, lost, wrong, console })
}

fn job(parts: &Parts, program: &Path, fault: Option<&str>, disks: &[&Path], console: &Console) -> Job {
    let words = ["/bin/tophalf", "run", "/guest/vmlinuz", "--initrd", "/guest/initrd", "--cpus", "2", "--no-reboot"];
    let options = ["--disk", "/dev/vda", "--disk", "/dev/vdb", "--cmdline", CMDLINE];
    let files = [(program, words[0]), (&parts.kernel.image, words[2]), (&parts.initrd, words[4])];
    let command: Vec<String> = words.iter().chain(&options).map(|&word| word.to_owned()).collect();
    Job {
        command: ["sh".to_owned(), "-c".to_owned(), format!("{NO_WRITE_BACK}exec {}", quote::line(&command))].to_vec(),
        environment: fault.map(|name| ("TOPHALF_FAULT".to_owned(), name.to_owned())).into_iter().collect(),
        files: files.map(|(host, guest)| Copy { host: host.to_path_buf(), guest: guest.to_owned() }).to_vec(),
        disks: disks.iter().map(|image| Disk { image: image.to_path_buf(), kept: true }).collect(),
        timeout: Some(LIMIT),
        stdout: Box::new(console.clone()),
        ..Job::default()
    }
}

fn record(number: usize) -> Vec<u8> {
    format!("record {number} of the guest\n").bytes().cycle().take(RECORD).collect()
}

/// The record that a line of the console says is synced.
fn number(line: &str) -> Option<usize> {
    line.strip_prefix("@@RECORD ")?.strip_suffix("@@")?.parse().ok()
}

/// The guest's console. It takes no more once enough records are synced: then the emulated host is killed.
#[derive(Clone)]
struct Console(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    part: Vec<u8>,
    records: usize,
    enough: usize,
}

impl Console {
    /// One that takes so many records.
    fn new(enough: usize) -> Self {
        Self(Arc::new(Mutex::new(Said { enough, ..Said::default() })))
    }

    fn with<T>(&self, action: impl FnOnce(&mut Said) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_enough(&self) -> bool {
        self.with(|said| said.records >= said.enough)
    }

    fn lines(&self) -> Vec<String> {
        self.with(|said| said.lines.clone())
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|said| {
            for &byte in bytes {
                if byte != b'\n' {
                    said.part.push(byte);
                    continue;
                }
                let line = String::from_utf8_lossy(&std::mem::take(&mut said.part)).trim_end().to_owned();
                said.records += usize::from(number(&line) == Some(said.records));
                said.lines.push(line);
            }
        });
        if self.is_enough() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
