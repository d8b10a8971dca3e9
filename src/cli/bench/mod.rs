//! `tophalf bench`: how long interrupts take, and what is made of the results.

mod against;
mod budget;
mod commands;
mod compare;
mod file;
#[cfg(test)]
mod fixture;
mod measure;
mod report;
mod results;
pub mod statistics;
pub mod units;
mod view;

use std::process::ExitCode;

use clap::Args;

use self::commands::ResultsCommand;
use self::measure::MeasureArguments;

/// What `tophalf bench` takes: a command for results that are there, or what is to be measured.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArguments {
    #[command(subcommand)]
    command: Option<ResultsCommand>,
    #[command(flatten)]
    measure: MeasureArguments,
}

/// Runs it; gives the program's exit code.
pub fn bench(arguments: &BenchArguments) -> ExitCode {
    match &arguments.command {
        Some(command) => commands::run(command),
        None => measure::measure(&arguments.measure),
    }
}
