use std::fs;

use super::*;
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
fn a_mode_a_name_or_both_can_be_chosen() {
    let of = |part| choose(part).map(|choice| (choice.modes.len(), choice.tests.len())).ok();
    assert_eq!(of(None), Some((3, MIX.len())));
    assert_eq!(of(Some("split")), Some((1, MIX.len())));
    assert_eq!(of(Some("flood_of")), Some((3, 4)));
    assert_eq!(of(Some("conservation.nmis")), Some((3, 1)));
    assert_eq!(of(Some("kernel:nmis")), Some((1, 1)));
}

#[test]
fn what_there_is_not_is_a_usage_error_that_names_what_there_is() {
    for part in ["nmi.storm", "spilt:nmis", "user:nothing"] {
        let error = choose(Some(part)).unwrap_err();
        assert_eq!(
            error.downcast_ref::<failure::Failure>().map(|failure| failure.code),
            Some(failure::USAGE),
            "{part}"
        );
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("flood_of_levels") && text.contains("split"), "{text}");
    }
}

#[test]
fn the_mix_has_all_of_the_guests_tests_and_sends_enough() {
    let folder = workspace::root().join("guest/suite/conservation");
    let sources = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut named: Vec<String> = Vec::new();
    for source in sources {
        named.extend(source.split("test!(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    named.sort();
    let mut mixed: Vec<_> = MIX.iter().map(|(test, ..)| (*test).to_owned()).collect();
    mixed.sort();
    assert_eq!(named, mixed);
    assert!(MIX.iter().map(|(_, million, _)| million).sum::<u64>() >= INTERRUPTS);
    assert!(MIX.iter().map(|(.., some)| some).sum::<u64>() >= SOME);
}

#[test]
fn too_few_interrupts_are_a_failure() {
    assert_eq!(enough(INTERRUPTS, INTERRUPTS, "user").count.failed, 0);
    assert_eq!(enough(INTERRUPTS - 1, INTERRUPTS, "user").count.failed, 1);
}
