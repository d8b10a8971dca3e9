//! Files that are not what they should be, and ledgers that do not balance.

use serde_json::{Value, json};

use super::*;

/// A machine with one pin, as `--stats` writes it.
fn line(delivered: u64) -> String {
    let dropped = json!({
        "masked": 1, "no_destination": 0, "disabled": 0, "illegal_vector": 0, "malformed": 0, "withdrawn": 0, "reset": 0,
        "not_started": 0
    });
    let pin = json!({
        "name": "pin 4", "asserted": 9, "delivered": delivered, "merged": 1, "dropped": dropped, "pending": 1
    });
    // By hand, as the file begins with these two.
    let rest = json!({
        "pid": 1, "kernel": "k", "machine": 1, "moment": "end", "uptime_ns": 5, "irqchip": "user", "ends": null, "wires": [],
        "sources": [pin], "pic_cycles": null, "posts": {}, "vcpus": [], "softirqs": [], "queues": []
    });
    let rest = rest.to_string();
    format!("{{\"format\":\"tophalf-stats\",\"version\":1,{}\n", &rest[1..])
}

fn why(bytes: &[u8]) -> String {
    parse(bytes).expect_err("it is refused")
}

#[test]
fn a_ledger_that_balances_is_said_to() {
    let (text, balanced) = report(&parse(line(6).as_bytes()).expect("ours"));
    assert!(balanced && text.contains("balances: 1 of 1 lines, 1 at the end"), "{text}");
}

#[test]
fn source_and_difference_are_named_with_their_line() {
    let file = line(6) + &line(4) + &line(7);
    let (text, balanced) = report(&parse(file.as_bytes()).expect("ours"));
    assert!(!balanced);
    assert_eq!(text, "line 2, machine 1: pin 4: 2 missing\nline 3, machine 1: pin 4: 1 too many\n");
}

#[test]
fn a_file_that_is_not_ours_or_not_whole_says_which() {
    let whole = line(6);
    for cut in [whole.len() - 1, whole.len() / 2] {
        assert!(why(&whole.as_bytes()[..cut]).contains("cut short"), "at {cut}");
    }
    assert!(why(b"").contains("empty"));
    for other in ["hello\n", "{}\n", "{\"format\":\"else\",\"version\":1}\n"] {
        assert!(why(other.as_bytes()).contains("no file of"), "{other}");
    }
    assert!(why(&[0xff, 0xfe, b'\n']).contains("no file of"));
    let newer = whole.replace("\"version\":1", "\"version\":2");
    assert!(why(newer.as_bytes()).contains("version 2"));
    let damaged = whole.replace("\"sources\"", "\"sauces\"");
    assert!(why(damaged.as_bytes()).contains("damaged in line 1"));
}

#[test]
fn the_file_begins_with_its_format_by_which_a_cut_one_is_known() {
    let snapshot = parse(line(6).as_bytes()).expect("ours").remove(0);
    let text = String::from_utf8(snapshot.to_line()).expect("JSON");
    assert!(text.starts_with("{\"format\":\"tophalf-stats\",\"version\":1,"), "{text}");
    assert!(serde_json::from_str::<Value>(&text).is_ok());
}
