//! Tophalf: a virtual machine monitor whose interrupt controllers live in user space.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
