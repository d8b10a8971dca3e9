//! Tophalf's own build, test and lab commands: `cargo xtask COMMAND`.

mod assets;
mod child;
mod cpio;
mod demo;
mod failure;
mod hardware;
mod lab;
mod quote;
mod report;
mod signals;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use assets::Assets;
use clap::{Parser, Subcommand};

/// Build, test and lab commands of Tophalf.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Options),
    Lab(lab::Options),
    Test(test::Options),
    /// Fetch the Debian kernel and make the guests' initramfs; print where they are
    Assets,
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Demo(options) => demo::main(&options),
        Command::Lab(options) => lab::main(&options),
        Command::Test(options) => test::main(&options),
        Command::Assets => print_assets(),
    };
    ExitCode::from(result.unwrap_or_else(|error| failure::report(&error)))
}

fn print_assets() -> Result<u8> {
    let assets = Assets::open()?;
    println!("kernel {}", assets.kernel()?.image.display());
    println!("initrd {}", assets.guest_initrd()?.display());
    Ok(0)
}
