//! `cargo xtask bench linux`: what a stock Linux guest makes of its interrupts, mode by mode.
//!
//! Two programs of Debian's: cyclictest (rt-tests) measures how late a real-time thread wakes by a timer, and perf's
//! `bench sched pipe` (linux-perf) how long two processes take to answer each other. A round is one boot of each kind, each round in
//! another order; a ratio is taken within a round.

mod initrd;
mod results;
mod script;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::host::Host;
use super::kinds::Plan;
use results::Results;

/// A guest takes about half a minute in the emulated host; so many seconds mean that it hangs.
const LIMIT_OF_A_GUEST: u32 = 300;

/// Timer latency (cyclictest) and a pipe's round trip (perf bench) in a Debian guest, in the modes user, split and kernel, and in QEMU
/// beside them.
#[derive(Args)]
pub struct Options {
    /// Guests of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Numbers of vCPUs
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Vec<u32>,
    /// Wake-ups measured in each guest
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    samples: u32,
    /// Micro-seconds between them; an emulated host that can't keep up needs more
    #[arg(long, value_name = "US", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(50..=1_000_000))]
    interval: u32,
    /// Round trips through the pipe in each guest
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    round_trips: u32,
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
    let plan =
        Plan { machine: host.machine(), kinds: host.kinds(), cpus: options.cpus.clone(), rounds: options.rounds };
    let guests = plan.guests();
    let limit = Duration::from_secs(u64::from(LIMIT_OF_A_GUEST) * (guests as u64 + 1));
    let results = Results::parse(&host.run(&script::script(&plan), guests, limit)?);
    print!("{results}");
    Ok(u8::from(!results.complete(guests, options.samples, options.round_trips)))
}
