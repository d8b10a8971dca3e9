//! Work queues and timers against the crates that people would otherwise take, in one run: `cargo bench -p bottom_half`.
//!
//! All peers take turns within each round, so that a disturbance of the host hits all alike; medians over the rounds.
//! Every pool has two workers. docs/benchmarks.md has results and what they mean.

mod host;
mod queues;
mod timers;

use std::alloc::System as SystemAllocator;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<SystemAllocator> = &INSTRUMENTED_SYSTEM;

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A table with a column a peer; `figures[row][column]`.
fn print(title: &str, peers: &[&str], rows: &[&str], figures: &[Vec<f64>]) {
    println!("\n### {title}\n");
    println!("| | {} |", peers.join(" | "));
    println!("|---|{}", "---:|".repeat(peers.len()));
    for (row, figures) in rows.iter().zip(figures) {
        let figures: Vec<_> =
            figures.iter().map(|figure| if figure.is_nan() { "".to_owned() } else { format!("{figure:.0}") }).collect();
        println!("| {row} | {} |", figures.join(" | "));
    }
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { 15 } else { 1 };
    println!("{}", host::fingerprint());
    queues::compare(rounds);
    timers::compare(rounds);
}
