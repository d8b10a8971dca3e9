//! From what machines have handed over to rows of results.

use std::time::Duration;

use vmm::Error;

use super::kinds;
use super::machine::{Measured, Tally, Trouble};
use super::peer::KernelIrqchip;
use crate::cli::bench::results::{Interval, Outlier, PerInterrupt, Round, Row, Stage, Table};
use crate::cli::bench::statistics::{self, Histogram};
use crate::cli::stress::plan::Mode;

#[cfg(test)]
mod tests;

/// The series that is the latency itself; others are parts of it.
const LATENCY: &str = "latency";
/// How many slow samples of a row are kept.
const OUTLIERS: usize = 20;

/// What runs a machine, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// This program, in a mode.
    Ours(Mode),
    /// QEMU.
    Qemu(KernelIrqchip),
}

impl Setting {
    /// What it is called in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours(mode) => mode.name(),
            Self::Qemu(irqchip) => irqchip.name(),
        }
    }
}

/// Where a machine belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its table.
    pub table: Table,
    /// Its mode.
    pub mode: Setting,
    /// Its round.
    pub round: u32,
    /// When it was started, after the beginning of the run.
    pub started: Duration,
}

/// Everything measured so far.
#[derive(Default)]
pub struct Gathered {
    rows: Vec<Growing>,
    clock: Option<Histogram>,
    /// The TSC's rate in our last machine.
    hz: Option<f64>,
    /// Measurements that should have worked: where, and why they did not.
    pub failures: Vec<String>,
}

/// A row in the making.
struct Growing {
    table: Table,
    mode: Setting,
    kind: String,
    rounds: Vec<(u32, Histogram)>,
    stages: Vec<(String, Histogram)>,
    events: u64,
    cost: [i128; 4],
    outliers: Vec<Outlier>,
    missing: Option<String>,
}

