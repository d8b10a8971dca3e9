//! Where guests are measured: this host, if it has hardware virtualization, else the emulated one.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kinds::{Kind, Machine};
use super::peer::Peer;
use crate::assets::Assets;
use crate::kept::Kept;
use crate::lab::{self, Copy, Disk, Job};
use crate::{child, failure, hardware, workspace};

/// Program, kernel and initramfs in the emulated host.
const LAB_PATHS: [&str; 3] = ["/bin/tophalf", "/guest/vmlinuz", "/guest/initrd"];
/// The emulated host's CPUs. With more than one, guests with KVM's local APICs hang (see [`lab::CPUS`]).
const LAB_CPUS: u32 = 1;

/// How a script begins: what host this is, and a folder for what it keeps, `$work`.
pub const FACTS: &str = r#"
echo "@@host cpu $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1) x $(grep -c ^processor /proc/cpuinfo)"
echo "@@host kernel $(uname -r)"
echo "@@host kvm $(cut -d ' ' -f 1 /proc/modules | grep ^kvm | tr '\n' ' ')"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"#;

/// What a script says of its host with [`FACTS`]; each other line goes to `take`.
pub fn facts(output: &str, mut take: impl FnMut(&str)) -> Vec<String> {
    let mut facts = Vec::new();
    for line in output.lines() {
        match line.strip_prefix("@@host ") {
            Some(fact) => facts.push(fact.trim().to_owned()),
            None => take(line),
        }
    }
    facts
}

/// The host, and what the guests are made of.
pub struct Host {
    /// Why it is the emulated one.
    obstacle: Option<String>,
    /// Paths here, in the order of [`LAB_PATHS`].
    parts: [PathBuf; 3],
    peer: Option<Peer>,
    disk: Option<PathBuf>,
    /// A busybox here.
    busybox: PathBuf,
}

impl Host {
    /// Finds or makes everything; QEMU is compared with if it is installed and wanted.
    ///
    /// # Errors
    /// Exit code 4 when something needed is missing; 1 when the program does not build.
    pub fn find(with_qemu: bool, initrd: impl FnOnce(&Assets) -> Result<PathBuf>) -> Result<Self> {
        let obstacle = hardware::obstacle();
        let (kernel, initrd, busybox) = {
            let assets = Assets::open()?;
            if obstacle.is_some() {
                assets.qemu()?;
            }
            (assets.kernel()?.image, initrd(&assets)?, assets.busybox()?)
        };
        eprintln!("xtask: building tophalf");
        let program = workspace::build_program("tophalf", "tophalf")?;
        let peer = if with_qemu { Peer::find() } else { None };
        Ok(Self { obstacle, parts: [program, kernel, initrd], peer, disk: None, busybox })
    }

    /// With a disk image that a script finds at [`Host::disk`], to read.
    pub fn with_disk(self, disk: PathBuf) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// Where it is there.
    pub fn disk(&self) -> String {
        match (&self.disk, &self.obstacle) {
            (Some(disk), None) => disk.display().to_string(),
            _ => "/dev/vda".to_owned(),
        }
    }

    /// Where a script finds a busybox.
    pub fn busybox(&self) -> String {
        match self.obstacle {
            Some(_) => "/bin/busybox".to_owned(),
            None => self.busybox.display().to_string(),
        }
    }

    /// What can be measured here.
    pub fn kinds(&self) -> Vec<Kind> {
        let own = [Kind::User, Kind::Split, Kind::Kernel];
        own.into_iter().chain(self.peer.iter().flat_map(Peer::kinds)).collect()
    }

    /// The guest as a script there finds it.
    pub fn machine(&self) -> Machine {
        let [program, kernel, initrd] = match self.obstacle {
            Some(_) => LAB_PATHS.map(str::to_owned),
            None => self.parts.each_ref().map(|path| path.display().to_string()),
        };
        Machine { program, kernel, initrd, ..Machine::default() }
    }

    /// Runs the script, which starts so many guests; gives what it said.
    ///
    /// # Errors
    /// When it fails as a whole, or takes longer than `limit`.
    pub fn run(&self, script: &str, guests: usize, limit: Duration) -> Result<String> {
        let Some(obstacle) = &self.obstacle else { return here(script, limit) };
        eprintln!("xtask: no hardware KVM here ({obstacle}): in an emulated host, {guests} guests");
        let parts = self.parts.iter().zip(LAB_PATHS);
        let mut files: Vec<Copy> =
            parts.map(|(host, guest)| Copy { host: host.clone(), guest: guest.to_owned() }).collect();
        files.extend(self.peer.iter().flat_map(Peer::files));
        let disks = self.disk.iter().map(|image| Disk { image: image.clone(), kept: false }).collect();
        in_lab(script, files, disks, limit)
    }
}

fn in_lab(script: &str, files: Vec<Copy>, disks: Vec<Disk>, limit: Duration) -> Result<String> {
    let kept = Kept::and_shown();
    let job = Job {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        files,
        disks,
        timeout: Some(limit),
        cpus: LAB_CPUS,
        stdout: Box::new(kept.clone()),
        ..Job::default()
    };
    match lab::run(job) {
        Ok(outcome) if outcome.code == 0 => Ok(kept.text()),
        Ok(outcome) => Err(failure::host(format!("the measuring script ended with exit code {}", outcome.code))),
        // The emulated host's fault, and what it has measured before is as good as ever.
        Err(error) if failure::is_missing(&error) && !kept.text().is_empty() => {
            eprintln!("xtask: {error:#}; these are the results up to then");
            Ok(kept.text())
        }
        Err(error) => Err(error),
    }
}

fn here(script: &str, limit: Duration) -> Result<String> {
    let mut kept = Kept::and_shown();
    let mut written = Ok(());
    let finished = child::run(Command::new("sh").args(["-c", script]), limit, |line| {
        if written.is_ok() {
            written = writeln!(kept, "{line}");
        }
    })?;
    written.context("cannot show the results")?;
    if finished.success { Ok(kept.text()) } else { Err(failure::host("the measuring script failed")) }
}
