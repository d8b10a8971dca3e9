//! A machine's activity as tables with rows that can be sorted: what the screen shows, and `--once` without `--json`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use vmm::stats::Latency;

use super::rates::{View, total};
use crate::cli::bench::units;

#[cfg(test)]
mod tests;

/// How many tables there are.
pub const COUNT: usize = 8;
/// Between two columns.
const GAP: usize = 2;

/// What is in a cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// What the row is of.
    Name(String),
    /// The same, when it is a number.
    Number(u64),
    /// A vector.
    Vector(u8),
    /// So many a second.
    Rate(f64),
    /// So many.
    Count(u64),
    /// Nanoseconds.
    Time(u64),
    /// Does not apply.
    Nothing,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What its rows are, and what its figures.
    pub title: &'static str,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// By what rows are sorted: rates, counts and times from the greatest down, names and numbers up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: usize,
    /// The other way round.
    pub reversed: bool,
}

/// How each table is sorted as long as nobody wants it otherwise.
pub const ORDERS: [Order; COUNT] = [by(2), by(1), by(1), by(0), by(1), by(1), by(0), by(1)];

const fn by(column: usize) -> Order {
    Order { column, reversed: false }
}

/// All tables of a machine, unsorted.
pub fn all(view: &View) -> [Table; COUNT] {
    [lines(view), sources(view), vectors(view), vcpus(view), exits(view), softirqs(view), cpus(view), queues(view)]
}

/// All tables as text, each sorted as it is on the screen at first.
pub fn text(view: &View) -> String {
    let mut out = String::new();
    for (mut table, order) in all(view).into_iter().zip(ORDERS) {
        table.sort(order);
        let widths = table.widths();
        let line = |cells: Vec<String>| {
            let cells = cells.iter().zip(&widths).enumerate();
            let padded: Vec<String> = cells.map(|(column, (text, &width))| pad(text, width, column == 0)).collect();
            format!("  {}\n", padded.join("  ").trim_end())
        };
        out.push_str(&format!("\n{}\n{}", table.title, line(table.columns.clone())));
        table.rows.iter().for_each(|row| out.push_str(&line(row.iter().map(Cell::text).collect())));
    }
    out
}

/// `text` in a column of this width: the first column's to the left, figures to the right.
pub fn pad(text: &str, width: usize, left: bool) -> String {
    if left { format!("{text:width$}") } else { format!("{text:>width$}") }
}

impl Cell {
    /// As it is shown.
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Number(number) | Self::Count(number) => number.to_string(),
            Self::Vector(vector) => format!("0x{vector:02x}"),
            Self::Rate(rate) if *rate > 0.0 && *rate < 99.95 => format!("{rate:.1}"),
            Self::Rate(rate) => format!("{rate:.0}"),
            Self::Time(ns) => units::duration(*ns as f64, "u"),
            Self::Nothing => "-".to_owned(),
        }
    }

    /// The order in which they are shown first; what does not apply is last both ways.
    fn compare(&self, other: &Self, reversed: bool) -> Ordering {
        let order = match (self, other) {
            (Self::Nothing, Self::Nothing) => return Ordering::Equal,
            (Self::Nothing, _) => return Ordering::Greater,
            (_, Self::Nothing) => return Ordering::Less,
            (Self::Name(a), Self::Name(b)) => parts(a).cmp(parts(b)),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Vector(a), Self::Vector(b)) => a.cmp(b),
            (Self::Rate(a), Self::Rate(b)) => b.total_cmp(a),
            (Self::Count(a), Self::Count(b)) | (Self::Time(a), Self::Time(b)) => b.cmp(a),
            // A column has cells of one kind.
            _ => Ordering::Equal,
        };
        if reversed { order.reverse() } else { order }
    }
}

/// A name's numbers and what is between them, so that "pin 10" comes after "pin 9".
fn parts(name: &str) -> impl Iterator<Item = (Option<u64>, &str)> {
    let chunks = name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
    chunks.map(|chunk| str::from_utf8(chunk).unwrap_or_default()).map(|chunk| (chunk.parse().ok(), chunk))
}

impl Table {
    /// Sorts the rows; those that are equal keep their order.
    pub fn sort(&mut self, order: Order) {
        let compare = |a: &Vec<Cell>, b: &Vec<Cell>| match (a.get(order.column), b.get(order.column)) {
            (Some(a), Some(b)) => a.compare(b, order.reversed),
            _ => Ordering::Equal,
        };
        self.rows.sort_by(compare);
    }

    /// What each column needs; one more than its head, for the mark of the column that is sorted by.
    pub fn widths(&self) -> Vec<usize> {
        let cell =
            |column: usize| self.rows.iter().map(move |row| row[column].text().chars().count()).max().unwrap_or(0);
        self.columns.iter().enumerate().map(|(column, head)| cell(column).max(head.chars().count() + 1)).collect()
    }
}

/// Which columns are shown in `room`: the first, and of the others as many as fit, `wanted` among them whether it fits or not.
pub fn columns_that_fit(widths: &[usize], room: usize, wanted: usize) -> Vec<usize> {
    let Some((first, _)) = widths.split_first() else { return Vec::new() };
    let fits =
        |shown: std::ops::Range<usize>| first + widths[shown].iter().map(|width| width + GAP).sum::<usize>() <= room;
    let wanted = wanted.max(1).min(widths.len() - 1);
    let from = (1..=wanted).find(|&from| fits(from..wanted + 1)).unwrap_or(wanted).max(1);
    let end = (wanted + 1..=widths.len()).take_while(|&end| fits(from..end)).last().unwrap_or(wanted + 1);
    std::iter::once(0).chain(from..end).collect()
}

