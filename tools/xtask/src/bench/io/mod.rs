//! `cargo xtask bench io`: what a stock Linux guest gets from its disk and its network device, mode by mode, and from QEMU's beside them.
//!
//! A guest reads 4 KiB at random and 128 KiB in a row and writes 128 KiB in a row with Debian's fio, sends packets as fast as it can
//! with the kernel's own generator (pktgen), waits for the answer of each (ping), and takes and sends a TCP stream. A round is one boot of each kind, each round in another
//! order; a ratio is taken within a round. Who used the host's processors meanwhile is read from the program's times in /proc.

mod initrd;
mod results;
mod script;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::host::Host;
use super::kinds::{Kind, Plan};
use crate::assets::Assets;
use results::Results;

/// A guest takes about a minute in the emulated host with the default seconds; so many more mean that it hangs.
const LIMIT_OF_A_GUEST: u32 = 300;

/// Disk (4 KiB random reads, sequential throughput) and network (packets per second, round trips) of a Debian guest in the modes user,
/// split and kernel, and in QEMU beside them.
#[derive(Args)]
pub struct Options {
    /// Guests of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Numbers of vCPUs
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Vec<u32>,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Requests that fio keeps in the queue
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: u32,
    /// Leave QEMU out even if it is installed
    #[arg(long)]
    no_qemu: bool,
}

/// Measures and prints; exit code 1 when a guest failed.
///
/// # Errors
/// Exit code 4 when something needed is missing; 1 when the program does not build.
pub fn main(options: &Options) -> Result<u8> {
    let host = Host::find(!options.no_qemu, |assets| initrd::make(assets, options))?;
    let image = Assets::open()?.disk_image()?;
    let host = host.with_disk(image);
    let mut machine = host.machine();
    machine.disks = script::disks();
    machine.tap = Some(script::TAP.to_owned());
    // QEMU's user-space chips are another matter.
    let kinds = host.kinds().into_iter().filter(|kind| *kind != Kind::QemuOff).collect();
    let plan = Plan { machine, kinds, cpus: options.cpus.clone(), rounds: options.rounds };
    let guests = plan.guests();
    let limit = LIMIT_OF_A_GUEST + options.seconds * script::MEASURED.len() as u32;
    let whole = Duration::from_secs(u64::from(limit) * (guests as u64 + 1));
    let results = Results::parse(&host.run(&script::script(&plan, limit, &host), guests, whole)?);
    print!("{results}");
    Ok(u8::from(!results.complete(guests)))
}
