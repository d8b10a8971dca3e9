//! The stages of a latency: a bar for each mode that can see them, of the medians of its parts.

use maud::{Markup, html};

use super::axis::{Axis, short, tick_below};
use super::{Figure, round};
use crate::cli::bench::units::duration;
use crate::cli::bench::view::{Cell, Kind};

const WIDTH: f64 = 480.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 464.0;
const TOP: f64 = 8.0;
const ROW: f64 = 30.0;
const BAR: f64 = 18.0;
/// Colours that the style has.
const COLOURS: usize = 8;

/// The plot; nothing where no mode has stages.
pub fn plot(id: &str, kind: &Kind<'_>) -> Markup {
    let cells: Vec<&Cell<'_>> = kind.cells.iter().filter(|cell| !cell.row.stages.is_empty()).collect();
    if cells.is_empty() {
        return html! {};
    }
    let mut names: Vec<&str> = Vec::new();
    for stage in cells.iter().flat_map(|cell| &cell.row.stages) {
        if !names.contains(&stage.name.as_str()) {
            names.push(&stage.name);
        }
    }
    let longest = cells.iter().map(|cell| sum(cell).max(cell.row.summary.p50)).max().unwrap_or(0);
    let x = Axis::linear(longest as f64 * 1.05, LEFT, RIGHT);
    let bottom = TOP + ROW * cells.len() as f64;
    let content = html! {
        @for value in x.ticks() { (tick_below(x.at(value), TOP, bottom, value, &short(value))) }
        text.name x=((LEFT + RIGHT) / 2.0) y=(bottom + 36.0) text-anchor="middle" { "median of each stage; the line: median of the whole" }
        @for (index, cell) in cells.iter().enumerate() { (bar(cell, &names, &x, TOP + ROW * index as f64)) }
    };
    let words: Vec<String> = cells.iter().map(|cell| words(cell)).collect();
    let figure = Figure {
        id,
        title: format!("Stages of {} latencies", kind.name),
        description: words.join("; "),
        width: WIDTH,
        height: bottom + 44.0,
    };
    let caption = html! {
        ul.key { @for (index, name) in names.iter().enumerate() {
            li { svg.sample viewBox="0 0 12 12" aria-hidden="true" { rect.(colour(index)) width="12" height="12" {} } (name) }
        } }
    };
    figure.draw(&content, &caption)
}

fn bar(cell: &Cell<'_>, names: &[&str], x: &Axis, top: f64) -> Markup {
    let mut from = 0;
    let whole = round(x.at(cell.row.summary.p50 as f64));
    html! {
        text.mode.(super::class(cell.mode)) x=(LEFT - 6.0) y=(top + BAR / 2.0 + 8.0) text-anchor="end" { (cell.mode) }
        @for stage in &cell.row.stages {
            @let left = x.at(from as f64);
            @let median = stage.summary.p50;
            @let width = x.at((from + median) as f64) - left;
            rect.stage.(colour(names.iter().position(|name| *name == stage.name).unwrap_or(0)))
                data-mode=(cell.mode) data-stage=(stage.name)
                x=(round(left)) y=(top + 4.0) width=(round(width)) height=(BAR) {
                title { (cell.mode) ", " (stage.name) ": median " (duration(median as f64, "µ")) ", p99 " (duration(stage.summary.p99 as f64, "µ")) }
            }
            @if width > 52.0 {
                text.inside x=(round(left + width / 2.0)) y=(top + BAR / 2.0 + 8.0) text-anchor="middle" { (duration(median as f64, "µ")) }
            }
            @let () = from += median;
        }
        path.whole d={ "M" (whole) " " (top) "v" (BAR + 8.0) } { title { (cell.mode) ", whole: median " (duration(cell.row.summary.p50 as f64, "µ")) } }
    }
}

fn colour(index: usize) -> String {
    format!("stage{}", index % COLOURS)
}

fn sum(cell: &Cell<'_>) -> u64 {
    cell.row.stages.iter().fold(0, |sum, stage| sum.saturating_add(stage.summary.p50))
}

fn words(cell: &Cell<'_>) -> String {
    let parts: Vec<String> = cell
        .row
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, duration(stage.summary.p50 as f64, "µ")))
        .collect();
    format!("{}: {}", cell.mode, parts.join(", "))
}
