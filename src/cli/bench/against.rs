//! Whether `kernel` mode is KVM at its best: its medians against those of QEMU with `kernel-irqchip=on`, in the same run.

use super::results::{Run, Table};
use super::units;

/// Medians that differ by no more than this part are the same.
const TOLERANCE: f64 = 0.1;

/// What came of it, a line each; none where there was no such QEMU.
pub fn lines(run: &Run) -> Vec<String> {
    let median = |kind: &str, mode: &str| {
        let is = |row: &&super::results::Row| row.table == Table::Best && row.kind == kind && row.mode == mode;
        run.rows.iter().find(is).map(|row| row.summary).filter(|summary| summary.count > 0).map(|summary| summary.p50)
    };
    let pairs = run.rows.iter().filter(|row| row.mode == "kernel" && row.table == Table::Best);
    let pairs: Vec<(&str, u64, u64)> = pairs
        .filter_map(|row| Some((row.kind.as_str(), median(&row.kind, "kernel")?, median(&row.kind, "qemu-on")?)))
        .collect();
    let differs =
        |&&(_, ours, qemus): &&(&str, u64, u64)| (ours as f64 - qemus as f64).abs() > TOLERANCE * qemus.max(1) as f64;
    let line = |&(kind, ours, qemus): &(&str, u64, u64)| {
        let (ours, qemus) = (units::duration(ours as f64, "u"), units::duration(qemus as f64, "u"));
        format!(
            "{kind}: the median in mode kernel ({ours}) and that of QEMU's kernel-irqchip=on ({qemus}) differ by more than 10%"
        )
    };
    let mut lines: Vec<String> = pairs.iter().filter(differs).map(line).collect();
    if lines.is_empty() && !pairs.is_empty() {
        lines.push("All medians in mode kernel are within 10% of those of QEMU's kernel-irqchip=on.".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::results::{Row, Summary};

    fn run(medians: &[(&str, &str, u64)]) -> Run {
        let row = |&(kind, mode, p50): &(&str, &str, u64)| Row {
            table: Table::Best,
            kind: kind.to_owned(),
            what: String::new(),
            mode: mode.to_owned(),
            rounds: Vec::new(),
            summary: Summary { count: u64::from(p50 > 0), p50, ..Summary::default() },
            stages: Vec::new(),
            per_interrupt: None,
            outliers: Vec::new(),
            ratio: None,
            missing: None,
        };
        Run {
            tophalf: String::new(),
            started: 0,
            command: Vec::new(),
            seed: 0,
            cpus: 1,
            qemu: None,
            warnings: Vec::new(),
            overhead_ns: 0.0,
            rows: medians.iter().map(row).collect(),
        }
    }

    #[test]
    fn medians_that_differ_by_more_than_a_tenth_are_named() {
        let medians =
            [("eoi", "kernel", 111), ("eoi", "qemu-on", 100), ("msi", "kernel", 110), ("msi", "qemu-on", 100)];
        let lines = lines(&run(&medians));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("eoi: ") && lines[0].contains("111 ns") && lines[0].contains("100 ns"),
            "{lines:?}"
        );
        assert_eq!(super::lines(&run(&[("eoi", "kernel", 89), ("eoi", "qemu-on", 100)])).len(), 1, "below");
    }

    #[test]
    fn all_alike_is_said_and_what_was_not_measured_is_not_compared() {
        let alike = lines(&run(&[
            ("eoi", "kernel", 100),
            ("eoi", "qemu-on", 100),
            ("msi", "kernel", 5),
            ("msi", "qemu-on", 0),
        ]));
        assert!(alike.len() == 1 && alike[0].contains("within 10%"), "{alike:?}");
        assert!(lines(&run(&[("eoi", "kernel", 100), ("eoi", "qemu-off", 500)])).is_empty());
    }
}
