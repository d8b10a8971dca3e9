use super::report;

const OUTPUT: &str = "\
user    ok        0.2 s  a.b
user    FAILED    0.2 s  a.c: 2 < 3
{
  \"tests\": [
    { \"outcome\": \"passed\" }, { \"outcome\": \"known\" }, { \"outcome\": \"failed\" }, { \"outcome\": \"skipped\" }
  ]
}

1 passed
";

#[test]
fn every_result_counts_and_the_stories_of_failures_are_kept() {
    let report = report(OUTPUT);
    assert_eq!((report.count.passed, report.count.failed, report.count.skipped), (2, 1, 1));
    assert_eq!(report.output, ["user    FAILED    0.2 s  a.c: 2 < 3", "", "1 passed"]);
}

#[test]
fn results_of_several_runs_count_together_and_each_run_must_have_some() {
    let two = report(&OUTPUT.repeat(2));
    assert_eq!((two.count.passed, two.count.failed, two.count.skipped), (4, 2, 2));
    assert_eq!(report(&(OUTPUT.to_owned() + "{\n}\n")).count.failed, 1);
}

#[test]
fn a_run_without_results_has_failed() {
    for output in
        ["", "tophalf: no /dev/kvm\n", "{\n\"tests\": []\n}\n", "{\n\"tests\": [{}]\n}\n", "}\n{\n", "{\n3\n}\n"]
    {
        let report = report(output);
        assert_eq!((report.count.passed, report.count.failed), (0, 1), "{output:?}");
    }
}

#[test]
fn an_outcome_of_another_version_is_no_pass() {
    assert_eq!(report("{\n\"tests\": [{\"outcome\": \"fine\"}]\n}\n").count.failed, 1);
}
