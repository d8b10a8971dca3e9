//! The command line.

mod outcome;
mod run;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// A KVM virtual machine monitor whose interrupt controllers (PIC, I/O APIC, local APICs) live in user space.
#[derive(Debug, Parser)]
#[command(name = "tophalf", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a Linux kernel.
    Run(run::RunArguments),
}

/// Parses the arguments and runs the command; gives the program's exit code.
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Run(arguments) }) => run::run(arguments),
        Err(e) => usage(&e),
    }
}

/// Help and version go to stdout with 0; a wrong command line is one line on stderr with 2.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed stdout is no reason to fail.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(vmm::exit_code::USAGE)
        }
        _ => {
            outcome::complain(format_args!("{}; see 'tophalf --help'", outcome::first_paragraph(&error.to_string())));
            ExitCode::from(vmm::exit_code::USAGE)
        }
    }
}
