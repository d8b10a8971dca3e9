//! Axes: from values to places, and the ticks between.

use maud::{Markup, html};

use super::round;
use crate::cli::bench::units::{duration, times};

/// How far a logarithmic axis goes beyond its values.
const ROOM: f64 = 1.12;
/// Below these a logarithmic axis shows no value: a nanosecond, a thousandth of the reference.
const LEAST: f64 = 1e-3;

/// A line on which values have places.
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// For `values`, logarithmic, from one place to another.
    pub fn log(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = bounds(values.into_iter().map(|value| value.max(LEAST)));
        Self { low: low / ROOM, high: high * ROOM, log: true, from, to }
    }

    /// From 0 to `high`.
    pub fn linear(high: f64, from: f64, to: f64) -> Self {
        Self { low: 0.0, high: if high > 0.0 { high } else { 1.0 }, log: false, from, to }
    }

    /// Where a value is.
    pub fn at(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(LEAST) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Round values: four or more on a logarithmic axis of some width, up to six on a linear one.
    pub fn ticks(&self) -> Vec<f64> {
        if self.log { self.log_ticks() } else { self.linear_ticks() }
    }

    fn log_ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = match () {
            () if decades < 0.5 => &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
            () if decades < 1.1 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            () if decades < 3.0 => &[1.0, 2.0, 5.0],
            () => &[1.0],
        };
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all = (first..=last).flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        all.filter(|value| (self.low..=self.high).contains(value)).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = self.high / 5.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * decade).find(|step| *step >= rough).unwrap_or(rough);
        (0..=5).map(|n| f64::from(n) * step).filter(|value| *value <= self.high * 1.0001).collect()
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    if low <= high { (low, high) } else { (1.0, 10.0) }
}

/// A tick of a horizontal axis: a line of the grid from `top` to `bottom`, and its words below.
pub fn tick_below(x: f64, top: f64, bottom: f64, value: f64, words: &str) -> Markup {
    let x = round(x);
    html! {
        g.tick.x data-value=(value) data-at=(x) {
            path.grid d={ "M" (x) " " (top) "V" (bottom) } {}
            text x=(x) y=(bottom + 15.0) text-anchor="middle" { (words) }
        }
    }
}

/// A tick of a vertical axis: a line of the grid from `left` to `right`, and its words before.
pub fn tick_before(y: f64, left: f64, right: f64, value: f64, words: &str) -> Markup {
    let y = round(y);
    html! {
        g.tick.y data-value=(value) data-at=(y) {
            path.grid d={ "M" (left) " " (y) "H" (right) } {}
            text x=(left - 6.0) y=(y + 4.0) text-anchor="end" { (words) }
        }
    }
}

/// A duration without needless zeros.
pub fn short(ns: f64) -> String {
    if ns == 0.0 {
        return "0".to_owned();
    }
    let text = duration(ns, "µ");
    match text.split_once(' ') {
        Some((number, unit)) => format!("{} {unit}", bare(number)),
        None => text,
    }
}

/// A ratio without needless zeros.
pub fn short_times(ratio: f64) -> String {
    format!("{}×", bare(&times(ratio)))
}

fn bare(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}
