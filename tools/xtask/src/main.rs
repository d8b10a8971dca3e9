//! Tophalf's own build, test and lab commands: `cargo xtask COMMAND`.

mod assets;
mod bench;
mod child;
mod cpio;
mod demo;
mod dist;
mod failure;
mod hardware;
mod kept;
mod lab;
mod mutate;
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
    Bench(bench::Options),
    Demo(demo::Options),
    Dist(dist::Options),
    Lab(lab::Options),
    Mutate(mutate::Options),
    Test(test::Options),
    /// Fetch the Debian kernel, make the guests' initramfs and disk image; print where they are
    Assets,
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Bench(options) => bench::main(&options),
        Command::Demo(options) => demo::main(&options),
        Command::Dist(options) => dist::main(&options),
        Command::Lab(options) => lab::main(&options),
        Command::Mutate(options) => mutate::main(&options),
        Command::Test(options) => test::main(&options),
        Command::Assets => print_assets(),
    };
    ExitCode::from(result.unwrap_or_else(|error| failure::report(&error)))
}

fn print_assets() -> Result<u8> {
    let assets = Assets::open()?;
    println!("kernel {}", assets.kernel()?.image.display());
    println!("initrd {}", assets.guest_initrd()?.display());
    println!("disk {}", assets.disk_image()?.display());
    Ok(0)
}
