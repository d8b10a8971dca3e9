//! The distribution of a kind: for each mode the latency that a share of the samples did not exceed.

use maud::{Markup, html};

use super::axis::{Axis, short, tick_before, tick_below};
use super::{Figure, class, key, mark, round};
use crate::cli::bench::units::duration;
use crate::cli::bench::view::{Cell, Kind};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 464.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 248.0;
/// Points of a line for each ten times rarer.
const POINTS: f64 = 40.0;
/// The horizontal axis has two nines at least and six at most.
const NINES: (f64, f64) = (2.0, 6.0);
/// Quantiles with a mark, where there are enough samples.
const MARKED: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// The plot; nothing where there are no samples.
pub fn plot(id: &str, kind: &Kind<'_>) -> Markup {
    let cells: Vec<&Cell<'_>> = kind.cells.iter().filter(|cell| cell.summary.count > 0).collect();
    if cells.is_empty() {
        return html! { p.missing { "No mode has samples of this." } };
    }
    let most = cells.iter().map(|cell| nines_of(cell)).fold(NINES.0, f64::max);
    let x = Axis::linear(most, LEFT, RIGHT);
    let extremes = cells
        .iter()
        .flat_map(|cell| [cell.summary.min as f64, cell.all.value_at_quantile(quantile(nines_of(cell))) as f64]);
    let y = Axis::log(extremes.map(|ns| ns.max(1.0)), BOTTOM, TOP);
    let medians: Vec<String> = cells
        .iter()
        .map(|c| {
            format!(
                "{}: median {}, p99 {}",
                c.mode,
                duration(c.summary.p50 as f64, "µ"),
                duration(c.summary.p99 as f64, "µ")
            )
        })
        .collect();
    let content = html! {
        @for (value, words) in shares(most) { (tick_below(x.at(nines(value)), TOP, BOTTOM, value, &words)) }
        @for value in y.ticks() { (tick_before(y.at(value), LEFT, RIGHT, value, &short(value))) }
        text.name x=((LEFT + RIGHT) / 2.0) y=(BOTTOM + 38.0) text-anchor="middle" { "share of samples that took no longer" }
        text.name transform={ "translate(13 " ((TOP + BOTTOM) / 2.0) ") rotate(-90)" } text-anchor="middle" { "latency" }
        @for cell in &cells { (line(cell, &x, &y)) }
        @for cell in &cells {
            @for (q, name) in MARKED.iter().filter(|(q, _)| nines(*q) <= nines_of(cell)) {
                @let value = cell.all.value_at_quantile(*q) as f64;
                (mark(cell.mode, x.at(nines(*q)), y.at(value), &format!("{} {name}: {}", cell.mode, duration(value, "µ"))))
            }
        }
    };
    let figure = Figure {
        id,
        title: format!("Distribution of {} latencies by mode", kind.name),
        description: format!("Percentiles on a logarithmic axis. {}.", medians.join("; ")),
        width: WIDTH,
        height: HEIGHT,
    };
    figure.draw(&content, &key(cells.iter().map(|cell| cell.mode)))
}

fn line(cell: &Cell<'_>, x: &Axis, y: &Axis) -> Markup {
    let last = nines_of(cell);
    let steps = (last * POINTS).floor() as u32;
    let places = (0..=steps).map(|step| f64::from(step) / POINTS).chain([last]);
    let mut path = String::new();
    for nines in places {
        let value = cell.all.value_at_quantile(quantile(nines)) as f64;
        path += &format!("{}{} {}", if path.is_empty() { 'M' } else { 'L' }, round(x.at(nines)), round(y.at(value)));
    }
    html! { path.line.distribution.(class(cell.mode)) data-mode=(cell.mode) d=(path) {} }
}

/// How many nines a share has: 0.99 has two.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

fn quantile(nines: f64) -> f64 {
    1.0 - 10f64.powf(-nines)
}

/// The nines that the number of samples allows.
fn nines_of(cell: &Cell<'_>) -> f64 {
    (cell.summary.count as f64).log10().min(NINES.1)
}

fn shares(most: f64) -> Vec<(f64, String)> {
    let mut shares = vec![(0.0, "0%".to_owned()), (0.5, "50%".to_owned())];
    for nines in 1..=most as i32 {
        let digits = (nines - 2).max(0) as usize;
        let share = 1.0 - 10f64.powi(-nines);
        shares.push((share, format!("{:.digits$}%", share * 100.0)));
    }
    shares
}
