//! Lives as a picture: one SVG that needs nothing else, for a README, a slide or a lesson.
//!
//! Time runs downwards, a row for each step, so that a step of a microsecond is as readable as one of a second; each thread has
//! a lane, and the line goes from lane to lane as the interrupt does.

use maud::{Markup, PreEscaped, html};
use vmm::trace::explain::{Life, Moment};

#[cfg(test)]
mod tests;

const ROW: f64 = 22.0;
/// The lines of registers below a step.
const REGISTERS: f64 = 32.0;
const HEADER: f64 = 62.0;
const LEFT: f64 = 18.0;
/// Where the times end.
const TIMES: f64 = 104.0;
const LANE: f64 = 78.0;
/// What a character takes, in the widest of the fonts below.
const CHARACTER: f64 = 7.3;
const STYLE: &str = "\
    .back { fill: #fff; } text { fill: #1a1d23; font: 12px system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; } \
    .title { font-weight: 600; font-size: 14px; } .faint { fill: #5b6472; } .lane { font-weight: 600; fill: #0b62c4; } \
    .registers { font: 11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #5b6472; } \
    .rail { stroke: #d9dee6; fill: none; } .way { stroke: #0b62c4; stroke-width: 2; fill: none; stroke-linejoin: round; } \
    .step { fill: #0b62c4; stroke: #fff; stroke-width: 1.5; }";

/// Draws them, one below the other.
pub fn draw(lives: &[Life]) -> String {
    let width = lives.iter().map(width).fold(400.0, f64::max).ceil();
    let mut top = LEFT;
    let lives = html! {
        @for life in lives {
            g.life transform={ "translate(0 " (top) ")" } { (of_life(life)) }
            ({ top += height(life); PreEscaped("") })
        }
    };
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(top) viewBox={ "0 0 " (width) " " (top) } role="img" {
            style { (PreEscaped(STYLE)) }
            rect.back width=(width) height=(top) {}
            (lives)
        }
    };
    picture.into_string() + "\n"
}

fn of_life(life: &Life) -> Markup {
    let lanes = lanes(life);
    let points = points(life, &lanes);
    let bottom = points.last().map_or(HEADER, |(_, y)| *y);
    let words = TIMES + LANE * (lanes.len() as f64 + 0.5);
    html! {
        text.title x=(LEFT) y="14" { (life.title) }
        @if let Some(cause) = &life.cause { text.faint x=(LEFT) y="31" { (cause) } }
        @for (nth, lane) in lanes.iter().enumerate() {
            text.lane x=(x_of(nth)) y=(HEADER - 16.0) text-anchor="middle" { (lane) }
            path.rail d={ "M" (x_of(nth)) " " (HEADER - 10.0) "V" (bottom + 8.0) } {}
        }
        path.way d=(way(&points)) {}
        @for (Moment { after, words: said, registers, .. }, (x, y)) in life.moments.iter().zip(&points) {
            text.faint x=(TIMES - 14.0) y=(y + 4.0) text-anchor="end" { (time(*after)) }
            circle.step cx=(x) cy=(y) r="5" {}
            text x=(words) y=(y + 4.0) { (said) }
            @if let Some((before, now)) = registers {
                text.registers x=(words) y=(y + 18.0) { "before: " (before) }
                text.registers x=(words) y=(y + 32.0) { "after:\u{a0} " (now) }
            }
        }
        @for (nth, end) in life.end.iter().enumerate() { text.faint x=(words) y=(bottom_of(life) + 14.0 * nth as f64) { (end) } }
    }
}

/// The threads, in the order in which it comes to them.
fn lanes(life: &Life) -> Vec<&str> {
    let mut lanes: Vec<&str> = Vec::new();
    for moment in &life.moments {
        if !lanes.contains(&moment.thread.as_str()) {
            lanes.push(&moment.thread);
        }
    }
    lanes
}

fn x_of(lane: usize) -> f64 {
    TIMES + LANE * (lane as f64 + 0.5)
}

/// Where each step is.
fn points(life: &Life, lanes: &[&str]) -> Vec<(f64, f64)> {
    let mut y = HEADER;
    let mut points = Vec::new();
    for moment in &life.moments {
        let lane = lanes.iter().position(|lane| *lane == moment.thread).unwrap_or_default();
        points.push((x_of(lane), y));
        y += row(moment);
    }
    points
}

fn row(moment: &Moment) -> f64 {
    ROW + if moment.registers.is_some() { REGISTERS } else { 0.0 }
}

/// Where its end is told.
fn bottom_of(life: &Life) -> f64 {
    HEADER + life.moments.iter().map(row).sum::<f64>() + 4.0
}

fn height(life: &Life) -> f64 {
    bottom_of(life) + 14.0 * life.end.len() as f64 + 18.0
}

fn width(life: &Life) -> f64 {
    let length = |text: &str| text.chars().count() as f64;
    let registers = |moment: &Moment| moment.registers.as_ref().map_or(0.0, |(a, b)| length(a).max(length(b)) + 9.0);
    let steps = life.moments.iter().map(|moment| length(&moment.words).max(registers(moment)));
    let ends = life.end.iter().map(|end| length(end));
    let words = TIMES + LANE * (lanes(life).len() as f64 + 0.5) + CHARACTER * steps.chain(ends).fold(0.0, f64::max);
    words.max(LEFT + 8.5 * length(&life.title)) + LEFT
}

/// Down a lane, then over to the next step's.
fn way(points: &[(f64, f64)]) -> String {
    let mut way = String::new();
    let mut last = None;
    for &(x, y) in points {
        match last {
            None => way += &format!("M{x} {y}"),
            Some(last) if last == x => way += &format!("V{y}"),
            Some(last) => way += &format!("L{last} {} L{x} {y}", y - ROW * 0.8),
        }
        last = Some(x);
    }
    way
}

/// Three digits that matter, and a unit.
fn time(ns: u64) -> String {
    let micros = ns as f64 / 1000.0;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..10_000 => format!("{micros:.2} µs"),
        10_000..100_000 => format!("{micros:.1} µs"),
        100_000..10_000_000 => format!("{:.2} ms", micros / 1e3),
        10_000_000..1_000_000_000 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.3} s", micros / 1e6),
    }
}
