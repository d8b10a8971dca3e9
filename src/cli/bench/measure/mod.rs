//! `tophalf bench` itself: machines that measure, round by round, and what comes of it.
//!
//! A round is one machine for each mode, one after the other, so that whatever drifts on the host hits all modes alike; each machine
//! makes all measurements. The guest's half is `guest/suite/measure`.

mod fingerprint;
mod gather;
mod kinds;
mod machine;
mod output;
mod peer;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use vmm::test_record::TestRecord;
use vmm::{Error, MAX_CPUS};

use self::gather::{Gathered, Place, Setting};
use self::output::Outputs;
use self::peer::Peer;
use super::report;
use super::results::{FORMAT, Host, Results, Run, Table, VERSION};
use crate::cli::outcome;
use crate::cli::stress::image::Image;
use crate::cli::stress::plan::{Mode, matches};
use crate::cli::stress::process::{self, Launch};
use crate::cli::stress::random_seed;

/// Medians that are known to this part of themselves are good enough.
const PRECISION: f64 = 0.1;
/// Fewer rounds say nothing of their own precision: the interval is drawn from them.
const ROUNDS_FOR_PRECISION: u32 = 6;
/// An interval needs two.
const ROUNDS_MIN: u32 = 2;

/// What `tophalf bench` takes when it measures.
#[derive(Debug, Args)]
pub struct MeasureArguments {
    /// Interrupt-controller modes, separated by commas: user, split, kernel
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "user,split,kernel")]
    irqchip: Vec<String>,
    /// Only kinds whose names match; * stands for any text; may be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// So many rounds; by default until all medians are known to 10% or --seconds are over
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    rounds: Option<u32>,
    /// Begin no round that would end after so many seconds (at least two rounds are made)
    #[arg(long, value_name = "S", default_value_t = 120)]
    seconds: u64,
    /// Samples of each kind in each round; by default what suits the host
    #[arg(long, value_name = "N")]
    samples: Option<u64>,
    /// vCPUs of each machine
    #[arg(short, long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Host CPUs that the machines run on, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pin: Vec<usize>,
    /// Measure a second time, with the same CPUID in all modes
    #[arg(long)]
    same_cpuid: bool,
    /// Measure a second time, with the life-cycle trace written to a temporary file: what tracing costs
    #[arg(long)]
    trace_cost: bool,
    /// Measure the same guest under QEMU beside it, with KVM and each kernel-irqchip that it has: this program, or the one in $PATH
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = peer::PROGRAM)]
    vs_qemu: Option<PathBuf>,
    /// Seed of the times at which the host raises interrupts; by default a new one each time
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the results as JSON ('-': standard output, instead of the table)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the distributions as an HDR interval log, a line for each kind, mode and round
    #[arg(long, value_name = "FILE")]
    hist: Option<PathBuf>,
    /// Make a page (index.html) of tables and plots in this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// Measures; gives the program's exit code: 1 if a measurement failed.
pub fn measure(arguments: &MeasureArguments) -> ExitCode {
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => outcome::of_error(&e),
    }
}

fn run(arguments: &MeasureArguments) -> Result<bool, Error> {
    let image = Image::open(None)?;
    let plan = Plan::new(arguments, &image)?;
    let outputs = Outputs::open(arguments.json.as_deref(), arguments.hist.as_deref())?;
    if !arguments.pin.is_empty() {
        vmm::run_on_cpus(&arguments.pin).map_err(|e| {
            Error::Usage(format!("--pin {:?}: {e}; give CPUs that this process may use", arguments.pin))
        })?;
    }
    let host = vmm::doctor::examine();
    let peer = arguments.vs_qemu.as_deref().map(|program| Peer::find(program, &image, arguments.cpus)).transpose()?;
    let warnings = fingerprint::warnings(&host);
    warnings.iter().for_each(|warning| outcome::say_on_stderr(&format!("warning: {warning}")));
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();

    let mut gathered = Gathered::default();
    for (mode, why) in peer.iter().flat_map(|peer| &peer.left_out) {
        outcome::say_on_stderr(&format!("{} is left out: {why}", mode.name()));
        gathered.leave_out(Setting::Qemu(*mode), plan.selected.iter().map(|record| record.name()), why);
    }
    let interrupted = plan.rounds(&image, peer.as_ref(), &mut gathered)?;
    let run = Run {
        tophalf: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        command: std::env::args().collect(),
        seed: plan.seed,
        cpus: arguments.cpus,
        qemu: peer.map(|peer| peer.version),
        warnings,
        overhead_ns: gathered.overhead_ns(),
        rows: gathered.rows(plan.seed),
    };
    let table = table::text(&run);
    let hosts = vec![Host { fingerprint: fingerprint::of(&host), runs: vec![run] }];
    let results = Results { format: FORMAT.to_owned(), version: VERSION, hosts };
    outputs.write(&results, &gathered)?;
    if let Some(folder) = &arguments.report {
        report::write(folder, &results)?;
    }
    if !outputs.on_stdout() {
        outcome::say(&table);
        outcome::say(&format!("seed {}\n", plan.seed));
    }
    gathered.failures.iter().for_each(outcome::complain);
    if interrupted {
        outcome::complain("interrupted; the results have what was measured so far");
    }
    Ok(gathered.failures.is_empty() && !interrupted)
}

