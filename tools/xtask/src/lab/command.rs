//! The command line of `cargo xtask lab`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Copy, Job, interactive, program};
use crate::assets::Assets;

/// Seconds a command may take when nobody says otherwise.
const TIMEOUT: u64 = 3600;

/// Run a command in an emulated AMD host with real KVM; without a command, a shell.
#[derive(Args)]
pub struct Options {
    /// A file to put in, at the same path or at GUEST
    #[arg(long, value_name = "HOST[:GUEST]")]
    file: Vec<String>,
    /// A program of this workspace (or a path) to put in beside COMMAND
    #[arg(long, value_name = "PROGRAM")]
    with: Vec<String>,
    /// Put in the Debian kernel and the test initramfs as /guest/vmlinuz and /guest/initrd
    #[arg(long)]
    guest: bool,
    /// A raw image to have as a disk, /dev/vda and so on; each write is in it at once
    #[arg(long, value_name = "IMAGE")]
    disk: Vec<PathBuf>,
    /// A file to bring back when COMMAND has ended
    #[arg(long, value_name = "GUEST:HOST")]
    copy_out: Vec<String>,
    /// An environment variable for COMMAND
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Kill everything after so many seconds: exit code 124 [default: 3600, none on a terminal]
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    /// CPUs of the emulated host
    #[arg(long, value_name = "N", default_value_t = super::CPUS, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory of the emulated host in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Say how long the emulated host took to come up
    #[arg(short, long)]
    verbose: bool,
    /// A program of this workspace by its name, a path, or a busybox applet, with its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs it; gives the command's exit code.
///
/// # Errors
/// As [`super::run`].
pub fn main(options: &Options) -> Result<u8> {
    let mut job = Job {
        environment: options.env.iter().map(|text| program::parse_variable(text)).collect::<Result<_>>()?,
        files: options.file.iter().map(|text| program::parse_file(text)).collect::<Result<_>>()?,
        copy_out: options.copy_out.iter().map(|text| program::parse_copy_out(text)).collect::<Result<_>>()?,
        disks: options.disk.iter().map(|path| program::find_disk(path)).collect::<Result<_>>()?,
        terminal: interactive(),
        input: true,
        cpus: options.cpus,
        memory: options.memory,
        ..Job::default()
    };
    let seconds = options.timeout.or(if job.terminal { None } else { Some(TIMEOUT) });
    job.timeout = seconds.map(Duration::from_secs);

    job.command = options.command.clone();
    if job.command.is_empty() {
        job.command = vec!["sh".to_owned()];
    }
    for word in options.with.iter().chain(job.command.first()) {
        job.files.extend(program::find(word)?.file);
    }
    if options.guest {
        let assets = Assets::open()?;
        job.files.push(Copy { host: assets.kernel()?.image, guest: "/guest/vmlinuz".to_owned() });
        job.files.push(Copy { host: assets.guest_initrd()?, guest: "/guest/initrd".to_owned() });
    }

    let outcome = super::run(job)?;
    if options.verbose {
        eprintln!("xtask: the emulated host came up in {:.1} s", outcome.boot.as_secs_f64());
    }
    for path in &outcome.missing {
        eprintln!("xtask: --copy-out: no file {path} in the emulated host");
    }
    Ok(if outcome.code == 0 && !outcome.missing.is_empty() { 1 } else { outcome.code })
}
