use std::sync::LazyLock;

use super::*;
use crate::cli::bench::fixture;
use crate::cli::bench::results::{Host, Row};
use crate::cli::bench::statistics::Histogram;

const ROUNDS: u32 = 4;
const KINDS: [&str; 3] = ["ipi_self", "ipi_running", "msi"];

fn example() -> Results {
    static EXAMPLE: LazyLock<Results> = LazyLock::new(|| {
        let mut results = fixture::results(1, ROUNDS, 100);
        results.hosts[0].runs[0].rows.retain(|row| KINDS.contains(&row.kind.as_str()));
        results
    });
    EXAMPLE.clone()
}

fn rows(results: &mut Results) -> impl Iterator<Item = &mut Row> {
    results.hosts[0].runs[0].rows.iter_mut()
}

/// The example, with all latencies of one kind in mode `user` so many percent.
fn scaled(kind: &str, percent: u64) -> Results {
    let mut results = example();
    for row in rows(&mut results).filter(|row| row.kind == kind && row.mode == "user") {
        for round in &mut row.rounds {
            let before: Histogram = statistics::decode(&round.histogram).unwrap();
            let mut after = statistics::histogram();
            for step in before.iter_recorded() {
                after.record_n(step.value_iterated_to() * percent / 100, step.count_at_value()).unwrap();
            }
            round.histogram = statistics::encode(&after);
        }
    }
    results
}

fn check(old: &Results, new: &Results, budgets: &[&str]) -> Result<Comparison, Error> {
    let budgets: Vec<Budget> = budgets.iter().map(|text| Budget::parse(text).unwrap()).collect();
    compare(old, new, &budgets)
}

fn verdict(old: &Results, new: &Results, budget: &str) -> (bool, String) {
    let comparison = check(old, new, &[budget]).unwrap();
    let lines = comparison.text.lines().filter(|line| line.starts_with("budget ")).collect::<Vec<_>>().join("\n");
    (comparison.met, lines)
}

#[test]
fn a_slower_kind_breaks_its_budget_and_no_other() {
    let (old, new) = (example(), scaled("msi", 130));
    assert!(verdict(&old, &old, "msi.p99 < 1.10x").0);
    assert!(verdict(&old, &new, "ipi_running.p99 < 1.10x").0);
    let (met, lines) = verdict(&old, &new, "msi.p99 < 1.10x");
    assert!(
        !met && lines.contains("NOT met by user/msi, best: 1.30x") && lines.contains("NOT met by user/msi, same"),
        "{lines}"
    );
    assert!(lines.contains(": met by kernel/msi, best: 1.00x"), "{lines}");
    assert!(verdict(&old, &new, "kernel/msi.p99 < 1.10x").0);
    assert!(!verdict(&old, &new, "user/msi.p50 < 1us").0);
    assert!(verdict(&old, &new, "user/msi.p50 < 1ms").0);
    let both = check(&old, &new, &["ipi_running.p99 < 1.10x", "user/msi.p50 < 1.2x"]).unwrap();
    assert!(!both.met, "one of two is enough");
}

#[test]
fn the_table_has_each_row_with_its_change() {
    let text = check(&example(), &scaled("msi", 50), &[]).unwrap().text;
    let line = |start: &str| {
        text.lines().find(|l| l.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(start)).unwrap()
    };
    assert!(line("best msi user").contains("0.50x ("), "{text}");
    assert!(line("same msi kernel").contains("1.00x ("), "{text}");
    assert!(line("best ipi_self qemu-off").contains("not measured: this QEMU has no <off> mode for it"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("best")).count(), KINDS.len() * 5);
    assert!(!text.contains("differ"));
}

#[test]
fn what_is_not_measured_any_more_breaks_a_budget() {
    let (old, mut new) = (example(), example());
    for row in rows(&mut new).filter(|row| row.kind == "msi" && row.mode == "user") {
        row.rounds.clear();
        row.missing = Some("broken".to_owned());
    }
    let (met, lines) = verdict(&old, &new, "msi.p99 < 2x");
    assert!(!met && lines.contains("user/msi, best: it is not measured any more"), "{lines}");
    // What neither file has is no regression, but a budget for it alone is not met.
    assert!(verdict(&old, &old, "ipi_self.p99 < 2x").0);
    let (met, lines) = verdict(&old, &old, "qemu-off/ipi_self.p99 < 1s");
    assert!(!met && lines.contains("no samples"), "{lines}");
}

#[test]
fn what_has_no_old_value_needs_an_absolute_limit() {
    let (mut old, new) = (example(), example());
    old.hosts[0].runs[0].rows.retain(|row| row.kind != "msi");
    let error = check(&old, &new, &["msi.p99 < 2x"]).unwrap_err();
    assert_eq!(error.exit_code(), vmm::exit_code::USAGE);
    assert!(error.to_string().contains("no samples of user/msi"), "{error}");
    assert!(verdict(&old, &new, "msi.p99 < 1s").0);
}

#[test]
fn hosts_that_differ_are_compared_only_if_there_is_no_other_choice() {
    let (old, mut new) = (example(), example());
    new.hosts[0].fingerprint.kernel = "7.0".to_owned();
    let text = check(&old, &new, &[]).unwrap().text;
    assert!(text.contains("The hosts differ in kernel: the changes may be theirs."), "{text}");
    let third = Host { runs: example().hosts[0].runs.clone(), ..fixture::results(2, 2, 10).hosts.remove(0) };
    new.hosts.push(third);
    let error = check(&old, &new, &[]).unwrap_err().to_string();
    assert!(error.contains("nothing to compare") && error.contains("one host"), "{error}");
    let (old, mut new) = (example(), example());
    new.hosts[0].runs[0].cpus = 7;
    assert!(check(&old, &new, &[]).is_err(), "another number of vCPUs");
}

#[test]
fn the_last_version_of_the_program_counts() {
    let (old, mut new) = (example(), example());
    let mut later = scaled("msi", 300).hosts.remove(0).runs.remove(0);
    later.tophalf = "0.2.0".to_owned();
    new.hosts[0].runs.push(later);
    let (met, lines) = verdict(&old, &new, "user/msi.p50 < 1.1x");
    assert!(!met && lines.lines().count() == 2 && lines.contains("3.00x"), "{lines}");
}

#[test]
fn unknown_kinds_are_refused_before_anything_is_shown() {
    let error = check(&example(), &example(), &["ipi_runing.p99 < 2x"]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"ipi_running\"?"), "{error}");
}

/// A host's name can't send control sequences to a terminal.
#[test]
fn text_of_a_file_is_plain() {
    let mut results = example();
    results.hosts[0].fingerprint.cpu = "\u{1b}[2Jx".to_owned();
    assert!(!check(&results, &results, &[]).unwrap().text.contains('\u{1b}'));
}
