use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use vmm::test_record::{Modes, Needs, TestRecord};

use super::{Counts, Judge, Story, TestResult};
use crate::cli::stress::plan::{Job, Mode, Verdict};
use crate::cli::stress::process::LINES;
use crate::cli::stress::watch::Watch;

fn code(code: i32) -> ExitStatus {
    ExitStatus::from_raw(code << 8)
}

fn end(test: &TestRecord<u64>, lines: &[&str], status: ExitStatus, exceeded: Option<&str>) -> TestResult {
    let mut story = Story::default();
    let mut watch = Watch::new(std::process::id(), Duration::from_secs(1));
    for line in lines {
        story.event(line, &mut watch);
    }
    let job = Job { test, mode: Mode::User, cpus: 1 };
    story.end(&job, 1, Duration::ZERO, status, exceeded.map(str::to_owned))
}

const BEGIN: &str = r#"{"event":"begin","index":0}"#;
const PASSED: &str = r#"{"event":"complete","outcome":"passed","text":""}"#;
const FAILED: &str = r#"{"event":"complete","outcome":"failed","text":"two of three"}"#;
const SKIPPED: &str = r#"{"event":"complete","outcome":"skipped","text":"no HPET"}"#;
const PANIC: &str = r#"{"event":"panic","text":"double fault"}"#;

#[test]
fn the_guests_word_counts_unless_the_machine_says_otherwise() {
    let plain = TestRecord::new("a.b", &[1], 0);
    let known = plain.known(Modes::USER, "why");
    let alone = plain.needs(Needs::ALONE);
    let reset = code(vmm::exit_code::RESET.into());
    for (test, lines, status, exceeded, verdict, why) in [
        (&plain, &[BEGIN, PASSED][..], code(1), None, Verdict::Passed, ""),
        (&plain, &[BEGIN, FAILED], code(3), None, Verdict::Failed, "two of three"),
        (&plain, &[SKIPPED], code(1), None, Verdict::Skipped, "no HPET"),
        (&plain, &[BEGIN], code(36), None, Verdict::Failed, "without a result"),
        (&plain, &[BEGIN], reset, None, Verdict::Failed, "without a result"),
        (&alone, &[BEGIN], reset, None, Verdict::Passed, ""),
        (&alone, &[], reset, None, Verdict::Failed, "without a result"),
        (&plain, &[BEGIN], ExitStatus::from_raw(11), None, Verdict::Failed, "signal"),
        (&plain, &[BEGIN, PASSED, PANIC], code(34), None, Verdict::Failed, "double fault"),
        (&plain, &[BEGIN, PASSED], code(1), Some("too long"), Verdict::Failed, "too long"),
        (&known, &[BEGIN, FAILED], code(3), None, Verdict::Known, "two of three"),
        (&known, &[BEGIN, PASSED], code(1), None, Verdict::Failed, "is it mended?"),
    ] {
        let result = end(test, lines, status, exceeded);
        assert_eq!(result.verdict, verdict, "{lines:?} {status}");
        assert!(result.why.contains(why) && result.why.is_empty() == why.is_empty(), "{:?}, {why:?}", result.why);
        assert!(!result.interrupted);
    }
}

#[test]
fn who_found_a_failure_is_said() {
    let plain = TestRecord::new("a.b", &[1], 0);
    let halted = code(vmm::exit_code::HALTED.into());
    for (lines, status, exceeded, judge) in [
        (&[BEGIN, FAILED][..], code(3), None, Judge::Test),
        (&[BEGIN, PANIC], code(34), None, Judge::Guest),
        (&[BEGIN], halted, None, Judge::Limit),
        (&[BEGIN], code(0), Some("asleep"), Judge::Limit),
        (&[BEGIN], code(36), None, Judge::Nobody),
        (&[], ExitStatus::from_raw(11), None, Judge::Nobody),
    ] {
        let result = end(&plain, lines, status, exceeded);
        assert_eq!((result.verdict, result.judge), (Verdict::Failed, judge), "{lines:?} {status}");
    }
}

#[test]
fn an_interrupted_machine_is_told_from_one_that_died() {
    let plain = TestRecord::new("a.b", &[1], 0);
    assert!(end(&plain, &[BEGIN], ExitStatus::from_raw(2), None).interrupted);
}

#[test]
fn counts_of_a_kind_are_added_up_and_can_not_overflow() {
    let count =
        |sent: u64| format!(r#"{{"event":"count","kind":"msi","sent":{sent},"delivered":2,"merged":1,"spurious":0}}"#);
    let plain = TestRecord::new("a.b", &[1], 0);
    let result = end(&plain, &[&count(3), &count(4)], code(1), None);
    assert_eq!(result.counts, [("msi".to_owned(), Counts { sent: 7, delivered: 4, merged: 2, spurious: 0 })]);
    let result = end(&plain, &[&count(u64::MAX), &count(1)], code(1), None);
    assert_eq!(result.counts[0].1.sent, u64::MAX);
}

#[test]
fn a_flood_of_log_is_cut_off_at_its_beginning() {
    let plain = TestRecord::new("a.b", &[1], 0);
    let lines: Vec<String> = (0..LINES + 5).map(|n| format!(r#"{{"event":"log","text":"line {n}"}}"#)).collect();
    let result = end(&plain, &lines.iter().map(String::as_str).collect::<Vec<_>>(), code(1), None);
    assert_eq!((result.log.len(), result.log[0].as_str()), (LINES, "line 5"));
}

#[test]
fn measures_and_what_is_no_report_are_kept() {
    let plain = TestRecord::new("a.b", &[1], 0);
    let result =
        end(&plain, &[r#"{"event":"measure","name":"x","value":3}"#, "noise", r#"{"event":"new"}"#], code(1), None);
    assert_eq!(result.measures, [("x".to_owned(), 3)]);
    assert_eq!(result.machine.len(), 2);
}
