use std::collections::VecDeque;
use std::time::Duration;

use vmm::test_record::TestRecord;

use super::super::child::{Counts, Judge, TestResult};
use super::super::image::Image;
use super::super::plan::{Job, Mode, Verdict};
use super::{Report, story};

fn result(verdict: Verdict, why: &str) -> TestResult {
    TestResult {
        verdict,
        judge: Judge::Test,
        why: why.to_owned(),
        seed: 9,
        took: Duration::from_millis(1500),
        counts: vec![("msi".to_owned(), Counts { sent: 5, delivered: 4, merged: 1, spurious: 0 })],
        measures: vec![("ticks".to_owned(), 7)],
        log: VecDeque::from(["one <two>".to_owned()]),
        machine: VecDeque::from(["vCPU 0: RIP 0x1, RSP 0x2".to_owned()]),
        interrupted: false,
    }
}

fn report() -> Report {
    let test = TestRecord::new("a.b", &[1], 0);
    let mut report = Report::new(9);
    let job = Job { test: &test, mode: Mode::User, cpus: 2 };
    report.add(&job, result(Verdict::Passed, ""));
    report.add(&job, result(Verdict::Failed, "2 < 3"));
    report.add(&Job { mode: Mode::Kernel, ..job }, result(Verdict::Skipped, "no agent"));
    report
}

#[test]
fn the_summary_adds_up() {
    let report = report();
    assert!(report.has_failed());
    let summary = report.summary(Duration::from_secs(2));
    assert!(summary.contains("1 passed, 1 failed, 1 skipped in 2 s; seed 9"), "{summary}");
    let line = summary.lines().find(|line| line.starts_with("msi")).expect("a line for MSIs");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["msi", "15", "12", "3", "0"]);
}

#[test]
fn json_has_every_test_with_its_counts() {
    let json = report().to_json();
    assert_eq!(json["seed"], 9);
    assert_eq!(json["tests"].as_array().map(Vec::len), Some(3));
    let test = &json["tests"][1];
    assert_eq!((&test["name"], &test["irqchip"], &test["outcome"]), (&"a.b".into(), &"user".into(), &"failed".into()));
    assert_eq!((&test["counts"]["msi"]["merged"], &test["measures"]["ticks"]), (&1.into(), &7.into()));
    assert_eq!(json["totals"]["msi"]["sent"], 15);
}

#[test]
fn junit_has_a_suite_for_each_mode_and_escapes_what_the_guest_said() {
    let text = report().to_junit().to_string().unwrap();
    let parsed = quick_junit::Report::deserialize_from_str(&text).unwrap();
    let suites: Vec<_> = parsed.test_suites.iter().map(|suite| (suite.name.to_string(), suite.tests)).collect();
    assert_eq!(suites, [("user".to_owned(), 2), ("kernel".to_owned(), 1)]);
    assert_eq!((parsed.tests, parsed.failures), (3, 1));
    assert!(text.contains("one &lt;two&gt;") && text.contains("2 &lt; 3"), "{text}");
}

#[test]
fn the_story_of_a_failure_says_how_to_run_it_again_and_where_the_vcpus_were() {
    let image = Image::open(None).unwrap();
    let test = TestRecord::new("a.b", &[1], 0);
    let job = Job { test: &test, mode: Mode::Split, cpus: 2 };
    let mut result = result(Verdict::Failed, "2 < 3");
    let body = image.tests()[0].body;
    result.machine = VecDeque::from([format!("vCPU 0: RIP {body:#x}, RSP 0x2")]);
    let story = story(&image, &job, &result, None);
    assert!(story.contains("again: tophalf stress --only a.b --irqchip split --cpus 2 --seed 9"), "{story}");
    assert!(story.contains("guest: one <two>"), "{story}");
    assert!(story.contains(&format!("RSP 0x2 <{}>", image.symbol(body).unwrap())), "{story}");
}
