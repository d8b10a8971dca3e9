//! `cargo xtask bench boot`: how long a stock kernel takes to its first process, mode by mode.
//!
//! One script runs everything where KVM is, round by round, each round with every kind in another order, so that a
//! drift of the machine hits all alike. A ratio is taken within a round.

mod results;
mod script;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::host::Host;
use super::kinds::Plan;
use results::Results;

/// A boot takes about 20 s in the emulated host; this many times that means that it hangs.
const LIMIT_OF_A_BOOT: u32 = 300;

/// Boot time of a stock kernel in the modes user, split and kernel, and in QEMU beside them.
#[derive(Args)]
pub struct Options {
    /// Boots of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Numbers of vCPUs
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2",
        value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Vec<u32>,
    /// Leave QEMU out even if it is installed
    #[arg(long)]
    no_qemu: bool,
}

/// Measures and prints; exit code 1 when a boot failed.
///
/// # Errors
/// Exit code 4 when something needed is missing; 1 when the program does not build.
pub fn main(options: &Options) -> Result<u8> {
    let host = Host::find(!options.no_qemu, |assets| assets.guest_initrd())?;
    let plan =
        Plan { machine: host.machine(), kinds: host.kinds(), cpus: options.cpus.clone(), rounds: options.rounds };
    let boots = plan.guests();
    let limit = Duration::from_secs(u64::from(LIMIT_OF_A_BOOT) * (boots as u64 + 1));
    let results = Results::parse(&host.run(&script::script(&plan), boots, limit)?);
    print!("{results}");
    Ok(u8::from(!results.complete(boots)))
}
