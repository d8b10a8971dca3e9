//! What the guests' lines say: a table for each thing that is measured.

use std::collections::BTreeMap;
use std::fmt;

use super::script::MEASURED;
use crate::bench::host;
use crate::bench::kinds::Kind;
use crate::bench::statistics::Spread;

/// Micro-seconds of a tick of /proc (USER_HZ is 100 on x86).
const TICK: f64 = 10_000.0;

/// All guests of a run.
#[derive(Debug, Default)]
pub struct Results {
    host: Vec<String>,
    /// By vCPUs, kind and round.
    guests: BTreeMap<(u32, Kind, u32), Guest>,
}

/// What one guest has measured, by name.
#[derive(Debug, Default)]
struct Guest {
    /// A second's worth, operations in all, and interrupts.
    values: BTreeMap<String, [f64; 3]>,
    /// Ticks in the guest, in the program, in the host's kernel.
    ticks: BTreeMap<String, [f64; 3]>,
    /// Exits, where KVM's count can be read.
    exits: BTreeMap<String, f64>,
    /// It powered off with exit code 0.
    ended_well: bool,
}

impl Guest {
    /// Micro-seconds for one operation, as [`Guest::ticks`].
    fn cost(&self, name: &str) -> Option<[f64; 3]> {
        let count = self.count(name)?;
        Some(self.ticks.get(name)?.map(|ticks| ticks * TICK / count))
    }

    /// Interrupts and exits for one operation.
    fn events(&self, name: &str) -> Option<[f64; 2]> {
        let [_, count, interrupts] = *self.values.get(name)?;
        let exits = self.exits.get(name).copied().unwrap_or(f64::NAN);
        (count > 0.0).then(|| [interrupts / count, exits / count])
    }

    fn count(&self, name: &str) -> Option<f64> {
        self.values.get(name).map(|value| value[1]).filter(|count| *count > 0.0)
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
        let what = words.next().filter(|what| ["@@value", "@@ticks", "@@guest"].contains(what))?;
        let kind = Kind::parse(words.next()?)?;
        let (cpus, round) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let guest = self.guests.entry((cpus, kind, round)).or_default();
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<f64>().ok();
        match what {
            "@@value" => drop(guest.values.insert(name, [number()?, number()?, number()?])),
            "@@ticks" => {
                guest.ticks.insert(name.clone(), [number()?, number()?, number()?]);
                guest.exits.insert(name, number()?);
            }
            _ => guest.ended_well = name == "0",
        }
        Some(())
    }

    /// Whether there were so many guests, and each has measured all that it should.
    pub fn complete(&self, guests: usize) -> bool {
        let whole = |guest: &Guest| {
            let measured = |&(name, ..): &(&str, &str, f64, &str)| guest.cost(name).is_some();
            guest.ended_well && MEASURED.iter().all(measured)
        };
        self.guests.len() == guests && self.guests.values().all(whole)
    }

    /// A figure of one kind by round.
    fn of(&self, cpus: u32, kind: Kind, figure: impl Fn(&Guest) -> Option<f64>) -> BTreeMap<u32, f64> {
        let these = self.guests.range((cpus, kind, 0)..=(cpus, kind, u32::MAX));
        these.filter_map(|(&(_, _, round), guest)| Some((round, figure(guest)?))).collect()
    }

    /// A row for each number of vCPUs and kind.
    fn table(&self, f: &mut fmt::Formatter<'_>, name: &str, unit: &str, divisor: f64) -> fmt::Result {
        let titles = "us in the guest / in the program / in the kernel  interrupts / exits";
        writeln!(f, "          vCPUs rounds  {unit:30} {:20} {titles}", "ratio to qemu-on")?;
        let mut rows: Vec<(u32, Kind)> = self.guests.keys().map(|&(cpus, kind, _)| (cpus, kind)).collect();
        rows.dedup();
        for (cpus, kind) in rows {
            let rate = |guest: &Guest| guest.values.get(name).map(|[rate, ..]| rate / divisor);
            let (rates, base) = (self.of(cpus, kind, rate), self.of(cpus, Kind::QemuOn, rate));
            let Some(spread) = Spread::of(rates.values().copied()) else {
                writeln!(f, "{kind:9} {cpus:5}  did not come up")?;
                continue;
            };
            let ratio = Spread::of(rates.iter().filter_map(|(round, rate)| Some(rate / base.get(round)?)));
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string());
            write!(f, "{kind:9} {cpus:5} {:6}  {spread:30} {ratio:20}", rates.len())?;
            let middle = |part: &dyn Fn(&Guest) -> Option<f64>| {
                Spread::of(self.of(cpus, kind, part).into_values()).map_or(f64::NAN, |figure| figure.median)
            };
            let cost: [f64; 3] = std::array::from_fn(|part| middle(&|guest| guest.cost(name).map(|cost| cost[part])));
            let events: [f64; 2] = std::array::from_fn(|n| middle(&|guest| guest.events(name).map(|events| events[n])));
            let cost = format!("{:.0} / {:.0} / {:.0}", cost[0], cost[1], cost[2]);
            writeln!(f, " {cost:48} {:.2} / {:.2}", events[0], events[1])?;
        }
        Ok(())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.host {
            writeln!(f, "host {line}")?;
        }
        writeln!(
            f,
            "\nMedian (minimum-maximum) of the rounds. A ratio is taken within each round. Micro-seconds of the processor are"
        )?;
        writeln!(
            f,
            "for one operation (a request, a packet), as are the guest's interrupts of virtio devices and KVM's exits; medians."
        )?;
        for (name, unit, divisor, title) in MEASURED {
            writeln!(f, "\n{title}:")?;
            self.table(f, name, unit, divisor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
