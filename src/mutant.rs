//! Tophalf with faults to choose from, for `cargo xtask mutate` (docs/mutate.md): the environment variable `TOPHALF_FAULT` names
//! the one that the program and its children have. `tophalf-mutant faults` lists them. Nobody else reads the
//! variable: the product can't be made to fail by it.

mod cli;

use std::env;
use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use vmm::fault::Fault;
use vmm::{exit_code, fault};

/// The fault's name.
const VARIABLE: &str = "TOPHALF_FAULT";

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|argument| argument == "faults") {
        return list();
    }
    if let Some(name) = env::var_os(VARIABLE)
        && !name.to_str().is_some_and(|name| fault::choose(name).is_ok())
    {
        eprintln!("tophalf-mutant: {VARIABLE} names no fault; 'tophalf-mutant faults' lists them");
        return ExitCode::from(exit_code::USAGE);
    }
    cli::main()
}

/// All faults, as JSON.
fn list() -> ExitCode {
    let faults: Vec<Value> = Fault::ALL
        .iter()
        .map(|record| {
            let first: Vec<&str> = record.first.split_whitespace().collect();
            json!({ "name": record.name, "what": record.what.trim(), "first": first })
        })
        .collect();
    match writeln!(std::io::stdout(), "{:#}", Value::from(faults)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit_code::HOST),
    }
}
