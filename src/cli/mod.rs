//! The command line.

mod audit;
mod bench;
mod config_file;
mod doctor;
mod explain;
mod generate;
mod log;
mod options;
mod outcome;
mod run;
mod stress;
mod top;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

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
    Run(options::RunArguments),
    /// Say whether this host can run machines, on which KVM, and what will distort latencies.
    Doctor(doctor::DoctorArguments),
    /// Check that the ledgers in a file of 'run --stats' balance.
    Audit(audit::AuditArguments),
    /// Tell what a trace of 'run --trace' has recorded.
    Explain(explain::ExplainArguments),
    /// Run the guest kernel's tests, each in a machine of its own.
    Stress(stress::StressArguments),
    /// Show what running machines do.
    Top(top::TopArguments),
    /// Measure how long interrupts take, in each interrupt-controller mode; join, compare and show the results.
    Bench(bench::BenchArguments),
    /// Write shell completions and man pages.
    #[command(hide = true)]
    Generate(generate::GenerateArguments),
}

/// Parses the arguments and runs the command; gives the program's exit code.
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Run(arguments) }) => run::run(&arguments),
        Ok(Arguments { command: Command::Doctor(arguments) }) => doctor::doctor(&arguments),
        Ok(Arguments { command: Command::Audit(arguments) }) => audit::audit(&arguments),
        Ok(Arguments { command: Command::Explain(arguments) }) => explain::explain(&arguments),
        Ok(Arguments { command: Command::Stress(arguments) }) => stress::stress(&arguments),
        Ok(Arguments { command: Command::Top(arguments) }) => top::top(&arguments),
        Ok(Arguments { command: Command::Bench(arguments) }) => bench::bench(&arguments),
        Ok(Arguments { command: Command::Generate(arguments) }) => generate::generate(&arguments, Arguments::command()),
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
