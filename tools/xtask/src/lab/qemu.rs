//! QEMU as the emulated AMD host.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::Disk;
use crate::signals::Group;

/// The emulated CPU. KVM in it reports XSAVE sizes that do not match what QEMU's nested SVM gives, and a guest's
/// kernel warns of it: so no XSAVE, nor protection keys, which need it. An invariant TSC, as any host of today has.
const CPU: &str = "max,la57=off,pku=off,xsave=off,invtsc=on";

/// One thread for all CPUs. With several, translating code that another CPU writes at that moment races before QEMU 8.1
/// ("accel/tcg: Always lock pages before translation"), and in 10.0 guests' kernels still die of wild jumps now and then.
const ACCELERATOR: &str = "tcg,thread=single";

/// Kernel parameters of the emulated host. `ttyS0` is its log. QEMU's TSCs are in step, whatever the kernel's own
/// test finds while its CPUs take turns. The rest saves time: no mitigation, self-test, bounce buffer or
/// calibration is worth its price in an emulator, nor a grace period waited for at leisure: KVM waits for many.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off nokaslr audit=0 \
    rcupdate.rcu_expedited=1 cryptomgr.notests=1 swiotlb=noforce lpj=8000000 random.trust_cpu=on";

/// A running QEMU; dropping it kills it.
pub struct Qemu {
    /// The process.
    pub child: Child,
    _group: Group,
}

/// What to start QEMU with.
pub struct Machine<'a> {
    /// The emulator.
    pub program: &'a Path,
    /// The kernel's bzImage.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initrd: &'a Path,
    /// Where the kernel's log goes.
    pub log: &'a Path,
    /// Where it is found afterwards.
    pub kept_log: &'a Path,
    /// Where QEMU's own messages go.
    pub messages: &'a Path,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// More arguments: the ports and disks.
    pub arguments: Vec<String>,
}

impl Qemu {
    /// Starts QEMU.
    ///
    /// # Errors
    /// When the program does not run or a file cannot be made.
    pub fn start(machine: &Machine) -> Result<Self> {
        let messages = File::create(machine.messages).context("cannot make QEMU's message file")?;
        let log = machine.log.display().to_string().replace(',', ",,");
        let child = Command::new(machine.program)
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-accel", ACCELERATOR, "-cpu", CPU, "-machine", "q35"])
            .args(["-smp", &machine.cpus.to_string(), "-m", &machine.memory.to_string()])
            .arg("-kernel")
            .arg(machine.kernel)
            .arg("-initrd")
            .arg(machine.initrd)
            .args(["-append", PARAMETERS])
            .args(["-chardev", &format!("file,id=log,path={log}"), "-serial", "chardev:log"])
            .args(&machine.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages)
            // A ^C on the terminal is ours to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", machine.program.display()))?;
        let group = Group::new(&child)?;
        Ok(Self { child, _group: group })
    }
}

/// QEMU's arguments for these disks. A write to one that is kept has reached the image when the emulated host hears of its end, and it
/// has no cache of its own to flush.
pub fn disks(disks: &[Disk]) -> Vec<String> {
    let arguments = |(number, disk): (usize, &Disk)| {
        let image = disk.image.display().to_string().replace(',', ",,");
        let how = if disk.kept { "cache=writethrough" } else { "snapshot=on,cache=unsafe" };
        [
            "-drive".to_owned(),
            format!("if=none,id=disk{number},format=raw,{how},file={image}"),
            "-device".to_owned(),
            format!("virtio-blk-pci,drive=disk{number}"),
        ]
    };
    disks.iter().enumerate().flat_map(arguments).collect()
}

/// Major and minor version of a QEMU program, if it says one.
pub fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Major and minor version out of `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once(" version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why QEMU or the kernel in it ended, in one line, from what they left.
pub fn epitaph(messages: &Path, log: &Path) -> String {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    if let Some(line) = log.lines().find(|line| line.contains("Kernel panic")) {
        return format!("its kernel panicked: {}", line.trim());
    }
    let messages = fs::read(messages).unwrap_or_default();
    let messages = String::from_utf8_lossy(&messages);
    let told = |line: &&str| !line.trim().is_empty() && !line.contains("warning:");
    match messages.lines().rfind(told) {
        Some(line) => format!("QEMU said: {}", line.trim()),
        None => "it was powered off".to_owned(),
    }
}

#[cfg(test)]
mod tests;
