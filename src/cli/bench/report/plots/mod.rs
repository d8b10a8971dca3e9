//! Plots as SVG: what all of them are made of.
//!
//! Each mode has a colour (the style's), a mark and a dash of its own, so that a plot can be read without colours. A tick carries
//! its value, a mark its words; so a test can find the data again.

pub mod axis;
pub mod distribution;
pub mod outliers;
pub mod ratios;
pub mod stages;

use maud::{Markup, html};

use crate::cli::bench::view::MODES;

/// A picture with a title and a description for those who do not see it.
struct Figure<'a> {
    id: &'a str,
    title: String,
    description: String,
    width: f64,
    height: f64,
}

impl Figure<'_> {
    /// For the page: the key below it.
    fn draw(&self, content: &Markup, caption: &Markup) -> Markup {
        html! { figure { (self.svg(content, None)) figcaption { (caption) } } }
    }

    /// Alone, if with a `namespace`: in HTML it is understood.
    fn svg(&self, content: &Markup, namespace: Option<&str>) -> Markup {
        let Self { id, title, description, width, height } = self;
        html! {
            svg id=(id) xmlns=[namespace] viewBox={ "0 0 " (width) " " (height) }
                style={ "max-width:" (width * 1.25) "px" } role="img" aria-labelledby={ (id) "-title " (id) "-desc" } {
                title id={ (id) "-title" } { (title) }
                desc id={ (id) "-desc" } { (description) }
                (content)
            }
        }
    }
}

/// The class of a mode: a colour and a dash.
fn class(mode: &str) -> String {
    format!("m{}", index(mode))
}

fn index(mode: &str) -> usize {
    MODES.iter().position(|known| *known == mode).unwrap_or(MODES.len())
}

/// A mode's mark, and what it says when pointed at.
fn mark(mode: &str, x: f64, y: f64, says: &str) -> Markup {
    html! {
        path.mark.(class(mode)) transform={ "translate(" (round(x)) " " (round(y)) ")" } d=(shape(mode)) { title { (says) } }
    }
}

fn shape(mode: &str) -> &'static str {
    match index(mode) {
        0 => "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        1 => "M-3.5 -3.5h7v7h-7z",
        2 => "M0 -4.8L4.8 0L0 4.8L-4.8 0z",
        3 => "M0 -4.6L4.4 3.4H-4.4z",
        4 => "M0 4.6L4.4 -3.4H-4.4z",
        5 => "M-4 -1.4h2.6V-4h2.8v2.6H4v2.8H1.4V4h-2.8V1.4H-4z",
        _ => "M-2 -4h4v8h-4z",
    }
}

/// A line and a mark of each mode, with its name.
pub fn key<'a>(modes: impl IntoIterator<Item = &'a str>) -> Markup {
    html! {
        ul.key {
            @for mode in modes {
                li {
                    svg.sample viewBox="0 0 34 12" aria-hidden="true" {
                        path.line.(class(mode)) d="M1 6H33" {}
                        path.mark.(class(mode)) transform="translate(17 6)" d=(shape(mode)) {}
                    }
                    (mode)
                }
            }
        }
    }
}

/// A number for an attribute.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
