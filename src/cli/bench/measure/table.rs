//! The table for people: a line for each kind and mode, latencies in microseconds.

use std::fmt::Write;

use crate::cli::bench::against;
use crate::cli::bench::results::{Interval, Row, Run, Table};

#[cfg(test)]
mod tests;

/// All tables of a run, and what to know about them.
pub fn text(run: &Run) -> String {
    let mut out = String::new();
    for table in Table::ALL {
        let title = match table {
            Table::Best => "each mode at its best",
            Table::SameCpuid => "the same CPUID in all modes",
            Table::Traced => "each mode with its life-cycle trace on",
        };
        let rows: Vec<&Row> = run.rows.iter().filter(|row| row.table == table).collect();
        if !rows.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "\n{title}: microseconds; exits and system calls for each interrupt; ratio to {}",
                table.reference_name()
            );
            lines(&mut out, &rows);
        }
    }
    if let Some(version) = &run.qemu {
        let _ = writeln!(out, "\nThe modes qemu-... are QEMU {version}'s.");
    }
    let against = against::lines(run);
    if !against.is_empty() {
        out.push('\n');
        against.iter().for_each(|line| _ = writeln!(out, "{line}"));
    }
    let _ = writeln!(out, "\nReading the clock twice adds {:.0} ns to every sample.", run.overhead_ns);
    out
}

fn lines(out: &mut String, rows: &[&Row]) {
    let _ = writeln!(
        out,
        "{:15} {:10} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}  ratio of p50 [95%]",
        "kind", "mode", "count", "min", "p50", "p90", "p99", "p99.9", "max", "exits", "calls"
    );
    let mut last = "";
    for row in rows {
        let kind = if row.kind == last { "" } else { row.kind.as_str() };
        last = &row.kind;
        let _ = write!(out, "{kind:15} {:10} ", row.mode);
        if let Some(why) = &row.missing {
            let _ = writeln!(out, "{:>7}  {why}", "-");
            continue;
        }
        let summary = &row.summary;
        let _ = write!(out, "{:>7}", summary.count);
        for ns in [summary.min, summary.p50, summary.p90, summary.p99, summary.p999, summary.max] {
            let _ = write!(out, " {:>9.2}", ns as f64 / 1000.0);
        }
        match &row.per_interrupt {
            Some(each) => _ = write!(out, " {:>6.2} {:>6.2}", each.exits, each.system_calls),
            None => _ = write!(out, " {:>6} {:>6}", "", ""),
        }
        if let Some(Interval { estimate, low, high }) = row.ratio.map(|ratio| ratio.p50) {
            let _ = write!(out, "  {estimate:.2} [{low:.2}, {high:.2}]");
        }
        out.push('\n');
    }
}