fn heads<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn lines(view: &View) -> Table {
    let row = |line: &super::rates::Line| {
        vec![Cell::Number(line.gsi.into()), line.vector.map_or(Cell::Nothing, Cell::Vector), Cell::Rate(line.rises)]
    };
    let rows = view.lines.iter().map(row).collect();
    Table { title: "lines: rises a second", columns: heads(["GSI", "vector", "rises"]), rows }
}

fn sources(view: &View) -> Table {
    let row = |source: &super::rates::Source| {
        let rates = [source.asserted, source.delivered, source.merged, source.dropped].map(Cell::Rate);
        let name = std::iter::once(Cell::Name(source.name.clone()));
        name.chain(rates).chain([Cell::Count(source.pending)]).collect()
    };
    Table {
        title: "sources: interrupts a second",
        columns: heads(["source", "asserted", "delivered", "merged", "dropped", "pending"]),
        rows: view.sources.iter().map(row).collect(),
    }
}

/// A table with a total and a column for each of `each`.
fn matrix(title: &'static str, what: &str, each: Vec<String>, rows: Vec<(Cell, f64, Vec<f64>)>) -> Table {
    let row = |(name, total, each): (Cell, f64, Vec<f64>)| {
        [name, Cell::Rate(total)].into_iter().chain(each.into_iter().map(Cell::Rate)).collect()
    };
    let columns = [what.to_owned(), "total".to_owned()].into_iter().chain(each).collect();
    Table { title, columns, rows: rows.into_iter().map(row).collect() }
}

fn vcpu_names(view: &View) -> Vec<String> {
    (0..view.vcpus.len()).map(|number| format!("vCPU {number}")).collect()
}

/// Of a CPU of the bottom halves: the last is the main loop's.
fn cpu_name(view: &View, number: usize) -> String {
    if number + 1 == view.cpus.len() { "main".to_owned() } else { format!("vCPU {number}") }
}

fn vectors(view: &View) -> Table {
    let rows = view.vectors.iter().map(|row| (Cell::Vector(row.vector), row.total, row.vcpus.clone())).collect();
    matrix("vectors: interrupts a second", "vector", vcpu_names(view), rows)
}

fn vcpus(view: &View) -> Table {
    let row = |(number, vcpu): (usize, &super::rates::Vcpu)| {
        let each = if vcpu.interrupts > 0.0 { Cell::Rate(vcpu.exits / vcpu.interrupts) } else { Cell::Nothing };
        let rates = [vcpu.interrupts, vcpu.nmis, vcpu.kicks, vcpu.exits].map(Cell::Rate);
        std::iter::once(Cell::Number(number as u64)).chain(rates).chain([each]).collect()
    };
    Table {
        title: "vCPUs: events a second",
        columns: heads(["vCPU", "interrupts", "NMIs", "kicks", "exits", "exits each"]),
        rows: view.vcpus.iter().enumerate().map(row).collect(),
    }
}

fn exits(view: &View) -> Table {
    let reasons: BTreeSet<&String> = view.vcpus.iter().flat_map(|vcpu| vcpu.exits_by_reason.keys()).collect();
    let row = |reason: &String| {
        let each: Vec<f64> =
            view.vcpus.iter().map(|vcpu| vcpu.exits_by_reason.get(reason).copied().unwrap_or(0.0)).collect();
        (Cell::Name(reason.clone()), total(&each), each)
    };
    matrix("exits a second, by reason", "reason", vcpu_names(view), reasons.into_iter().map(row).collect())
}

fn softirqs(view: &View) -> Table {
    let names = (0..view.cpus.len()).map(|number| cpu_name(view, number)).collect();
    let row = |softirq: &super::rates::Softirq| (Cell::Name(softirq.name.clone()), softirq.total, softirq.cpus.clone());
    matrix("softirqs: runs a second", "softirq", names, view.softirqs.iter().map(row).collect())
}

fn latency(latency: &Latency) -> impl Iterator<Item = Cell> {
    let Latency { count, p50, p90, p99, max } = *latency;
    let time = move |ns| if count > 0 { Cell::Time(ns) } else { Cell::Nothing };
    [Cell::Count(count), time(p50), time(p90), time(p99), time(max)].into_iter()
}

fn cpus(view: &View) -> Table {
    let row = |(number, cpu): (usize, &super::rates::Cpu)| {
        let name = Cell::Name(cpu_name(view, number));
        let rates = [Cell::Rate(cpu.tasklets), Cell::Rate(cpu.handed_over)];
        std::iter::once(name).chain(rates).chain(latency(&cpu.latency)).collect()
    };
    Table {
        title: "tasklets a second; bottom halves from activation to run, since the start",
        columns: heads(["CPU", "tasklets", "handed over", "runs", "p50", "p90", "p99", "max"]),
        rows: view.cpus.iter().enumerate().map(row).collect(),
    }
}

fn queues(view: &View) -> Table {
    let row = |queue: &super::rates::Queue| {
        let name = Cell::Name(queue.name.clone());
        let rates = [Cell::Rate(queue.queued), Cell::Rate(queue.run)];
        std::iter::once(name).chain(rates).chain(latency(&queue.latency)).collect()
    };
    Table {
        title: "work queues: items a second; from activation to run, since the start",
        columns: heads(["queue", "queued", "run", "runs", "p50", "p90", "p99", "max"]),
        rows: view.queues.iter().map(row).collect(),
    }
}
