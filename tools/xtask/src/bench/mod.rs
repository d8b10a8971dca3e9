//! `cargo xtask bench`: measurements that need whole guests.

mod boot;
mod host;
mod io;
mod kinds;
mod linux;
mod peer;
mod statistics;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Measure whole guests: interleaved, in one run, with ratios.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Boot(boot::Options),
    Io(io::Options),
    Linux(linux::Options),
}

/// Runs the measurement; exit code 0 when every guest of it came up and powered off.
///
/// # Errors
/// As the measurement says.
pub fn main(options: &Options) -> Result<u8> {
    match &options.what {
        What::Boot(options) => boot::main(options),
        What::Io(options) => io::main(options),
        What::Linux(options) => linux::main(options),
    }
}
