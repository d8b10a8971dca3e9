//! What the guests' lines say: two tables with ratios.

use std::collections::BTreeMap;
use std::fmt;

use crate::bench::host;
use crate::bench::kinds::Kind;
use crate::bench::statistics::Spread;

/// All guests of a run.
#[derive(Debug, Default)]
pub struct Results {
    host: Vec<String>,
    /// By vCPUs, kind and round.
    guests: BTreeMap<(u32, Kind, u32), Guest>,
}

/// A column of a table: its title, and how its figure is had.
type Column<'a> = (&'a str, &'a dyn Fn(&Guest) -> Option<f64>);

/// What one guest has measured.
#[derive(Debug, Default)]
struct Guest {
    /// Micro-seconds that a wake-up was late, and how many were.
    wakeups: BTreeMap<u64, u64>,
    /// Round trips, and the seconds that they took.
    pipe: Option<(u64, f64)>,
    /// It powered off with exit code 0.
    ended_well: bool,
}

impl Guest {
    fn samples(&self) -> u64 {
        self.wakeups.values().sum()
    }

    /// The latency that a `share` of the wake-ups did not exceed.
    fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.samples() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.wakeups.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        reached.map(|(&latency, _)| latency as f64)
    }

    /// Micro-seconds for a round trip.
    fn round_trip(&self) -> Option<f64> {
        self.pipe.map(|(trips, seconds)| seconds * 1e6 / trips as f64)
    }
}

impl Results {
    /// Reads the script's output; other lines are none of its business.
    pub fn parse(output: &str) -> Self {
        let mut results = Self::default();
        // Half a line is of a guest that died.
        results.host = host::facts(output, |line| _ = results.take(line));
        results
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        let what = words.next().filter(|what| ["@@wakeup", "@@pipe", "@@guest"].contains(what))?;
        let kind = Kind::parse(words.next()?)?;
        let (cpus, round) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let guest = self.guests.entry((cpus, kind, round)).or_default();
        match what {
            "@@wakeup" => {
                let (latency, count) = (words.next()?.parse().ok()?, words.next()?.parse::<u64>().ok()?);
                *guest.wakeups.entry(latency).or_default() += count;
            }
            "@@pipe" => guest.pipe = Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?)),
            _ => guest.ended_well = words.next()? == "0",
        }
        Some(())
    }

    /// Whether there were so many guests, and each has measured all that it should.
    pub fn complete(&self, guests: usize, samples: u32, round_trips: u32) -> bool {
        let whole = |guest: &Guest| {
            guest.ended_well
                && guest.samples() == u64::from(samples)
                && guest.pipe.is_some_and(|(trips, _)| trips == u64::from(round_trips))
        };
        self.guests.len() == guests && self.guests.values().all(whole)
    }

    /// A row for each number of vCPUs and kind: columns of spreads over the rounds, and the ratio of the first to `kernel`.
    fn table(&self, f: &mut fmt::Formatter<'_>, columns: &[Column]) -> fmt::Result {
        write!(f, "          vCPUs rounds ")?;
        columns.iter().try_for_each(|(title, _)| write!(f, " {title:28}"))?;
        writeln!(f, " {} to kernel", columns[0].0)?;
        let mut rows: Vec<(u32, Kind)> = self.guests.keys().map(|&(cpus, kind, _)| (cpus, kind)).collect();
        rows.dedup();
        for (cpus, kind) in rows {
            let of = |kind: Kind, (_, figure): Column| -> BTreeMap<u32, f64> {
                let these = self.guests.range((cpus, kind, 0)..=(cpus, kind, u32::MAX));
                these.filter_map(|(&(_, _, round), guest)| Some((round, figure(guest)?))).collect()
            };
            let first = of(kind, columns[0]);
            write!(f, "{kind:9} {cpus:5} {:6} ", first.len())?;
            for &column in columns {
                let spread = Spread::of(of(kind, column).into_values());
                write!(f, " {:28}", spread.map_or_else(|| "did not come up".to_owned(), |spread| spread.to_string()))?;
            }
            let base = of(Kind::Kernel, columns[0]);
            let ratio = Spread::of(first.iter().filter_map(|(round, figure)| Some(figure / base.get(round)?)));
            writeln!(f, " {}", ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.host {
            writeln!(f, "host {line}")?;
        }
        writeln!(f, "\nMicro-seconds: median (minimum-maximum) of the rounds. A ratio is taken within each round.")?;
        writeln!(f, "\nHow late a real-time thread wakes by its timer (cyclictest):")?;
        let p50 = |guest: &Guest| guest.quantile(0.5);
        let p99 = |guest: &Guest| guest.quantile(0.99);
        let max = |guest: &Guest| guest.quantile(1.0);
        self.table(f, &[("p50", &p50), ("p99", &p99), ("max", &max)])?;
        writeln!(f, "\nTwo processes answering each other through pipes (perf bench sched pipe):")?;
        self.table(f, &[("round trip", &Guest::round_trip)])
    }
}

#[cfg(test)]
mod tests;
