//! `tophalf top`: what running machines do.

mod draw;
mod find;
mod keys;
mod model;
mod rates;
mod screen;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use vmm::stats::Snapshot;
use vmm::{Error, StopReason};

use super::log::{self, LogFormat};
use super::outcome;
use find::{Finder, Found};
use rates::View;

/// What the keys of the live screen do.
const KEYS: &str = "\
Keys of the screen:
  q, Ctrl-C          quit
  space              pause, and go on
  n, p               the next machine, the previous one
  Tab, 1 to 8        another table
  z                  that table alone, and all again
  left, right        sort it by another column
  r                  sort it the other way round
  up, down, PgUp, PgDn, Home, End
                     scroll it
  Ctrl-L             draw all anew

Exit codes: 0, 2 if no machine of yours is running or standard input and output are no terminal; a signal ends it as any program.";

/// How to look.
#[derive(Debug, Args)]
#[command(after_help = KEYS)]
pub struct TopArguments {
    /// Look at one interval, print it, and end
    #[arg(long)]
    once: bool,
    /// Print it as JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// Seconds of each interval (0.05 to 3600)
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
}

/// What is printed.
#[derive(Serialize)]
struct Once {
    format: &'static str,
    version: u32,
    machines: Vec<View>,
}

/// Shows all machines of this user; 2 if there is none.
pub fn top(arguments: &TopArguments) -> ExitCode {
    match show(arguments) {
        Ok(reason) => outcome::of_stop(reason),
        Err(error) => outcome::of_error(&error),
    }
}

fn show(arguments: &TopArguments) -> Result<StopReason, Error> {
    if !(0.05..=3600.0).contains(&arguments.interval) {
        let why = format!("--interval {} is not from 0.05 to 3600 seconds; give one that is", arguments.interval);
        return Err(Error::Usage(why));
    }
    let interval = Duration::from_secs_f64(arguments.interval);
    let mut finder = Finder::new(vmm::stats::folder());
    if arguments.once {
        return once(&mut finder, interval, arguments.json).map(|()| StopReason::Quit);
    }
    log::start(0, LogFormat::Text).map_err(Error::Usage)?;
    screen::check()?;
    let first = look(&mut finder)?;
    // Nothing that was being changed is looked at again.
    panic::catch_unwind(AssertUnwindSafe(|| screen::show(&mut finder, first, interval)))
        .unwrap_or(Ok(StopReason::Panic))
}

fn once(finder: &mut Finder, interval: Duration, json: bool) -> Result<(), Error> {
    let before = look(finder)?.machines;
    std::thread::sleep(interval);
    let machines = views(&before, &look(finder)?.machines);
    let text = if json {
        let once = Once { format: "tophalf-top", version: 1, machines };
        serde_json::to_string(&once).map_err(|e| Error::host("the figures can't be written", e))? + "\n"
    } else {
        machines.iter().map(as_text).collect()
    };
    outcome::say(&text);
    Ok(())
}

/// All machines, at least one.
fn look(finder: &mut Finder) -> Result<Found, Error> {
    let found = finder.look().map_err(Error::Usage)?;
    if let (true, Some(pid)) = (found.machines.is_empty(), found.silent.first()) {
        return Err(Error::Usage(format!(
            "the machine of process {pid} does not answer; if it is stopped, have it go on with 'kill -CONT {pid}'"
        )));
    }
    if found.machines.is_empty() {
        return Err(Error::Usage("no machine of yours is running; start one with 'tophalf run'".into()));
    }
    Ok(found)
}

/// The activity of all that are there `now`; of one that is new, since its start.
fn views(before: &[Snapshot], now: &[Snapshot]) -> Vec<View> {
    let old = |new: &Snapshot| before.iter().find(|old| old.pid == new.pid && old.machine == new.machine);
    now.iter().map(|new| old(new).map_or_else(|| View::since_start(new), |old| View::between(old, new))).collect()
}

fn as_text(view: &View) -> String {
    let mut out = String::new();
    let View { kernel, pid, irqchip, seconds, .. } = view;
    // Writing to a string does not fail.
    let _ = writeln!(out, "{kernel}, process {pid}, irqchip {irqchip}, over {seconds:.1} s");
    out + &tables::text(view) + "\n"
}
