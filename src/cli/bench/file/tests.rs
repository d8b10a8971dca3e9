use std::path::PathBuf;
use std::sync::LazyLock;

use super::*;
use crate::cli::bench::fixture;

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    (folder, path)
}

fn example() -> Results {
    static EXAMPLE: LazyLock<Results> = LazyLock::new(|| fixture::results(1, 2, 20));
    EXAMPLE.clone()
}

#[test]
fn what_is_written_is_read() {
    let (_folder, path) = scratch();
    write(&path, &example()).unwrap();
    assert_eq!(read(&path).unwrap(), example());
}

#[track_caller]
fn assert_refused(bytes: &[u8], words: &[&str]) {
    let (_folder, path) = scratch();
    std::fs::write(&path, bytes).unwrap();
    let error = read(&path).unwrap_err();
    assert_eq!(error.exit_code(), vmm::exit_code::USAGE);
    let line = error.to_string();
    assert!(!line.contains('\n') && line.contains("results.json"), "{line:?}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line:?}");
    }
}

#[test]
fn every_way_of_being_cut_short_is_said_to_be_that() {
    let json = serde_json::to_string_pretty(&example()).unwrap();
    // Each place in the head, then some everywhere: in names, numbers, histograms, between rows.
    for length in (1..1200).chain((1200..json.len()).step_by(4999)).chain([json.len() - 1]) {
        let problem = parse(&json.as_bytes()[..length]).unwrap_err();
        assert!(problem.contains("is cut short") && problem.contains("copy it again"), "{problem} at {length}");
    }
    assert_refused(&json.as_bytes()[..2000], &["is cut short", "copy it again"]);
    assert_refused(b" \n", &["is empty"]);
}

#[test]
fn what_is_not_ours_or_of_another_version_is_told_apart() {
    assert_refused(b"hello", &["is no result file", "bench --json"]);
    assert_refused(b"\x7fELF\x02\xff\xfe", &["is no result file"]);
    assert_refused(b"[1, 2", &["is no result file"]);
    assert_refused(br#"{"traceEvents": []}"#, &["is no result file", "format"]);
    assert_refused(br#"{"traceEvents": ["#, &["is no result file"]);
    assert_refused(br#"{"format": 5, "version": 1}"#, &["is no result file"]);
    assert_refused(br#"{"format": "tophalf-bench", "version": 7, "news": []}"#, &["version 7", "version 1"]);
    assert_refused(br#"{"format": "tophalf-bench"}"#, &["is damaged", "version"]);
    assert_refused(br#"{"format": "tophalf-bench", "version": !, "hosts": []}"#, &["is damaged"]);
    assert_refused(br#"{"format": "tophalf-bench", "version": 1}"#, &["is damaged", "hosts"]);
}

#[test]
fn damage_is_found_where_it_is() {
    let json = |spoil: fn(&mut Results)| {
        let mut results = example();
        spoil(&mut results);
        serde_json::to_vec(&results).unwrap()
    };
    let spoilt = json(|r| r.hosts[0].runs[0].rows[3].rounds[1].histogram.replace_range(..8, "AAAAAAAA"));
    assert_refused(&spoilt, &["is damaged", "qemu-on/ipi_self", "round 1"]);
    assert_refused(&json(|r| r.hosts[0].runs[0].rows[3].kind = "a\u{1b}[2J".to_owned()), &["is damaged", "no name"]);
    assert_refused(&json(|r| r.hosts[0].runs[0].rows[3].mode.clear()), &["is damaged", "no name"]);
}

#[test]
fn files_that_are_not_there_or_folders_are_one_line() {
    let (folder, path) = scratch();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("can't be read") && error.contains("results.json"), "{error}");
    assert!(read(folder.path()).unwrap_err().to_string().contains("can't be read"));
    let error = write(&path.join("x"), &example()).unwrap_err();
    assert!(error.to_string().contains("can't be written"), "{error}");
}

#[test]
fn merging_joins_hosts_and_runs_and_loses_nothing() {
    let (a, mut b, mut c) = (example(), example(), fixture::results(2, 2, 20));
    b.hosts[0].runs = vec![fixture::run(0, 3, 10)];
    c.hosts[0].fingerprint.kernel = "7.0".to_owned();
    let merged = merge([a.clone(), c.clone(), b.clone(), a.clone()]);
    assert_eq!(merged.hosts.len(), 2, "two fingerprints");
    // The earlier run is first, and the one that came twice is there once.
    assert_eq!(merged.hosts[0].runs, [b.hosts[0].runs[0].clone(), a.hosts[0].runs[0].clone()]);
    assert_eq!(merged.hosts[1], c.hosts[0]);
    let again = merge([merged.clone(), merge([c, b, a])]);
    assert_eq!(again, merged, "merging what is merged changes nothing");
}
