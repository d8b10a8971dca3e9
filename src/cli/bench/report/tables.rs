//! The table of a sheet: a line for each kind and mode.

use maud::{Markup, html};

use crate::cli::bench::results::{Interval, PerInterrupt, Table};
use crate::cli::bench::units::{duration, times};
use crate::cli::bench::view::{Cell, Kind, Sheet};

/// Columns after kind and mode.
const COLUMNS: usize = 10;

/// All figures of a sheet.
pub fn latencies(sheet: &Sheet<'_>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Table of latencies" { table {
            thead {
                tr {
                    th rowspan="2" scope="col" { "Kind" } th rowspan="2" scope="col" { "Mode" } th rowspan="2" scope="col" { "Samples" }
                    th colspan="6" scope="colgroup" { "Latency" }
                    th colspan="2" scope="colgroup" { "Ratio to " (sheet.table.reference_name()) " (95% interval)" }
                    th rowspan="2" scope="col" { "Exits, kicks, ioctls, system calls per interrupt" }
                }
                tr {
                    @for name in ["min", "p50", "p90", "p99", "p99.9", "max", "p50", "p99"] { th scope="col" { (name) } }
                }
            }
            @for kind in &sheet.kinds { (of_kind(sheet.table, kind)) }
        } }
    }
}

fn of_kind(table: Table, kind: &Kind<'_>) -> Markup {
    html! {
        tbody {
            @for (index, cell) in kind.cells.iter().enumerate() {
                tr {
                    @if index == 0 { th rowspan=(kind.cells.len()) scope="rowgroup" { code { (kind.name) } small { (kind.what) } } }
                    th.mode scope="row" { (cell.mode) }
                    (figures(table, cell))
                }
            }
        }
    }
}

fn figures(table: Table, cell: &Cell<'_>) -> Markup {
    let s = &cell.summary;
    if s.count == 0 {
        let why = cell.row.missing.as_deref().unwrap_or("no samples");
        return html! { td.missing colspan=(COLUMNS) { "not measured: " (why) } };
    }
    html! {
        td { (s.count) }
        @for value in [s.min, s.p50, s.p90, s.p99, s.p999, s.max] { td { (duration(value as f64, "µ")) } }
        @match cell.ratio {
            Some(ratio) => { (interval(ratio.p50)) (interval(ratio.p99)) }
            None if table.reference(cell.mode).is_none() => { td { "1" } td { "1" } }
            None => { td { "–" } td { "–" } }
        }
        td { (cell.row.per_interrupt.map_or_else(|| "–".to_owned(), counts)) }
    }
}

/// Coloured where the interval does not hold 1.
fn interval(Interval { estimate, low, high }: Interval) -> Markup {
    let class = match () {
        () if high < 1.0 => "faster",
        () if low > 1.0 => "slower",
        () => "same",
    };
    html! { td class=(class) { b { (times(estimate)) "×" } " " small { (times(low)) "–" (times(high)) } } }
}

fn counts(per: PerInterrupt) -> String {
    [per.exits, per.kicks, per.ioctls, per.system_calls].map(|n| format!("{n:.2}")).join(", ")
}
