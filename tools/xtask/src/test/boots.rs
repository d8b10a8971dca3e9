//! The step that boots real kernels: the test program `boots`, on hardware KVM or in the emulated host.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::libtest::SHOW;
use super::program::{self, InLab, Progress};
use super::step::{Report, say};
use crate::assets::Assets;
use crate::lab::{self, Copy, Disk};
use crate::{child, failure, hardware, workspace};

const HOUR: Duration = Duration::from_secs(3600);
/// The module of the tests whose guests have KVM's local APICs (see [`lab::CPUS`]).
const KVMS_CHIPS: &str = "kvms_chips::";

/// Builds and runs the tests whose names contain `filter`.
///
/// # Errors
/// When something does not build, or the emulated host died.
pub fn run(full: bool, filter: Option<&str>) -> Result<Report> {
    say("boots", "building");
    let tests = workspace::build_test("boots")?;
    let tophalf = workspace::build_program("tophalf", "tophalf")?;
    let mut arguments = vec!["--ignored".to_owned()];
    arguments.extend(filter.map(str::to_owned));
    let names = program::list(&tests, &arguments)?;
    if names.is_empty() {
        return Ok(Report::default());
    }
    let obstacle = hardware::obstacle();
    let guests = match needed(obstacle.is_some()) {
        Ok(assets) => assets,
        Err(error) if failure::is_missing(&error) => {
            return Ok(Report::skipped(names.len() as u64, format!("{error:#}")));
        }
        Err(error) => return Err(error),
    };
    arguments.extend(["--test-threads=1", SHOW].map(str::to_owned));
    let mut environment = vec![("TOPHALF_FULL", "1")];
    if !full {
        environment.clear();
    }
    let limit = if full { 4 * HOUR } else { 2 * HOUR };
    if let Some(obstacle) = obstacle {
        say("boots", format_args!("in the emulated host ({obstacle})"));
        environment.push(("TOPHALF_LAB", "1"));
        in_labs(&Files { tests, tophalf, guests }, &names, &environment, limit)
    } else {
        let mut command = Command::new(&tests);
        command.args(&arguments).envs(environment);
        command.env("TOPHALF_BIN", tophalf).env("TOPHALF_KERNEL", guests.kernel).env("TOPHALF_INITRD", guests.initrd);
        command.envs(e2fsprogs());
        command.env("TOPHALF_VMLINUX", guests.vmlinux).env("TOPHALF_GENERIC_KERNEL", guests.generic);
        command.env("TOPHALF_GENERIC_INITRD", guests.generic_initrd).env("TOPHALF_DISK", guests.disk);
        let mut progress = Progress::new("boots");
        let finished = child::run(&mut command, limit, |line| progress.line(line))?;
        let reason = finished.timed_out.then(|| format!("killed after {} s", limit.as_secs()));
        Ok(progress.report(finished.success, reason))
    }
}

/// What makes and checks file systems, if it is installed: the variable that names it to the tests, and where it is.
fn e2fsprogs() -> impl Iterator<Item = (&'static str, PathBuf)> {
    [("TOPHALF_MKE2FS", "mke2fs"), ("TOPHALF_E2FSCK", "e2fsck"), ("TOPHALF_DEBUGFS", "debugfs")]
        .into_iter()
        .map(|(variable, name)| (variable, PathBuf::from("/sbin").join(name)))
        .filter(|(_, path)| path.is_file())
}

/// What the tests boot.
struct Guests {
    kernel: PathBuf,
    vmlinux: PathBuf,
    generic: PathBuf,
    initrd: PathBuf,
    generic_initrd: PathBuf,
    disk: PathBuf,
}

fn needed(emulated: bool) -> Result<Guests> {
    let assets = Assets::open()?;
    if emulated {
        assets.qemu()?;
    }
    Ok(Guests {
        kernel: assets.kernel()?.image,
        vmlinux: assets.vmlinux()?,
        generic: assets.generic_kernel()?.image,
        initrd: assets.guest_initrd()?,
        generic_initrd: assets.generic_initrd()?,
        disk: assets.disk_image()?,
    })
}

struct Files {
    tests: PathBuf,
    tophalf: PathBuf,
    guests: Guests,
}

/// The tests with KVM's own local APICs in an emulated host with one CPU, the others in one with more.
fn in_labs(files: &Files, names: &[String], environment: &[(&str, &str)], limit: Duration) -> Result<Report> {
    let (with_kvms, others): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| name.starts_with(KVMS_CHIPS));
    let mut whole = Report::default();
    for (names, cpus) in [(others, lab::CPUS), (with_kvms, 1)].into_iter().filter(|(names, _)| !names.is_empty()) {
        whole += in_lab(files, environment, cpus, limit).run(&names)?;
    }
    Ok(whole)
}

fn in_lab<'a>(files: &'a Files, environment: &[(&str, &str)], cpus: u32, limit: Duration) -> InLab<'a> {
    let places = [
        ("TOPHALF_BIN", &files.tophalf, "/bin/tophalf"),
        ("TOPHALF_KERNEL", &files.guests.kernel, "/guest/vmlinuz"),
        ("TOPHALF_VMLINUX", &files.guests.vmlinux, "/guest/vmlinux"),
        ("TOPHALF_GENERIC_KERNEL", &files.guests.generic, "/guest/vmlinuz-generic"),
        ("TOPHALF_INITRD", &files.guests.initrd, "/guest/initrd"),
        ("TOPHALF_GENERIC_INITRD", &files.guests.generic_initrd, "/guest/initrd-generic"),
    ];
    let checkers: Vec<_> = e2fsprogs().collect();
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let in_guest = |path: &PathBuf| path.to_string_lossy().into_owned();
    let environment = places
        .iter()
        .map(|&(name, _, guest)| own(&(name, guest)))
        .chain(checkers.iter().map(|(name, path)| ((*name).to_owned(), in_guest(path))))
        .chain(environment.iter().chain(&[("TOPHALF_DISK", "/dev/vda")]).map(own))
        .collect();
    let files_in = places
        .iter()
        .map(|&(_, host, guest)| Copy { host: host.clone(), guest: guest.to_owned() })
        .chain(checkers.iter().map(|(_, path)| Copy { host: path.clone(), guest: in_guest(path) }))
        .collect();
    InLab {
        step: "boots",
        tests: &files.tests,
        arguments: ["--ignored", "--test-threads=1", SHOW].map(str::to_owned).to_vec(),
        environment,
        files: files_in,
        disks: vec![Disk { image: files.guests.disk.clone(), kept: false }],
        cpus,
        limit,
    }
}
