//! Results as people look at them: the runs of one setting together, by table, kind and mode.
//!
//! A setting is a host, a number of vCPUs and a version of the program; only what was measured in one is added up. All
//! figures are computed anew from the histograms.

use vmm::Error;

use super::results::{Fingerprint, Host, Ratio, Results, Row, Run, Summary, Table};
use super::statistics::{self, Histogram};

/// The modes in the order they are shown; others follow.
pub const MODES: [&str; 6] = ["user", "split", "kernel", "qemu-on", "qemu-split", "qemu-off"];

/// What was measured in one setting.
pub struct Setting<'a> {
    pub fingerprint: &'a Fingerprint,
    pub cpus: u32,
    pub tophalf: &'a str,
    /// In the order they were made; at least one.
    pub runs: Vec<&'a Run>,
    /// Those of the two that have rows.
    pub tables: Vec<Sheet<'a>>,
}

/// One table.
pub struct Sheet<'a> {
    pub table: Table,
    pub kinds: Vec<Kind<'a>>,
}

/// One kind of interrupt.
pub struct Kind<'a> {
    pub name: &'a str,
    pub what: &'a str,
    /// One for each mode.
    pub cells: Vec<Cell<'a>>,
}

/// One kind in one mode.
pub struct Cell<'a> {
    pub mode: &'a str,
    /// The latest run's row; what can't be added up is its.
    pub row: &'a Row,
    /// Of all runs, numbered through.
    pub rounds: Vec<(u32, Histogram)>,
    /// All rounds.
    pub all: Histogram,
    pub summary: Summary,
    /// Against its reference; absent in what [`settings`] gives.
    pub ratio: Option<Ratio>,
}

impl Kind<'_> {
    /// The cell of a mode.
    pub fn cell(&self, mode: &str) -> Option<&Cell<'_>> {
        self.cells.iter().find(|cell| cell.mode == mode)
    }
}

impl Setting<'_> {
    /// The host in one line.
    pub fn title(&self) -> String {
        let Fingerprint { cpu, cpus, kernel, kvm, nested, .. } = self.fingerprint;
        let nested = if *nested { ", nested" } else { "" };
        format!("{cpu}, {cpus} CPUs, Linux {kernel}, KVM: {kvm}{nested}; guest with {} vCPUs", self.cpus)
    }

    /// The modes that occur, in the order they are shown.
    pub fn modes(&self) -> Vec<&str> {
        let mut modes: Vec<&str> = Vec::new();
        for cell in self.tables.iter().flat_map(|sheet| &sheet.kinds).flat_map(|kind| &kind.cells) {
            if !modes.contains(&cell.mode) {
                modes.push(cell.mode);
            }
        }
        modes.sort_by_key(|mode| rank(mode));
        modes
    }
}

/// The settings of all hosts, in the order of the file and of their first runs.
pub fn settings(results: &Results) -> Result<Vec<Setting<'_>>, Error> {
    let mut settings = Vec::new();
    for host in &results.hosts {
        let mut seen: Vec<(u32, &str)> = Vec::new();
        for run in &host.runs {
            let key = (run.cpus, run.tophalf.as_str());
            if !seen.contains(&key) {
                seen.push(key);
                settings.push(setting(host, key)?);
            }
        }
    }
    Ok(settings)
}

/// The same, with ratios to what [`Table::reference`] says.
pub fn rated(results: &Results) -> Result<Vec<Setting<'_>>, Error> {
    let mut settings = settings(results)?;
    for setting in &mut settings {
        // Any seed will do that is the same each time.
        let seed = setting.runs.first().map_or(0, |run| run.seed);
        let ratios: Vec<Vec<Vec<_>>> =
            setting.tables.iter().map(|sheet| ratios(sheet, &setting.tables, seed)).collect();
        for (sheet, ratios) in setting.tables.iter_mut().zip(ratios) {
            for (kind, ratios) in sheet.kinds.iter_mut().zip(ratios) {
                kind.cells.iter_mut().zip(ratios).for_each(|(cell, ratio)| cell.ratio = ratio);
            }
        }
    }
    Ok(settings)
}

