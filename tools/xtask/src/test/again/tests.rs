use super::*;
use crate::test::libtest::Count;

fn report(failed: &[&str], more: &[&str]) -> Report {
    let lines = failed.iter().map(|name| format!("test {name} ... FAILED"));
    let count = Count { passed: 10, failed: failed.len() as u64, skipped: 1 };
    Report { count, output: lines.chain(more.iter().map(|line| (*line).to_owned())).collect(), ..Report::default() }
}

/// Settles a step whose second tries go as `second` says, and gives the tests that got one.
fn settled(step: &str, first: Report, second: impl Fn(&str) -> Count) -> (Report, Vec<String>) {
    let mut tried = Vec::new();
    let report = settle(step, Ok(first), |test| {
        tried.push(test.unwrap_or("all").to_owned());
        Ok(Report { count: second(test.unwrap_or("all")), ..Report::default() })
    });
    (report.unwrap(), tried)
}

#[test]
fn what_passes_the_second_time_counts_as_passed_and_is_named() {
    let (report, tried) = settled("boots", report(&["a", "b"], &[]), |test| Count::one(test == "b"));
    assert_eq!(tried, ["a", "b"]);
    assert_eq!(report.count, Count { passed: 11, failed: 1, skipped: 1 });
    assert_eq!(report.second, ["b"]);
    assert_eq!(report.failed().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_second_try_that_ran_nothing_is_none() {
    let (report, _) = settled("stress", report(&["a"], &[]), |_| Count::default());
    assert_eq!((report.count.failed, report.second.len()), (1, 0));
}

#[test]
fn many_failures_and_those_without_a_name_get_no_second_try() {
    let good = |_: &str| Count::one(true);
    assert!(settled("boots", report(&["a", "b", "c", "d"], &[]), good).1.is_empty());
    let crashed = Report { count: Count { passed: 3, failed: 1, skipped: 0 }, ..Report::default() };
    assert_eq!(settled("cargo-test", crashed, good).0.count.failed, 1);
}

#[test]
fn models_schedules_and_tests_that_print_a_seed_get_no_second_try() {
    let good = |_: &str| Count::one(true);
    for step in ["reference", "oracle", "loom", "shuttle", "mutate", "clippy"] {
        assert_eq!(settled(step, report(&["a"], &[]), good).0.count.failed, 1, "{step}");
    }
    let said = ["failures:", "---- a stdout ----", "differs: seed 7", "---- b stdout ----", "late"];
    assert!(settled("cargo-test", report(&["a"], &said), good).1.is_empty());
    assert_eq!(settled("cargo-test", report(&["b"], &said), good).1, ["b"]);
}

#[test]
fn a_lost_host_is_started_once_more() {
    for (step, error, tries) in [
        ("stress", failure::host("it died"), 1),
        ("cargo-test", failure::host("it died"), 0),
        ("stress", anyhow::anyhow!("does not build"), 0),
        ("stress", Failure::silent(failure::HOST).into(), 0),
    ] {
        let mut tried = 0;
        let report = settle(step, Err(error), |_| {
            tried += 1;
            Ok(Report { count: Count::one(true), ..Report::default() })
        });
        assert_eq!(tried, tries, "{step}");
        assert_eq!(report.is_ok_and(|report| report.second == ["all of stress: it died"]), tries == 1);
    }
}

#[test]
fn a_host_lost_at_the_second_try_leaves_the_test_failed_and_the_others_as_they_were() {
    let report = settle("boots", Ok(report(&["a"], &[])), |_| Err(failure::host("it died"))).unwrap();
    assert_eq!(report.count, Count { passed: 10, failed: 1, skipped: 1 });
    assert_eq!(report.output.last().map(String::as_str), Some("a: it died"));
}
