//! `cargo xtask mutate`: builds the program with faults (docs/mutate.md), has the guest's tests look for one fault after the
//! other, and says which test found which. A fault that none finds means that a test is missing.

mod choice;
mod results;
mod trial;

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Result, bail};
use clap::Args;

use crate::{failure, workspace};
use choice::{Fault, choose};
pub use results::Verdict;
use trial::Program;

/// How many faults are tried where nothing else is said.
const SOME: usize = 6;

/// Build the program with faults, and see that the guest's tests find them
#[derive(Args)]
pub struct Options {
    /// Try all faults; otherwise six that the seed chooses
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Only these faults: names, * stands for any text; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Chooses the six, and everything random in the tests; by default the day
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// List the faults with the tests that are tried first, and end
    #[arg(long, conflicts_with_all = ["all", "only", "seed"])]
    list: bool,
}

/// How a fault fared.
pub struct Outcome {
    /// Its name.
    pub fault: String,
    /// Whether it was found, and by whom.
    pub verdict: Verdict,
}

/// Tries faults; exit code 1 if one was not found.
///
/// # Errors
/// A usage error for a name that is no fault's; when something does not build, or this host can't run machines.
pub fn main(options: &Options) -> Result<u8> {
    if options.list {
        for Fault { name, what, first } in program()?.faults()? {
            println!("{name:22} {what}\n{:22} first: {}", "", first.join(", "));
        }
        return Ok(0);
    }
    if let Some(obstacle) = obstacle() {
        return Err(failure::host(obstacle));
    }
    let seed = options.seed.unwrap_or_else(today);
    let program = program()?;
    let faults = program.faults()?;
    let chosen = match (options.all, &options.only[..]) {
        (true, _) => faults,
        (false, []) => choose(&faults, SOME, seed),
        (false, patterns) => choice::select(&faults, patterns).map_err(failure::usage)?,
    };
    let outcomes = look_for(&program, &chosen, seed)?;
    let missed = outcomes.iter().filter(|outcome| !outcome.verdict.is_found()).count();
    println!("{} of {} faults were found; seed {seed}", outcomes.len() - missed, outcomes.len());
    Ok(u8::from(missed > 0))
}

/// Tries six faults that the day chooses, or all: what `cargo xtask test` does.
///
/// # Errors
/// When something does not build.
pub fn run(all: bool) -> Result<Vec<Outcome>> {
    let seed = today();
    println!("   building");
    let program = program()?;
    let faults = program.faults()?;
    let chosen = if all { faults } else { choose(&faults, SOME, seed) };
    println!("   {} faults, seed {seed}", chosen.len());
    look_for(&program, &chosen, seed)
}

/// Why no machine can run here.
pub fn obstacle() -> Option<String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.err().map(|error| format!("cannot open /dev/kvm: {error}; faults are looked for in machines"))
}

fn look_for(program: &Program, faults: &[Fault], seed: u64) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for fault in faults {
        let started = Instant::now();
        let verdict = program.look_for(fault, seed)?;
        println!("   {:22} {verdict}, {:.1} s", fault.name, started.elapsed().as_secs_f64());
        outcomes.push(Outcome { fault: fault.name.clone(), verdict });
    }
    Ok(outcomes)
}

/// Builds the program with faults. It has a name of its own, so that it is never taken for the product.
///
/// # Errors
/// When it does not build.
pub fn build() -> Result<PathBuf> {
    let name = "tophalf-mutant";
    let path = workspace::build("build", &["-p", "tophalf", "--features", "faults", "--bin", name], name)?;
    if !path.is_file() {
        bail!("{} is not there", path.display());
    }
    Ok(path)
}

fn program() -> Result<Program> {
    build().map(Program::new)
}

/// Days since 1970: every day has its six, and after some days all have had their turn.
fn today() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
}