/// The ratios of a sheet's cells, by kind and cell.
fn ratios(sheet: &Sheet<'_>, all: &[Sheet<'_>], seed: u64) -> Vec<Vec<Option<Ratio>>> {
    let ratio = |kind: &Kind<'_>, cell: &Cell<'_>| {
        let (table, mode) = sheet.table.reference(cell.mode)?;
        let reference =
            all.iter().find(|sheet| sheet.table == table)?.kinds.iter().find(|other| other.name == kind.name)?;
        statistics::ratio(&cell.rounds, &reference.cell(mode)?.rounds, seed)
    };
    sheet.kinds.iter().map(|kind| kind.cells.iter().map(|cell| ratio(kind, cell)).collect()).collect()
}

fn setting<'a>(host: &'a Host, (cpus, tophalf): (u32, &'a str)) -> Result<Setting<'a>, Error> {
    let runs: Vec<&Run> = host.runs.iter().filter(|run| run.cpus == cpus && run.tophalf == tophalf).collect();
    let tables = Table::ALL.into_iter().map(|table| sheet(&runs, table)).collect::<Result<Vec<_>, _>>()?;
    let tables = tables.into_iter().filter(|sheet| !sheet.kinds.is_empty()).collect();
    Ok(Setting { fingerprint: &host.fingerprint, cpus, tophalf, runs, tables })
}

fn sheet<'a>(runs: &[&'a Run], table: Table) -> Result<Sheet<'a>, Error> {
    let mut kinds: Vec<Kind<'a>> = Vec::new();
    let mut first_round = 0;
    for run in runs {
        let rows = || run.rows.iter().filter(|row| row.table == table);
        for row in rows() {
            let at = kinds.iter().position(|kind| kind.name == row.kind).unwrap_or_else(|| {
                kinds.push(Kind { name: &row.kind, what: &row.what, cells: Vec::new() });
                kinds.len() - 1
            });
            add(&mut kinds[at], row, first_round)?;
        }
        // Rounds of one number are neighbours in time within a run only.
        let next = rows().flat_map(|row| &row.rounds).map(|round| round.number.saturating_add(1)).max().unwrap_or(0);
        first_round = first_round.saturating_add(next);
    }
    for kind in &mut kinds {
        kind.cells.sort_by_key(|cell| rank(cell.mode));
        for cell in &mut kind.cells {
            cell.all = statistics::merged(cell.rounds.iter().map(|(_, round)| round));
            cell.summary = statistics::summary(&cell.all);
        }
    }
    Ok(Sheet { table, kinds })
}

/// Adds a run's row to its cell.
fn add<'a>(kind: &mut Kind<'a>, row: &'a Row, first_round: u32) -> Result<(), Error> {
    let at = kind.cells.iter().position(|cell| cell.mode == row.mode).unwrap_or_else(|| {
        let all = statistics::histogram();
        let summary = Summary::default();
        kind.cells.push(Cell { mode: &row.mode, row, rounds: Vec::new(), all, summary, ratio: None });
        kind.cells.len() - 1
    });
    let cell = &mut kind.cells[at];
    // A later run without samples does not hide what an earlier one has.
    if !row.rounds.is_empty() || cell.rounds.is_empty() {
        cell.row = row;
    }
    for round in &row.rounds {
        let histogram = statistics::decode(&round.histogram)
            .map_err(|e| Error::Usage(format!("{}/{}, round {}: {e}", row.mode, row.kind, round.number)))?;
        cell.rounds.push((first_round.saturating_add(round.number), histogram));
    }
    Ok(())
}

fn rank(mode: &str) -> usize {
    MODES.iter().position(|known| *known == mode).unwrap_or(MODES.len())
}
