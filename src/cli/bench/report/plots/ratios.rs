//! Ratios to their reference, `kernel` mode in most tables, with their intervals: a dot and whiskers for each kind and mode.

use maud::{Markup, PreEscaped, html};

use super::axis::{Axis, short_times, tick_below};
use super::{Figure, class, key, mark, round};
use crate::cli::bench::results::{Interval, Ratio, Table};
use crate::cli::bench::units::times;
use crate::cli::bench::view::Sheet;

const WIDTH: f64 = 940.0;
const ROW: f64 = 19.0;
const TOP: f64 = 46.0;
/// How a panel's figure is had.
type OfRatio = fn(&Ratio) -> Interval;

/// Where each panel is, and the words above it.
const PANELS: [(f64, f64, &str, OfRatio); 2] =
    [(215.0, 520.0, "median (p50)", |r| r.p50), (590.0, 890.0, "p99", |r| r.p99)];

struct Line<'a> {
    kind: &'a str,
    mode: &'a str,
    ratio: Ratio,
    first: bool,
}

/// The plot; nothing where there are no ratios.
pub fn plot(id: &str, sheet: &Sheet<'_>) -> Markup {
    let lines = lines(sheet);
    if lines.is_empty() {
        return html! {};
    }
    let (figure, content) = draw(id, sheet.table, &lines);
    let mut modes: Vec<&str> = lines.iter().map(|line| line.mode).collect();
    modes.sort_by_key(|mode| super::index(mode));
    modes.dedup();
    figure.draw(&content, &key(modes))
}

/// The plot alone, as a file of its own that has its `style`; nothing where there are no ratios.
pub fn picture(sheet: &Sheet<'_>, style: &str) -> Option<String> {
    let lines = lines(sheet);
    let style = html! { style { (PreEscaped(style)) } rect.backdrop width="100%" height="100%" {} };
    (!lines.is_empty()).then(|| {
        let (figure, content) = draw("ratios", sheet.table, &lines);
        figure.svg(&html! { (style) (content) }, Some("http://www.w3.org/2000/svg")).into_string() + "\n"
    })
}

fn draw<'a>(id: &'a str, table: Table, lines: &[Line<'_>]) -> (Figure<'a>, Markup) {
    let bottom = TOP + ROW * lines.len() as f64;
    let content = html! {
        @for (from, to, name, of) in PANELS { (panel(table, lines, from, to, name, of, bottom)) }
        @for (index, line) in lines.iter().enumerate() {
            @let y = TOP + ROW * (index as f64 + 0.5);
            @if line.first {
                text.kind x="8" y=(y + 4.0) { (line.kind) }
                @if index > 0 { path.rule d={ "M8 " (y - ROW / 2.0) "H" (WIDTH - 8.0) } {} }
            }
            text.mode.(class(line.mode)) x="205" y=(y + 4.0) text-anchor="end" { (line.mode) }
        }
    };
    let figure = Figure {
        id,
        title: format!("Latency as a multiple of {}, with 95% intervals", multiple_of(table)),
        description: lines.iter().map(words).collect::<Vec<_>>().join("; "),
        width: WIDTH,
        height: bottom + 46.0,
    };
    (figure, content)
}

fn panel(
    table: Table,
    lines: &[Line<'_>],
    from: f64,
    to: f64,
    name: &str,
    of: fn(&Ratio) -> Interval,
    bottom: f64,
) -> Markup {
    let values = lines.iter().flat_map(|line| [of(&line.ratio).low, of(&line.ratio).high]);
    let x = Axis::log(values.chain([0.9, 1.1]), from, to);
    let one = round(x.at(1.0));
    html! {
        g.panel {
            text.name x=(from) y="20" { (name) }
            text.hint x=(one - 7.0) y="38" text-anchor="end" { "← faster" }
            text.hint x=(one + 7.0) y="38" { "slower →" }
            @for value in x.ticks() { (tick_below(x.at(value), TOP, bottom, value, &short_times(value))) }
            path.one d={ "M" (one) " " (TOP - 16.0) "V" (bottom) } {}
            @for (index, line) in lines.iter().enumerate() {
                @let y = TOP + ROW * (index as f64 + 0.5);
                @let Interval { estimate, low, high } = of(&line.ratio);
                path.whisker.(class(line.mode)) d={ "M" (round(x.at(low))) " " (y) "H" (round(x.at(high))) } {}
                (mark(line.mode, x.at(estimate), y, &format!("{} {}, {name}: {}", line.mode, line.kind, with_interval(of(&line.ratio)))))
                text.value x=(to + 40.0) y=(y + 4.0) text-anchor="end" { (times(estimate)) }
            }
            text.name x=((from + to) / 2.0) y=(bottom + 36.0) text-anchor="middle" { "multiple of " (multiple_of(table)) }
        }
    }
}

/// What one is a multiple of.
fn multiple_of(table: Table) -> &'static str {
    match table {
        Table::Traced => table.reference_name(),
        Table::Best | Table::SameCpuid => "kernel mode",
    }
}

fn lines<'a>(sheet: &'a Sheet<'_>) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for kind in &sheet.kinds {
        let rated = kind.cells.iter().filter_map(|cell| Some((cell.mode, cell.ratio?)));
        lines.extend(rated.enumerate().map(|(n, (mode, ratio))| Line { kind: kind.name, mode, ratio, first: n == 0 }));
    }
    lines
}

fn words(line: &Line<'_>) -> String {
    format!("{} {}: p50 {}, p99 {}", line.mode, line.kind, with_interval(line.ratio.p50), with_interval(line.ratio.p99))
}

fn with_interval(Interval { estimate, low, high }: Interval) -> String {
    format!("{} ({} to {})", times(estimate), times(low), times(high))
}
