//! One machine that measures: what the guest hands over, before anything is made of it.

use std::time::Duration;

use serde::Deserialize;
use vmm::Error;
use vmm::protocol::words;
use vmm::test_record::TestRecord;

use crate::cli::outcome;
use crate::cli::stress::image::Image;
use crate::cli::stress::process::Ended;
use crate::cli::stress::watch::Watch;

#[cfg(test)]
mod tests;

/// CPU time that a measurement may use.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What the agent writes, as far as it belongs here.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Log {
        text: String,
    },
    Panic {
        text: String,
    },
    Begin {
        index: usize,
    },
    Complete {
        outcome: String,
        text: String,
    },
    Samples {
        name: String,
        samples: Vec<(i64, u64)>,
    },
    Clock {
        tsc: u64,
        ns: u64,
    },
    Tally(Tally),
    #[serde(other)]
    Other,
}

/// What the machine had done at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Tally {
    pub exits: u64,
    pub kicks: u64,
    pub ioctls: u64,
    pub system_calls: u64,
}

/// What one measurement gave.
#[derive(Debug, Default, PartialEq)]
pub struct Measured {
    /// Its kind.
    pub kind: String,
    /// Why there is nothing, or not all.
    pub trouble: Option<Trouble>,
    /// Series of ticks, and nanoseconds to subtract.
    pub series: Vec<(String, Vec<(i64, u64)>)>,
    /// TSC and clock, at the beginning and at the end.
    pub clocks: Vec<(u64, u64)>,
    /// Twice at the beginning, and at the end.
    pub tallies: Vec<Tally>,
}

/// Why a measurement gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It can't be done here.
    Missing(String),
    /// It should have worked.
    Failed(String),
}

/// What one machine gave.
#[derive(Debug)]
pub struct Shot {
    /// One for each measurement that was to be made.
    pub measured: Vec<Measured>,
    /// The user ended it.
    pub interrupted: bool,
}

/// Who is told each line that a machine hands over.
pub type Listener<'a> = &'a mut dyn FnMut(&str, &mut Watch);

/// Has a machine make the measurements in `selected`, which are records of `image`. `run` runs it, with these words on the guest's
/// command line.
pub fn run(
    image: &Image,
    selected: &[&TestRecord<u64>],
    seed: u64,
    count: Option<u64>,
    run: impl FnOnce(Vec<String>, Listener<'_>) -> Result<Ended, Error>,
) -> Result<Shot, Error> {
    let names: Vec<&str> = selected.iter().map(|record| record.name()).collect();
    let mut on_cmdline = vec![format!("{}={}", words::MEASURE, names.join(",")), format!("{}={seed}", words::SEED)];
    on_cmdline.extend(count.map(|count| format!("{}={count}", words::COUNT)));
    let mut story = Story::new(image.measurements(), names);
    let ended = run(on_cmdline, &mut |line, watch| story.line(line, watch))?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
    let interrupted = signal == Some(vmm::Signal::Interrupt.number());
    // Where its vCPUs were, and what its chips held: nobody may see this machine fail again.
    if ended.exceeded.is_some() {
        ended.machine.iter().for_each(|line| outcome::say_on_stderr(line));
    }
    let why = ended.exceeded.unwrap_or_else(|| format!("the machine ended before it: {}", ended.status));
    Ok(Shot { measured: story.end(&why), interrupted })
}

/// What has been heard so far.
struct Story<'a> {
    records: &'a [TestRecord<u64>],
    /// Those that have not begun yet.
    left: Vec<&'a str>,
    measured: Vec<Measured>,
    /// The last of `measured` goes on.
    running: bool,
    panic: Option<String>,
}

impl<'a> Story<'a> {
    fn new(records: &'a [TestRecord<u64>], selected: Vec<&'a str>) -> Self {
        Self { records, left: selected, measured: Vec::new(), running: false, panic: None }
    }

    fn line(&mut self, line: &str, watch: &mut Watch) {
        let event = match serde_json::from_str(line) {
            Ok(event) => event,
            Err(_) => return log::debug!("{line}"),
        };
        match event {
            Event::Log { text } => log::debug!("guest: {text}"),
            Event::Panic { text } => self.panic = Some(format!("the guest kernel gave up: {text}")),
            Event::Begin { index } => {
                watch.begin();
                let name = self.records.get(index).map_or("", |record| record.name());
                self.begin(name.to_owned());
            }
            Event::Complete { outcome, text } => {
                // What can't be done here does not even begin; they come in the order in which they were asked for.
                if !self.running {
                    let name = self.left.first().copied().unwrap_or_default().to_owned();
                    self.begin(name);
                }
                self.running = false;
                if let Some(last) = self.measured.last_mut() {
                    last.trouble = match outcome.as_str() {
                        "passed" => None,
                        "skipped" => Some(Trouble::Missing(text)),
                        _ => Some(Trouble::Failed(text)),
                    };
                }
            }
            Event::Samples { name, samples } => {
                if let Some(now) = self.now() {
                    match now.series.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, all)) => all.extend(samples),
                        None => now.series.push((name, samples)),
                    }
                }
            }
            Event::Clock { tsc, ns } => {
                if let Some(now) = self.now() {
                    now.clocks.push((tsc, ns));
                }
            }
            Event::Tally(tally) => {
                if let Some(now) = self.now() {
                    now.tallies.push(tally);
                }
            }
            Event::Other => {}
        }
    }

    fn begin(&mut self, kind: String) {
        self.left.retain(|name| **name != *kind);
        self.measured.push(Measured { kind, ..Measured::default() });
        self.running = true;
    }

    fn now(&mut self) -> Option<&mut Measured> {
        self.measured.last_mut().filter(|_| self.running)
    }

    /// What was going on, and what had not begun, has failed: `why`, unless the guest has said.
    fn end(mut self, why: &str) -> Vec<Measured> {
        let why = self.panic.take().unwrap_or_else(|| why.to_owned());
        if let Some(now) = self.now() {
            now.trouble = Some(Trouble::Failed(why.clone()));
        }
        for kind in std::mem::take(&mut self.left) {
            let trouble = Some(Trouble::Failed(why.clone()));
            self.measured.push(Measured { kind: kind.to_owned(), trouble, ..Measured::default() });
        }
        self.measured
    }
}
