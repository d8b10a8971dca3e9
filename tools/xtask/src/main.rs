//! Tophalf's own build, test and lab commands: `cargo xtask COMMAND`.

mod assets;
mod cpio;
mod failure;
mod lab;
mod quote;
mod workspace;

use std::process::ExitCode;

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
    Lab(lab::Options),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Lab(options) => lab::main(&options),
    };
    ExitCode::from(result.unwrap_or_else(|error| failure::report(&error)))
}
