//! What is done with results that are there: `bench merge`, `compare` and `report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use vmm::{Error, exit_code};

use super::budget::Budget;
use super::{compare, file, report};
use crate::cli::outcome;

#[cfg(test)]
mod tests;

/// The commands that measure nothing.
#[derive(Debug, Subcommand)]
pub enum ResultsCommand {
    /// Join result files of one or many hosts; nothing is lost, and what is in several is taken once
    Merge {
        /// Files of 'bench --json'
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to ('-': standard output)
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// Show what has changed; exit with 3 where a budget is not met
    Compare {
        /// The file to compare with
        old: PathBuf,
        /// The file that is looked at
        new: PathBuf,
        /// A limit: '[MODE/]KIND.FIGURE < LIMIT' with min, p50, p90, p99, p99.9 or max, and 1.10x (of the old value) or 5us (may be given several times)
        #[arg(long, value_name = "BUDGET")]
        budget: Vec<String>,
    },
    /// Make a page (index.html) of tables and plots that needs nothing else
    Report {
        /// A file of 'bench --json' or 'bench merge'
        file: PathBuf,
        /// The folder; it is made if it is not there
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// Runs one; gives the program's exit code.
pub fn run(command: &ResultsCommand) -> ExitCode {
    match command {
        ResultsCommand::Merge { files, output } => ended(merge(files, output)),
        ResultsCommand::Report { file, output } => {
            ended(file::read(file).and_then(|results| report::write(output, &results)))
        }
        ResultsCommand::Compare { old, new, budget } => match compared(old, new, budget) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(exit_code::BUDGET),
            Err(e) => outcome::of_error(&e),
        },
    }
}

fn ended(result: Result<(), Error>) -> ExitCode {
    result.map_or_else(|e| outcome::of_error(&e), |()| ExitCode::SUCCESS)
}

fn merge(files: &[PathBuf], output: &Path) -> Result<(), Error> {
    let files = files.iter().map(|path| file::read(path)).collect::<Result<Vec<_>, _>>()?;
    file::write(output, &file::merge(files))
}

fn compared(old: &Path, new: &Path, budgets: &[String]) -> Result<bool, Error> {
    let budgets = budgets.iter().map(|text| Budget::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let comparison = compare::compare(&file::read(old)?, &file::read(new)?, &budgets)?;
    outcome::say(&comparison.text);
    Ok(comparison.met)
}
