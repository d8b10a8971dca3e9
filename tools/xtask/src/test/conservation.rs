//! The step that balances the books of a million interrupts in each mode: the guest's tests of conservation, with more of each kind
//! than the suite has, on hardware KVM or in the emulated host.

use anyhow::Result;
use serde_json::Value;

use super::libtest::Count;
use super::step::{Report, say};
use super::stress::{self, Ran};
use crate::{lab, workspace};

/// Interrupts in each mode; with `--full` ten times as many.
const INTERRUPTS: u64 = 1_000_000;
/// Which tests send how many of each [`INTERRUPTS`]. Where each event arrives by itself one takes far longer than in a flood, and
/// longest where two vCPUs that wait for each other have one processor.
const MIX: [(&str, u64); 10] = [
    ("conservation.ipis_*", 80_000),
    ("conservation.all_kinds_*", 30_000),
    ("conservation.lines_and_messages", 8_000),
    ("conservation.timers_and_sleep", 20_000),
    ("conservation.nmis", 3_000),
    ("conservation.requests_merge_to_one", 90_000),
    ("conservation.flood_of_edges", 30_000),
    ("conservation.flood_of_messages", 40_000),
    ("conservation.flood_of_lines_*", 300_000),
    ("conservation.flood_of_levels", 300_000),
];

/// Builds, and runs all of it, or only what the one test is among.
///
/// # Errors
/// When something does not build, or the emulated host died.
pub fn run(full: bool, test: Option<&str>) -> Result<Report> {
    say("conservation", "building");
    let tophalf = workspace::build_program("tophalf", "tophalf")?;
    let factor = if full { 10 } else { 1 };
    let mut whole = Report::default();
    for mode in ["user", "split", "kernel"] {
        // See [`lab::CPUS`] for why.
        let cpus = if mode == "user" { lab::CPUS } else { 1 };
        let chosen = MIX.iter().filter(|(tests, _)| test.is_none_or(|test| is_among(tests, test)));
        let runs: Vec<_> = chosen.map(|&(tests, count)| arguments(mode, tests, factor * count)).collect();
        let output = match stress::output(&tophalf, &runs, cpus)? {
            Ran::Output(output) => output,
            Ran::Not(reason) => return Ok(Report::skipped(1, reason)),
        };
        let sent = sent(&stress::results(&output).0);
        say("conservation", format_args!("{mode}: {sent} interrupts"));
        let report = stress::report(&output);
        if report.count.failed == 0 && test.is_none() {
            whole += enough(sent, factor * INTERRUPTS, mode);
        }
        whole += report;
    }
    Ok(whole)
}

fn arguments(mode: &str, tests: &str, count: u64) -> Vec<String> {
    let count = count.to_string();
    ["stress", "--json", "-", "--irqchip", mode, "--only", tests, "--count", &count].map(str::to_owned).to_vec()
}

/// Whether the pattern, which ends with a star or has none, covers the test.
fn is_among(pattern: &str, test: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == test, |start| test.starts_with(start))
}

/// What the guests have sent, of all kinds.
fn sent(results: &[Value]) -> u64 {
    let of_run = |result: &Value| -> u64 {
        let kinds = result["totals"].as_object().into_iter().flatten();
        kinds.filter_map(|(_, kind)| kind["sent"].as_u64()).sum()
    };
    results.iter().map(of_run).sum()
}

/// A test of its own: that there was something to count.
fn enough(sent: u64, wanted: u64, mode: &str) -> Report {
    let enough = sent >= wanted;
    let reason = (!enough).then(|| format!("only {sent} interrupts in {mode} mode, not {wanted}"));
    Report { count: Count::one(enough), reason, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::{INTERRUPTS, MIX, enough, is_among, sent};
    use crate::test::stress::results;

    const TWO_RUNS: &str = "\
user    ok        0.2 s  a.b
{
  \"tests\": [{ \"outcome\": \"passed\" }],
  \"totals\": { \"msi\": { \"sent\": 3, \"delivered\": 1 }, \"nmi\": { \"sent\": 4 } }
}
{
  \"tests\": [{ \"outcome\": \"passed\" }],
  \"totals\": { \"msi\": { \"sent\": 5 } }
}
";

    #[test]
    fn what_all_runs_have_sent_counts() {
        assert_eq!(sent(&results(TWO_RUNS).0), 12);
    }

    #[test]
    fn one_test_is_among_one_of_the_patterns() {
        let patterns = |test| MIX.iter().filter(|(pattern, _)| is_among(pattern, test)).count();
        assert_eq!(
            (patterns("conservation.ipis_to_all"), patterns("conservation.nmis"), patterns("conservation.nmi")),
            (1, 1, 0)
        );
    }

    #[test]
    fn too_few_interrupts_are_a_failure() {
        assert_eq!(enough(INTERRUPTS, INTERRUPTS, "user").count.failed, 0);
        assert_eq!(enough(INTERRUPTS - 1, INTERRUPTS, "user").count.failed, 1);
    }
}
