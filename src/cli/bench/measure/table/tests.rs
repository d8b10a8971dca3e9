use super::text;
use crate::cli::bench::results::{Interval, PerInterrupt, Ratio, Row, Run, Summary, Table};

fn row(mode: &str) -> Row {
    Row {
        table: Table::Best,
        kind: "msi".into(),
        what: String::new(),
        mode: mode.into(),
        rounds: Vec::new(),
        summary: Summary { count: 4, min: 1_000, p50: 2_345, p90: 3_000, p99: 4_000, p999: 5_000, max: 1_234_567 },
        stages: Vec::new(),
        per_interrupt: Some(PerInterrupt { exits: 1.25, kicks: 0.0, ioctls: 1.0, system_calls: 2.5 }),
        outliers: Vec::new(),
        ratio: None,
        missing: None,
    }
}

#[test]
fn a_kind_is_named_once_and_what_is_missing_says_why() {
    let half = Interval { estimate: 0.5, low: 0.45, high: 0.61 };
    let run = Run {
        tophalf: "1".into(),
        started: 0,
        command: Vec::new(),
        seed: 1,
        cpus: 2,
        qemu: None,
        warnings: Vec::new(),
        overhead_ns: 20.4,
        rows: vec![
            Row { ratio: Some(Ratio { p50: half, p99: half }), ..row("user") },
            Row { missing: Some("no second CPU".into()), ..row("split") },
            row("kernel"),
        ],
    };
    let text = text(&run);
    let lines: Vec<&str> = text.lines().skip(3).collect();
    assert_eq!(
        lines,
        [
            "msi             user             4      1.00      2.35      3.00      4.00      5.00   1234.57   1.25   2.50  0.50 [0.45, 0.61]",
            "                split            -  no second CPU",
            "                kernel           4      1.00      2.35      3.00      4.00      5.00   1234.57   1.25   2.50",
            "",
            "Reading the clock twice adds 20 ns to every sample.",
        ]
    );
}
