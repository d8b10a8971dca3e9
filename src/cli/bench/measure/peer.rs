//! QEMU beside our own machines: the same guest image with each of its `kernel-irqchip` settings. It has none of our devices, so
//! what needs the test agent is left out there, and the guest hands over the rest by its serial port.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vmm::Error;
use vmm::protocol::words;

use super::kinds;
use super::machine::{self, LIMIT, Listener};
use crate::cli::stress::image::Image;
use crate::cli::stress::process::{self, Ended};
use crate::cli::stress::watch::Watch;

#[cfg(test)]
mod tests;

/// The program, if the user names none.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// How long a trial may take, and how long a machine that measures.
const TRIAL: Duration = Duration::from_secs(40);
const WALL: Duration = Duration::from_secs(360);
/// Boots in hardly any time, also where ring 0 is interpreted; every QEMU has it.
const FIRMWARE: &str = "bios-microvm.bin";

/// Where QEMU's interrupt controllers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelIrqchip {
    /// All in KVM.
    On,
    /// The local APICs in KVM.
    Split,
    /// All in QEMU.
    Off,
}

impl KernelIrqchip {
    /// All settings, in the order in which they are measured.
    pub const ALL: [Self; 3] = [Self::On, Self::Split, Self::Off];

    /// What it is called in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "qemu-on",
            Self::Split => "qemu-split",
            Self::Off => "qemu-off",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Split => "split",
            Self::Off => "off",
        }
    }

    /// The mode of ours that it is like.
    fn word(self) -> &'static str {
        match self {
            Self::On => words::KERNEL,
            Self::Split => words::SPLIT,
            Self::Off => words::USER,
        }
    }

    /// The processor that the guest sees: the host's, and nothing that needs a local APIC in KVM where there is none. (QEMU's own has no
    /// TSC deadlines, and says it has.)
    fn processor(self) -> &'static str {
        match self {
            Self::On | Self::Split => "host",
            Self::Off => "host,tsc-deadline=off,kvm-asyncpf=off,kvm-asyncpf-int=off,kvm-pv-eoi=off,kvm-pv-ipi=off",
        }
    }
}

/// An installed QEMU, and what it can do here.
pub struct Peer {
    program: PathBuf,
    cpus: u32,
    /// What it calls itself.
    pub version: String,
    /// Settings in which it runs the guest.
    pub modes: Vec<KernelIrqchip>,
    /// Those in which it does not, and why.
    pub left_out: Vec<(KernelIrqchip, String)>,
}

impl Peer {
    /// Tries `program` in each setting, with so many vCPUs.
    ///
    /// # Errors
    ///
    /// A usage error when it can't be run, or does not run the guest with KVM.
    pub fn find(program: &Path, image: &Image, cpus: u32) -> Result<Self, Error> {
        let version = version(program)?;
        let mut peer = Self { program: program.to_owned(), cpus, version, modes: Vec::new(), left_out: Vec::new() };
        for mode in KernelIrqchip::ALL {
            match peer.trial(image, mode)? {
                None => peer.modes.push(mode),
                Some(why) if mode == KernelIrqchip::On => {
                    return Err(Error::Usage(format!(
                        "{} runs no guest with KVM: {why}; see 'tophalf doctor', or leave out --vs-qemu",
                        program.display()
                    )));
                }
                Some(why) => peer.left_out.push((mode, format!("this QEMU does not run the guest: {why}"))),
            }
        }
        Ok(peer)
    }

    /// Why it does not run the guest, if it does not.
    fn trial(&self, image: &Image, mode: KernelIrqchip) -> Result<Option<String>, Error> {
        let clock: Vec<_> = image.measurements().iter().filter(|record| record.name() == kinds::CLOCK).collect();
        let mut said = None;
        let shot = machine::run(image, &clock, 1, Some(1), |words, listener| {
            let ended = self.run_within(image, mode, words, TRIAL, listener)?;
            said = ended.machine.iter().rev().find_map(|line| complaint(line));
            if ended.exceeded.is_some() {
                said = Some(format!("it does not come up with {} vCPUs", self.cpus));
            }
            Ok(ended)
        })?;
        let ran = shot.measured.iter().any(|one| one.trouble.is_none() && !one.series.is_empty());
        Ok((!ran).then(|| said.unwrap_or_else(|| "it ends without a word".to_owned())))
    }

    /// Runs a machine with these words on the guest's command line.
    pub fn run(
        &self,
        image: &Image,
        mode: KernelIrqchip,
        words: Vec<String>,
        listener: Listener<'_>,
    ) -> Result<Ended, Error> {
        self.run_within(image, mode, words, WALL, listener)
    }

    fn run_within(
        &self,
        image: &Image,
        mode: KernelIrqchip,
        words: Vec<String>,
        wall: Duration,
        listener: Listener<'_>,
    ) -> Result<Ended, Error> {
        let command = command(&self.program, image.path(), mode, self.cpus, words);
        process::attend(command, |pid| Watch::new(pid, LIMIT).within(wall), listener)
    }
}

fn command(program: &Path, image: &Path, mode: KernelIrqchip, cpus: u32, mut on_cmdline: Vec<String>) -> Command {
    on_cmdline.push(format!("{}={}", words::IRQCHIP, mode.word()));
    if vmm::doctor::interprets_ring_0() {
        on_cmdline.push(format!("{}={}", words::HOST, words::SOFTWARE));
    }
    let mut command = Command::new(program);
    command
        .args(["-accel", &format!("kvm,kernel-irqchip={}", mode.setting()), "-machine", "q35", "-bios", FIRMWARE])
        .args(["-cpu", mode.processor(), "-smp", &cpus.to_string(), "-m", "128M", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
        .arg(image)
        .args(["-append", &on_cmdline.join(" ")]);
    command
}

fn version(program: &Path) -> Result<String, Error> {
    let remedy = format!("install it (Debian: qemu-system-x86), or name one: --vs-qemu=PATH to {PROGRAM}");
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::Usage(format!("{} can't be run: {e}; {remedy}", program.display())))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    if !first.starts_with("QEMU emulator version ") {
        return Err(Error::Usage(format!("{} is no QEMU; {remedy}", program.display())));
    }
    Ok(first.strip_prefix("QEMU emulator version ").unwrap_or(first).to_owned())
}

/// What a line on QEMU's stderr complains of; warnings do not count.
fn complaint(line: &str) -> Option<String> {
    let said = line.split_once(": ").map_or(line, |(_, said)| said);
    (!said.is_empty() && !said.starts_with("warning: ")).then(|| said.to_owned())
}
