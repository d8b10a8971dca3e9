//! Runs a command in an emulated AMD host that has real KVM: QEMU's TCG with nested SVM under a Debian kernel.
//!
//! The whole host is an initramfs made for the run: busybox, the KVM modules, the program with its shared
//! libraries, and the files asked for. `init.sh` is its process 1. Time in it is elastic: good for counts and
//! order, not for microseconds.

mod command;
mod image;
mod libraries;
mod link;
mod program;
mod qemu;
mod session;
mod terminal;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub use command::{Options, main};
pub use libraries::{LINKER, in_tree as libraries_in_tree, of as libraries};
pub use qemu::version as qemu_version;
pub use terminal::interactive;

use crate::assets::Assets;
use crate::{quote, workspace};
use link::Link;
use qemu::Machine;
use session::Session;

/// CPUs of an emulated host. They take turns in one thread, and that has a price: QEMU's nested SVM delivers an injected interrupt once
/// more when the turn changes before the guest's next exit, in the handler, interrupts off or not (VMRUN leaves the vector in its CPU's
/// `exception_index`). Guests whose local APIC is KVM's deadlock of it, on the lock of their own interrupt descriptor: the way from an
/// injection to the next exit is long there. With one CPU there are no turns.
pub const CPUS: u32 = 2;

/// A file on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// Its path here.
    pub host: PathBuf,
    /// Its path in the emulated host.
    pub guest: String,
}

/// A disk of the emulated host: `/dev/vda` and so on.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// The raw image here.
    pub image: PathBuf,
    /// Whether what is written gets into the image: at once then, so that all that the emulated host has given to its disk is there
    /// when QEMU is killed. Otherwise it is gone at the end.
    pub kept: bool,
}

/// A command to run and what it needs.
pub struct Job {
    /// The program as the emulated host finds it, and its arguments.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Files to put in; shared libraries of programs come by themselves.
    pub files: Vec<Copy>,
    /// Files to bring back afterwards.
    pub copy_out: Vec<Copy>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Limit for all of it, from the start of QEMU.
    pub timeout: Option<Duration>,
    /// Whether the command gets a terminal on ours; else three plain pipes.
    pub terminal: bool,
    /// Whether our stdin goes to the command; else it finds an end of file.
    pub input: bool,
    /// Host CPUs.
    pub cpus: u32,
    /// Host memory in MiB.
    pub memory: u32,
    /// Where the command's stdout goes (all output, with a terminal). When it can't be written any more, QEMU is killed in the midst of
    /// it all, and the run ends silently with exit code 141.
    pub stdout: Box<dyn Write + Send>,
    /// Where the command's stderr goes.
    pub stderr: Box<dyn Write + Send>,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            copy_out: Vec::new(),
            disks: Vec::new(),
            timeout: None,
            terminal: false,
            input: false,
            cpus: CPUS,
            memory: 4096,
            stdout: Box::new(std::io::stdout()),
            stderr: Box::new(std::io::stderr()),
        }
    }
}

/// How a run ended.
pub struct Outcome {
    /// The command's exit code.
    pub code: u8,
    /// Files that were to be copied out and are not there or no regular files.
    pub missing: Vec<String>,
    /// How long the emulated host took to come up.
    pub boot: Duration,
}

/// Runs `job` in an emulated host of its own.
///
/// # Errors
/// Exit code 4 when something needed is missing or the emulated host died, 124 when the time limit ran out,
/// 128 plus the number when a signal ended the run, 2 when a file to put in cannot be read.
pub fn run(job: Job) -> Result<Outcome> {
    let (qemu_program, busybox, kernel) = {
        let assets = Assets::open()?;
        (assets.qemu()?, assets.busybox()?, assets.kernel()?)
    };
    let directory = workspace::target().join("lab");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    sweep(&directory);
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&directory).context("no temporary directory")?;

    let marker = format!("@@{}@@", random()?);
    let contents = image::Contents {
        script: &script(&job),
        terminal: job.terminal,
        marker: &marker,
        files: &job.files,
        copy_out: &job.copy_out,
        disks: !job.disks.is_empty(),
    };
    let initrd = scratch.path().join("initrd.cpio");
    fs::write(&initrd, image::build(&busybox, &kernel, &contents)?).context("cannot write the initramfs")?;

    let link = Link::new(job.terminal)?;
    // The log gets its last name at the end: a second run at the same time must not mix with it.
    let live = scratch.path().join("kernel.log");
    let log = directory.join("kernel.log");
    let messages = scratch.path().join("qemu.log");
    let machine = Machine {
        program: &qemu_program,
        kernel: &kernel.image,
        initrd: &initrd,
        log: &live,
        kept_log: &log,
        messages: &messages,
        cpus: job.cpus,
        memory: job.memory,
        arguments: link.arguments().into_iter().chain(qemu::disks(&job.disks)).collect(),
    };
    let outcome = Session::start(job, &machine, &link, marker).and_then(Session::wait);
    // Only for whoever wants to look; the outcome counts.
    let _ = fs::rename(&live, &log);
    outcome
}

/// Removes what killed runs left behind: directories of a day ago, since a younger one may be in use.
fn sweep(directory: &Path) {
    const DAY: Duration = Duration::from_secs(86_400);
    for entry in directory.read_dir().into_iter().flatten().flatten() {
        let run = entry.file_name().to_string_lossy().starts_with("run-");
        let made = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let old = made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > DAY);
        if run && old {
            // What cannot be removed only takes space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The script that becomes the command.
fn script(job: &Job) -> String {
    let mut script = String::from("cd /\n");
    if job.terminal {
        let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
        script += &format!("export TERM={}\n", quote::word(&term));
        if let Some((rows, columns)) = terminal::size() {
            script += &format!("stty rows {rows} cols {columns}\n");
        }
    }
    for (name, value) in &job.environment {
        script += &format!("export {name}={}\n", quote::word(value));
    }
    script + "exec " + &quote::line(&job.command) + "\n"
}

/// A word no output contains.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("no /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
