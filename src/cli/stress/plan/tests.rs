use vmm::test_record::{Modes, Needs, TestRecord};

use super::{Mode, Plan, Verdict, matches};

fn tests() -> Vec<TestRecord<u64>> {
    vec![
        TestRecord::new("idt.gates", &[1], 0),
        TestRecord::new("ipi.self", &[11, 13], 0).cpus(3).needs(Needs::PROCESSOR.union(Needs::HPET)),
        TestRecord::new("ipi.kicks", &[13], 0).modes(Modes::USER).known(Modes::USER, "why"),
    ]
}

fn names(patterns: &[&str], modes: &[Mode]) -> Vec<String> {
    let tests = tests();
    let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    let plan = Plan::new(&tests, &patterns, modes.to_vec(), 2, 1).unwrap();
    plan.jobs().map(|job| format!("{} {} {}", job.test.name(), job.mode.name(), job.cpus)).collect()
}

#[test]
fn every_test_is_run_in_every_mode_that_it_knows_with_enough_vcpus() {
    assert_eq!(
        names(&[], &[Mode::User, Mode::Kernel]),
        ["idt.gates user 2", "ipi.self user 3", "ipi.kicks user 2", "idt.gates kernel 2", "ipi.self kernel 3"]
    );
}

#[test]
fn patterns_select_each_test_once() {
    assert_eq!(names(&["ipi.*", "*self"], &[Mode::User]), ["ipi.self user 3", "ipi.kicks user 2"]);
    assert_eq!(names(&["idt.gates"], &[Mode::User]), ["idt.gates user 2"]);
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_that_names_the_nearest() {
    let tests = tests();
    let error = Plan::new(&tests, &["ipi.slef".to_owned()], vec![Mode::User], 2, 1).err().expect("an error");
    assert!(error.to_string().contains("\"ipi.self\""), "{error}");
    assert_eq!(error.exit_code(), vmm::exit_code::USAGE);
    assert!(Mode::parse("usr").is_err());
}

#[test]
fn a_pattern_far_from_all_names_suggests_none() {
    let tests = tests();
    let error = Plan::new(&tests, &["xyz*".to_owned()], vec![Mode::User], 2, 1).err().expect("an error");
    assert!(!error.to_string().contains("did you mean"), "{error}");
}

#[test]
fn tests_of_which_none_is_for_the_mode_are_an_error() {
    let tests = tests();
    let error = Plan::new(&tests, &["ipi.kicks".to_owned()], vec![Mode::Split], 2, 1).err().expect("an error");
    assert!(error.to_string().contains("split"), "{error}");
    assert_eq!(error.exit_code(), vmm::exit_code::USAGE);
}

#[test]
fn a_known_failure_must_fail() {
    let tests = tests();
    let plan = Plan::new(&tests, &[], vec![Mode::User], 2, 1).unwrap();
    let jobs: Vec<_> = plan.jobs().collect();
    assert_eq!((jobs[0].judge(true), jobs[0].judge(false)), (Verdict::Passed, Verdict::Failed));
    assert_eq!((jobs[2].judge(true), jobs[2].judge(false)), (Verdict::Failed, Verdict::Known));
}

#[test]
fn the_list_says_what_a_test_needs() {
    let tests = tests();
    let list = Plan::new(&tests, &[], vec![Mode::User], 2, 1).unwrap().list();
    let line = list.lines().nth(1).unwrap();
    for part in ["ipi.self", "C11 C13", "3 CPUs", "hpet", "a processor for ring 0"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn a_star_is_any_text() {
    for (pattern, name, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*c", "abc", true),
        ("a*c", "acc", true),
        ("a*c", "acd", false),
        ("*b*", "abc", true),
        ("**", "x", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}
