use std::time::Duration;

use vmm::test_record::TestRecord;

use super::{Measured, Story, Tally, Trouble};
use crate::cli::stress::watch::Watch;

fn story(lines: &[&str], why: &str) -> Vec<Measured> {
    let records = ["one", "two", "three"].map(|name| TestRecord::new(name, &[], 0));
    let mut story = Story::new(&records, vec!["one", "three"]);
    let mut watch = Watch::new(std::process::id(), Duration::from_secs(1));
    lines.iter().for_each(|line| story.line(line, &mut watch));
    story.end(why)
}

#[test]
fn what_the_guest_hands_over_belongs_to_the_measurement_that_runs() {
    let measured = story(
        &[
            r#"{"event":"log","text":"hello"}"#,
            r#"{"event":"begin","index":0}"#,
            r#"{"event":"clock","tsc":10,"ns":20}"#,
            r#"{"event":"tally","exits":1,"kicks":2,"ioctls":3,"system_calls":4}"#,
            r#"{"event":"samples","name":"latency","samples":[[5,0],[-6,7]]}"#,
            r#"{"event":"samples","name":"latency","samples":[[8,9]]}"#,
            r#"{"event":"samples","name":"a part","samples":[[1,0]]}"#,
            r#"{"event":"complete","outcome":"passed","text":""}"#,
            r#"{"event":"complete","outcome":"skipped","text":"needs a HPET"}"#,
            "not of ours",
            r#"{"event":"measure","name":"x","value":1}"#,
        ],
        "unused",
    );
    assert_eq!(
        measured,
        [
            Measured {
                kind: "one".into(),
                trouble: None,
                series: vec![("latency".into(), vec![(5, 0), (-6, 7), (8, 9)]), ("a part".into(), vec![(1, 0)])],
                clocks: vec![(10, 20)],
                tallies: vec![Tally { exits: 1, kicks: 2, ioctls: 3, system_calls: 4 }],
            },
            Measured {
                kind: "three".into(),
                trouble: Some(Trouble::Missing("needs a HPET".into())),
                ..Measured::default()
            },
        ]
    );
}

#[test]
fn a_machine_that_ends_early_leaves_failures() {
    let failed = |why: &str| Some(Trouble::Failed(why.into()));
    let measured = story(&[r#"{"event":"begin","index":0}"#], "too long");
    assert_eq!(measured.len(), 2);
    assert!(measured.iter().all(|measured| measured.trouble == failed("too long")), "{measured:?}");
    let panicked = [r#"{"event":"begin","index":0}"#, r#"{"event":"panic","text":"double fault"}"#];
    let measured = story(&panicked, "unused");
    assert_eq!(measured[0].trouble, failed("the guest kernel gave up: double fault"));
    // What a wrong guest may say.
    let measured = story(&[r#"{"event":"begin","index":99}"#, r#"{"event":"samples","name":"","samples":[]}"#], "end");
    assert_eq!(measured.len(), 3);
    assert_eq!(story(&[r#"{"event":"tally","exits":1,"kicks":2,"ioctls":3,"system_calls":4}"#], "end").len(), 2);
}