/// What is to be measured.
struct Plan<'a> {
    selected: Vec<&'a TestRecord<u64>>,
    modes: Vec<Mode>,
    tables: Vec<Table>,
    cpus: u32,
    samples: Option<u64>,
    rounds: Option<u32>,
    time: Duration,
    seed: u64,
}

impl<'a> Plan<'a> {
    fn new(arguments: &MeasureArguments, image: &'a Image) -> Result<Self, Error> {
        if !(1..=MAX_CPUS).contains(&arguments.cpus) {
            return Err(Error::Usage(format!(
                "{} vCPUs are not possible; give --cpus 1 to {MAX_CPUS}",
                arguments.cpus
            )));
        }
        if arguments.rounds.is_some_and(|rounds| rounds < ROUNDS_MIN) {
            return Err(Error::Usage(format!(
                "one round has nothing to be compared with; give --rounds {ROUNDS_MIN} or more"
            )));
        }
        if arguments.samples == Some(0) {
            return Err(Error::Usage("no samples at all; give --samples 1 or more".into()));
        }
        let mut modes: Vec<Mode> = Vec::new();
        for name in &arguments.irqchip {
            let mode = Mode::parse(name)?;
            if modes.contains(&mode) {
                return Err(Error::Usage(format!("mode {name} is given twice; give --irqchip each mode once")));
            }
            modes.push(mode);
        }
        let records = image.measurements();
        for pattern in &arguments.only {
            if !records.iter().any(|record| record.name() != kinds::CLOCK && matches(pattern, record.name())) {
                let names: Vec<&str> = records.iter().map(|record| record.name()).collect();
                let names = names.into_iter().filter(|name| *name != kinds::CLOCK).collect::<Vec<_>>().join(", ");
                return Err(Error::Usage(format!("no kind is called {pattern:?}; there are {names}")));
            }
        }
        let wanted = |name: &str| {
            // What measuring costs is measured always.
            name == kinds::CLOCK
                || arguments.only.is_empty()
                || arguments.only.iter().any(|pattern| matches(pattern, name))
        };
        let mut tables = vec![Table::Best];
        tables.extend(arguments.same_cpuid.then_some(Table::SameCpuid));
        tables.extend(arguments.trace_cost.then_some(Table::Traced));
        Ok(Self {
            selected: records.iter().filter(|record| wanted(record.name())).collect(),
            modes,
            tables,
            cpus: arguments.cpus,
            samples: arguments.samples,
            rounds: arguments.rounds,
            time: Duration::from_secs(arguments.seconds),
            seed: arguments.seed.unwrap_or_else(random_seed),
        })
    }

    /// Makes the rounds; true if the user ended them.
    fn rounds(&self, image: &Image, peer: Option<&Peer>, gathered: &mut Gathered) -> Result<bool, Error> {
        let begin = Instant::now();
        let progress = Progress::new();
        let mut round = 0;
        loop {
            let round_begin = Instant::now();
            let ours =
                self.tables.iter().flat_map(|&table| self.modes.iter().map(move |&mode| (table, Setting::Ours(mode))));
            let peers = peer.iter().flat_map(|peer| &peer.modes).map(|&mode| (Table::Best, Setting::Qemu(mode)));
            for (table, mode) in ours.chain(peers) {
                progress.show(round, table, mode);
                let place = Place { table, mode, round, started: begin.elapsed() };
                // The same times in all modes of a round, others in each round.
                let seed = self.seed.wrapping_add(round.into());
                let shot =
                    machine::run(image, &self.selected, seed, self.samples, |words, listener| match (mode, peer) {
                        (Setting::Qemu(mode), Some(peer)) => peer.run(image, mode, words, listener),
                        (Setting::Qemu(_), None) => unreachable!("modes of a QEMU that there is not"),
                        (Setting::Ours(mode), _) => {
                            let (same_cpuid, traced) = (table == Table::SameCpuid, table == Table::Traced);
                            let launch = Launch { mode, cpus: self.cpus, words, same_cpuid, traced };
                            process::run(image, &launch, machine::LIMIT, listener)
                        }
                    })?;
                if shot.interrupted {
                    return Ok(true);
                }
                gathered.add(place, shot.measured)?;
            }
            round += 1;
            if self.is_enough(round, begin.elapsed(), round_begin.elapsed(), gathered) {
                return Ok(false);
            }
        }
    }

    fn is_enough(&self, rounds: u32, elapsed: Duration, last: Duration, gathered: &Gathered) -> bool {
        match self.rounds {
            Some(wanted) => rounds >= wanted,
            None if rounds < ROUNDS_MIN => false,
            None => {
                elapsed + last > self.time
                    || rounds >= ROUNDS_FOR_PRECISION && gathered.is_precise(PRECISION, self.seed)
            }
        }
    }
}

/// What goes on, on a terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        // Draws nothing unless stderr is a terminal.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    fn show(&self, round: u32, table: Table, mode: Setting) {
        let table = match table {
            Table::Best => "",
            Table::SameCpuid => ", same CPUID",
            Table::Traced => ", traced",
        };
        self.0.set_message(format!("round {}, {}{table}", round + 1, mode.name()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
