//! When the slowest samples were: all kinds and modes of a run on one time axis.

use maud::{Markup, html};

use super::axis::{Axis, short, tick_before, tick_below};
use super::{Figure, key, mark};
use crate::cli::bench::report::utc;
use crate::cli::bench::results::{Outlier, Row, Run};
use crate::cli::bench::units::duration;

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 924.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 248.0;
const SECOND: f64 = 1e9;

/// The plot of a run; a line of words where it has no slow samples.
pub fn plot(id: &str, run: &Run) -> Markup {
    let samples: Vec<(&Row, &Outlier)> =
        run.rows.iter().flat_map(|row| row.outliers.iter().map(move |outlier| (row, outlier))).collect();
    let Some((slowest_row, slowest)) = samples.iter().max_by_key(|(_, outlier)| outlier.latency_ns) else {
        return html! { p.missing { "The run of " (utc(run.started)) " has no outliers." } };
    };
    let end = samples.iter().map(|(_, outlier)| outlier.at_ns).max().unwrap_or(0) as f64 / SECOND;
    let x = Axis::linear(end * 1.02, LEFT, RIGHT);
    let y = Axis::log(samples.iter().map(|(_, outlier)| (outlier.latency_ns as f64).max(1.0)), BOTTOM, TOP);
    let mut modes: Vec<&str> = samples.iter().map(|(row, _)| row.mode.as_str()).collect();
    modes.sort_by_key(|mode| super::index(mode));
    modes.dedup();
    let content = html! {
        @for value in x.ticks() { (tick_below(x.at(value), TOP, BOTTOM, value, &short(value * SECOND))) }
        @for value in y.ticks() { (tick_before(y.at(value), LEFT, RIGHT, value, &short(value))) }
        text.name x=((LEFT + RIGHT) / 2.0) y=(BOTTOM + 38.0) text-anchor="middle" { "time since the run began" }
        text.name transform={ "translate(13 " ((TOP + BOTTOM) / 2.0) ") rotate(-90)" } text-anchor="middle" { "latency" }
        g.samples {
            @for (row, outlier) in &samples {
                (mark(&row.mode, x.at(outlier.at_ns as f64 / SECOND), y.at(outlier.latency_ns as f64), &words(row, outlier)))
            }
        }
    };
    let figure = Figure {
        id,
        title: format!("Timeline of the slowest samples, run of {}", utc(run.started)),
        description: format!("{} samples; the slowest: {}.", samples.len(), words(slowest_row, slowest)),
        width: WIDTH,
        height: HEIGHT,
    };
    figure.draw(&content, &key(modes))
}

fn words(row: &Row, outlier: &Outlier) -> String {
    let Outlier { at_ns, round, latency_ns } = *outlier;
    let at = at_ns as f64 / SECOND;
    format!("{} {}: {} at {at:.2} s, round {round}", row.mode, row.kind, duration(latency_ns as f64, "µ"))
}
