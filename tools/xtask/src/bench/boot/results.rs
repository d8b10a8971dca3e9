//! What the script's lines say: a table with ratios.

use std::collections::BTreeMap;
use std::fmt;

use crate::bench::host;
use crate::bench::kinds::Kind;
use crate::bench::statistics::Spread;

/// All boots of a run.
#[derive(Debug, Default)]
pub struct Results {
    host: Vec<String>,
    boots: Vec<Boot>,
}

/// One boot that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Boot {
    kind: Kind,
    cpus: u32,
    round: u32,
    /// None unless it came up and powered off with exit code 0.
    times: Option<Times>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    /// Seconds from the start of the program to the guest's first process, by the host's clock.
    to_init: f64,
    /// Seconds to the end of the program.
    whole: f64,
    /// The guest's uptime at its first process, in seconds.
    uptime: f64,
}

impl Results {
    /// Reads the script's output; other lines are none of its business.
    pub fn parse(output: &str) -> Self {
        let mut results = Self::default();
        results.host = host::facts(output, |line| {
            results.boots.extend(line.strip_prefix("@@boot ").and_then(Boot::parse));
        });
        results
    }

    /// Whether there were so many boots, and each was a good one.
    pub fn complete(&self, expected: usize) -> bool {
        self.boots.len() == expected && self.boots.iter().all(|boot| boot.times.is_some())
    }

    /// Times of the boots of one kind by their round.
    fn of(&self, kind: Kind, cpus: u32) -> BTreeMap<u32, Times> {
        let these = self.boots.iter().filter(|boot| boot.kind == kind && boot.cpus == cpus);
        these.filter_map(|boot| Some((boot.round, boot.times?))).collect()
    }

    fn row(&self, kind: Kind, cpus: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = self.of(kind, cpus);
        let spread = |figure: fn(&Times) -> f64| Spread::of(times.values().map(figure));
        let (Some(init), Some(whole), Some(uptime)) =
            (spread(|t| t.to_init), spread(|t| t.whole), spread(|t| t.uptime))
        else {
            return writeln!(f, "{kind:9} {cpus:5}  did not come up");
        };
        let base = self.of(Kind::Kernel, cpus);
        let ratios = times.iter().filter_map(|(round, t)| Some(t.to_init / base.get(round)?.to_init));
        let ratio = Spread::of(ratios).map_or_else(|| "-".to_owned(), |ratio| ratio.to_string());
        writeln!(f, "{kind:9} {cpus:5} {:6}  {init:20} {whole:20} {uptime:20} {ratio}", times.len())
    }
}

impl Boot {
    /// `KIND CPUS ROUND START INIT END STATUS UPTIME`.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, cpus, round, start, init, end, status, uptime] = words[..] else { return None };
        let times = || {
            let [start, init, end, uptime] =
                [start.parse::<f64>().ok()?, init.parse().ok()?, end.parse().ok()?, uptime.parse().ok()?];
            (status == "0").then_some(Times { to_init: init - start, whole: end - start, uptime })
        };
        Some(Self { kind: Kind::parse(kind)?, cpus: cpus.parse().ok()?, round: round.parse().ok()?, times: times() })
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.host {
            writeln!(f, "host {line}")?;
        }
        writeln!(f, "\nSeconds: median (minimum-maximum). The ratio is of the time to init, taken within each round.")?;
        let titles = ["to init", "to power-off", "guest's uptime at init", "ratio to kernel"];
        writeln!(f, "          vCPUs rounds  {:20} {:20} {:20} {}", titles[0], titles[1], titles[2], titles[3])?;
        let mut rows: Vec<(u32, Kind)> = self.boots.iter().map(|boot| (boot.cpus, boot.kind)).collect();
        rows.sort_unstable();
        rows.dedup();
        for (cpus, kind) in rows {
            self.row(kind, cpus, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
