use super::{Failure, Judge, Run, Verdict, read};

const OUTPUT: &str = r#"{
  "seed": 1,
  "tests": [
    { "name": "a.b", "outcome": "passed", "judge": "test", "why": "" },
    { "name": "a.c", "outcome": "failed", "judge": "limit", "why": "used more\nthan its share" }
  ]
}
"#;

fn failed(judge: Judge, why: &str) -> Failure {
    Failure { test: "a.c".to_owned(), judge, why: why.to_owned() }
}

#[test]
fn the_first_failure_is_found() {
    assert_eq!(read(OUTPUT), Run::Failed(failed(Judge::Limit, "used more")));
    for (word, judge) in [("test", Judge::Test), ("guest", Judge::Guest), ("nobody", Judge::Nobody)] {
        let output = OUTPUT.replace("\"limit\"", &format!("{word:?}"));
        assert_eq!(read(&output), Run::Failed(failed(judge, "used more")));
    }
}

#[test]
fn what_passed_was_skipped_or_is_known_is_no_failure() {
    for outcome in ["passed", "skipped", "known"] {
        assert_eq!(read(&OUTPUT.replace("\"failed\"", &format!("{outcome:?}"))), Run::Clean, "{outcome}");
    }
}

#[test]
fn output_without_results_is_no_clean_run() {
    for output in ["", "tophalf: no machine\n", "{\n}\n", &OUTPUT[..50], "{\n\"tests\": 3\n}\n"] {
        assert_eq!(read(output), Run::NoResults, "{output:?}");
    }
    // Of another version: not a failure that could count.
    assert_eq!(read(&OUTPUT.replace("\"judge\"", "\"jury\"")), Run::NoResults);
    assert_eq!(read(&OUTPUT.replace("\"limit\"", "\"chance\"")), Run::NoResults);
}

#[test]
fn only_a_fault_that_a_test_found_counts() {
    let verdicts = [
        (Verdict::Found(failed(Judge::Test, "2 < 3")), true),
        (Verdict::Survived, false),
        (Verdict::Unreported(vec!["a.*: killed".to_owned()]), false),
        (Verdict::Unfit(failed(Judge::Test, "2 < 3")), false),
    ];
    for (verdict, found) in verdicts {
        assert_eq!(verdict.is_found(), found, "{verdict}");
    }
    let found = Verdict::Found(failed(Judge::Test, "2 < 3")).to_string();
    assert_eq!(found, "found by a.c (check: 2 < 3)");
}