impl Gathered {
    /// Adds what one machine has measured.
    ///
    /// # Errors
    ///
    /// When an interrupt came before it was caused: then no figure of this host can be trusted.
    pub fn add(&mut self, place: Place, measured: Vec<Measured>) -> Result<(), Error> {
        // QEMU tells no time; its guest has the TSC that ours has.
        self.hz = ticks_per_second(&measured).or(self.hz);
        let Some(hz) = self.hz else {
            for one in measured {
                self.note(place, &one);
            }
            return Ok(());
        };
        for one in measured {
            self.note(place, &one);
            let mut series = Vec::new();
            for (name, samples) in &one.series {
                series.push((name, nanoseconds(samples, hz).map_err(|early| too_early(place, &one.kind, early))?));
            }
            if one.kind == kinds::CLOCK {
                let clock = self.clock.get_or_insert_with(statistics::histogram);
                series.iter().for_each(|(_, values)| record(clock, values));
                continue;
            }
            let row = self.row(place, &one.kind);
            for (name, values) in series {
                if name == LATENCY {
                    row.take(place, &one, &values);
                } else {
                    let at = row.stages.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                        row.stages.push((name.clone(), statistics::histogram()));
                        row.stages.len() - 1
                    });
                    record(&mut row.stages[at].1, &values);
                }
            }
        }
        Ok(())
    }

    /// No machine is made in this setting, which is said of each of these kinds.
    pub fn leave_out<'a>(&mut self, mode: Setting, kinds: impl Iterator<Item = &'a str>, why: &str) {
        let place = Place { table: Table::Best, mode, round: 0, started: Duration::ZERO };
        for kind in kinds.filter(|kind| *kind != kinds::CLOCK) {
            self.row(place, kind).missing.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Remembers what went wrong.
    fn note(&mut self, place: Place, one: &Measured) {
        let (Some(Trouble::Missing(why)) | Some(Trouble::Failed(why))) = &one.trouble else { return };
        if let Some(Trouble::Failed(why)) = &one.trouble {
            let Place { mode, round, .. } = place;
            self.failures.push(format!("{} in mode {}, round {round}: {why}", one.kind, mode.name()));
        }
        if one.kind != kinds::CLOCK {
            self.row(place, &one.kind).missing.get_or_insert_with(|| why.clone());
        }
    }

    fn row(&mut self, place: Place, kind: &str) -> &mut Growing {
        let Place { table, mode, .. } = place;
        let is = |row: &Growing| row.table == table && row.mode == mode && row.kind == kind;
        let at = self.rows.iter().position(is).unwrap_or_else(|| {
            self.rows.push(Growing::new(table, mode, kind));
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// What reading the clock twice takes, in nanoseconds, by the median; 0 if that was not measured.
    pub fn overhead_ns(&self) -> f64 {
        self.clock.as_ref().map_or(0.0, |clock| statistics::summary(clock).p50 as f64)
    }

    /// Whether all medians are known to `part` of themselves; where a row has a ratio to a reference it is that which counts.
    pub fn is_precise(&self, part: f64, seed: u64) -> bool {
        let measured = || self.rows.iter().filter(|row| !row.rounds.is_empty());
        measured().next().is_some()
            && measured().all(|row| {
                let interval = self.ratio(row, seed).map(|ratio| ratio.p50).or_else(|| median(&row.rounds, seed));
                interval.is_some_and(|Interval { estimate, low, high }| high - low < part * estimate)
            })
    }

    fn ratio(&self, row: &Growing, seed: u64) -> Option<crate::cli::bench::results::Ratio> {
        let (table, mode) = row.table.reference(row.mode.name())?;
        let is_reference =
            |other: &&Growing| other.table == table && other.mode.name() == mode && other.kind == row.kind;
        let reference = self.rows.iter().find(is_reference)?;
        statistics::ratio(&row.rounds, &reference.rounds, seed)
    }

    /// All rounds of each row: table, mode and kind, and the histograms.
    pub fn histograms(&self) -> impl Iterator<Item = (Table, Setting, &str, &[(u32, Histogram)])> {
        self.rows.iter().map(|row| (row.table, row.mode, row.kind.as_str(), row.rounds.as_slice()))
    }

    /// The rows as they go into a file, in the order in which they are shown.
    pub fn rows(&self, seed: u64) -> Vec<Row> {
        let mut rows: Vec<&Growing> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.table, kinds::place(&row.kind)));
        rows.into_iter().map(|row| row.finish(self.ratio(row, seed))).collect()
    }
}

impl Growing {
    fn new(table: Table, mode: Setting, kind: &str) -> Self {
        Self {
            table,
            mode,
            kind: kind.to_owned(),
            rounds: Vec::new(),
            stages: Vec::new(),
            events: 0,
            cost: [0; 4],
            outliers: Vec::new(),
            missing: None,
        }
    }

    /// A round's latencies.
    fn take(&mut self, place: Place, one: &Measured, values: &[u64]) {
        if values.is_empty() {
            return;
        }
        let mut histogram = statistics::histogram();
        record(&mut histogram, values);
        self.rounds.push((place.round, histogram));
        // The first two looks tell what looking costs.
        if let [first, second, last] = one.tallies[..] {
            self.events += values.len() as u64;
            let (look, all) = (difference(first, second), difference(second, last));
            self.cost.iter_mut().zip(all).zip(look).for_each(|((cost, all), look)| *cost += all - look);
        }
        let [(_, begun), .., (_, ended)] = one.clocks[..] else { return };
        for (n, &latency_ns) in values.iter().enumerate() {
            let inside = u128::from(ended.saturating_sub(begun)) * n as u128 / values.len() as u128;
            let at_ns = place.started.as_nanos() as u64 + begun + inside as u64;
            self.outliers.push(Outlier { at_ns, round: place.round, latency_ns });
        }
        self.outliers.sort_by_key(|outlier| std::cmp::Reverse(outlier.latency_ns));
        self.outliers.truncate(OUTLIERS);
    }

    fn finish(&self, ratio: Option<crate::cli::bench::results::Ratio>) -> Row {
        let summary = statistics::summary(&statistics::merged(self.rounds.iter().map(|(_, round)| round)));
        // What the guest does between two looks is the same each time; a count below nothing is one of nothing.
        let each = |n: usize| (self.cost[n].max(0) as f64) / self.events as f64;
        let per_interrupt = (self.events > 0).then(|| PerInterrupt {
            exits: each(0),
            kicks: each(1),
            ioctls: each(2),
            system_calls: each(3),
        });
        let encode = |(number, histogram): &(u32, Histogram)| Round {
            number: *number,
            histogram: statistics::encode(histogram),
        };
        let stage = |(name, histogram): &(String, Histogram)| Stage {
            name: name.clone(),
            summary: statistics::summary(histogram),
        };
        Row {
            table: self.table,
            what: kinds::what(&self.kind).to_owned(),
            kind: self.kind.clone(),
            mode: self.mode.name().to_owned(),
            rounds: self.rounds.iter().map(encode).collect(),
            summary,
            stages: self.stages.iter().map(stage).collect(),
            per_interrupt,
            outliers: self.outliers.clone(),
            ratio,
            missing: self.missing.clone().filter(|_| self.rounds.is_empty()),
        }
    }
}

/// The TSC's rate over all the time between the first and the last look at the clocks.
fn ticks_per_second(measured: &[Measured]) -> Option<f64> {
    let mut clocks = measured.iter().flat_map(|one| &one.clocks);
    let (first, last) = (clocks.next()?, clocks.next_back()?);
    let (ticks, ns) = (last.0.checked_sub(first.0)?, last.1.checked_sub(first.1)?);
    (ticks > 0 && ns > 0).then(|| ticks as f64 * 1e9 / ns as f64)
}

/// In nanoseconds; the error is how many too early the earliest was.
fn nanoseconds(samples: &[(i64, u64)], hz: f64) -> Result<Vec<u64>, u64> {
    let exact = samples.iter().map(|(ticks, nanos)| (*ticks as f64 * 1e9 / hz - *nanos as f64).round());
    let earliest = exact.clone().fold(0.0, f64::min);
    if earliest < 0.0 { Err(-earliest as u64) } else { Ok(exact.map(|ns| ns as u64).collect()) }
}

fn too_early(place: Place, kind: &str, early: u64) -> Error {
    let Place { mode, round, .. } = place;
    let source = format!(
        "{kind} in mode {}, round {round}, came {early} ns before it was caused; the clocks of this host's CPUs do not agree, \
         see 'tophalf doctor'",
        mode.name()
    );
    Error::host("the measurement can't be trusted", std::io::Error::other(source))
}

fn record(histogram: &mut Histogram, values: &[u64]) {
    for &value in values {
        // Fails for values that do not fit only, and ours grows.
        histogram.record(value).unwrap_or_else(|e| unreachable!("a histogram that grows: {e}"));
    }
}

fn difference(from: Tally, to: Tally) -> [i128; 4] {
    let less = |to: u64, from: u64| i128::from(to) - i128::from(from);
    [
        less(to.exits, from.exits),
        less(to.kicks, from.kicks),
        less(to.ioctls, from.ioctls),
        less(to.system_calls, from.system_calls),
    ]
}

/// The median with its interval, by the same drawing of rounds as a ratio: that to 1 ns.
fn median(rounds: &[(u32, Histogram)], seed: u64) -> Option<Interval> {
    let nanosecond = || {
        let mut one = statistics::histogram();
        record(&mut one, &[1]);
        one
    };
    let ones: Vec<_> = rounds.iter().map(|(number, _)| (*number, nanosecond())).collect();
    statistics::ratio(rounds, &ones, seed).map(|ratio| ratio.p50)
}
