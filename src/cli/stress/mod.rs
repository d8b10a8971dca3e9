//! `tophalf stress`: the guest kernel's tests, each in a machine of its own.
//!
//! The tests are found in the image's records; each is run by `tophalf run` as a child process (`process`), so that whatever
//! happens to one leaves the others alone. `tophalf bench` runs its measurements in the same way.

mod child;
pub mod image;
pub mod plan;
pub mod process;
mod progress;
mod report;
pub mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, value_parser};
use vmm::{Error, MAX_CPUS, exit_code};

use self::image::Image;
use self::plan::{Mode, Plan, Verdict};
use self::progress::Progress;
use self::report::Report;
use super::outcome;

/// What `tophalf stress` takes.
#[derive(Debug, Args)]
pub struct StressArguments {
    /// List the tests that would run, and end
    #[arg(long)]
    list: bool,
    /// Only tests whose names match; * stands for any text; may be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// vCPUs of each machine; a test that needs more gets more
    #[arg(short, long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Interrupt-controller modes, separated by commas: user, split, kernel
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "user")]
    irqchip: Vec<String>,
    /// Seed of everything random in the tests; by default a new one each time
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Run everything so many times, each round with the next seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Begin new rounds for so many minutes, whatever --rounds says
    #[arg(long, value_name = "M", value_parser = value_parser!(u32).range(1..))]
    minutes: Option<u32>,
    /// Interrupts that each conservation test sends; by default each test's own number
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End with the first test that fails
    #[arg(long)]
    fail_fast: bool,
    /// Write the results as JSON ('-': standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Another build of the guest kernel
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

/// Runs the tests; gives the program's exit code: 1 if one failed.
pub fn stress(arguments: &StressArguments) -> ExitCode {
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => outcome::of_error(&e),
    }
}

fn run(arguments: &StressArguments) -> Result<bool, Error> {
    let image = Image::open(arguments.image.as_deref())?;
    let plan = plan(arguments, &image)?;
    if arguments.list {
        outcome::say(&plan.list());
        return Ok(true);
    }
    let mut report = Report::new(plan.seed);
    // A file that can't be written is better known before the tests than after them.
    report.open(arguments.json.as_deref(), arguments.junit.as_deref())?;
    let clock = Instant::now();
    let more = |round: u32| match arguments.minutes {
        Some(minutes) => clock.elapsed() < Duration::from_secs(u64::from(minutes) * 60),
        None => round < arguments.rounds,
    };
    let mut round = 0;
    'rounds: while more(round) {
        let progress = Progress::new(plan.jobs().count());
        for job in plan.jobs() {
            let seed = plan.seed.wrapping_add(round.into());
            progress.begins(&job);
            let result = child::run(&image, &job, seed, arguments.count)?;
            progress.ended(&job, &result);
            if result.verdict == Verdict::Failed {
                progress.say(&report::story(&image, &job, &result, arguments.image.as_deref()));
            }
            let interrupted = result.interrupted;
            report.add(&job, result);
            if interrupted {
                outcome::complain("interrupted; the summary has what ran so far");
                report.finish()?;
                return Ok(false);
            }
            if arguments.fail_fast && report.has_failed() {
                break 'rounds;
            }
        }
        round += 1;
    }
    report.finish()?;
    outcome::say(&report.summary(clock.elapsed()));
    Ok(!report.has_failed())
}

fn plan<'a>(arguments: &StressArguments, image: &'a Image) -> Result<Plan<'a>, Error> {
    if !(1..=MAX_CPUS).contains(&arguments.cpus) {
        return Err(Error::Usage(format!("{} vCPUs are not possible; give --cpus 1 to {MAX_CPUS}", arguments.cpus)));
    }
    let modes = arguments.irqchip.iter().map(|name| Mode::parse(name)).collect::<Result<_, _>>()?;
    let seed = arguments.seed.unwrap_or_else(random_seed);
    Plan::new(image.tests(), &arguments.only, modes, arguments.cpus, seed)
}

/// Another one each time; printed, so that it can be given again.
pub fn random_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (u64::from(since.subsec_nanos()) << 20 ^ since.as_secs()) % 1_000_000_000
}

/// The exit codes of a child that say that this host, not a test, is the trouble.
fn is_trouble(code: i32) -> bool {
    code == i32::from(exit_code::USAGE) || code == i32::from(exit_code::HOST)
}
