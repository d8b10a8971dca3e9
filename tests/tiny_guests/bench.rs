//! `tophalf bench` on this machine's KVM: what its result holds. How long anything takes is no matter here.

use serde_json::Value;

use crate::common::{run, tophalf};
use crate::program::can_run;

const ROUNDS: usize = 2;
const SAMPLES: u64 = 5;

fn measure(arguments: &[&str]) -> Value {
    let mut command = tophalf();
    command.args(["bench", "--rounds", &ROUNDS.to_string(), "--samples", &SAMPLES.to_string(), "--seed", "7"]);
    command.args(["--json", "-"]).args(arguments);
    let finished = run(command, b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let warnings = finished.stderr.lines().filter(|line| !line.starts_with("warning: ")).count();
    assert_eq!(warnings, 0, "{}", finished.stderr);
    serde_json::from_slice(&finished.stdout).expect("JSON and nothing else on standard output")
}

fn rows(results: &Value) -> &Vec<Value> {
    results["hosts"][0]["runs"][0]["rows"].as_array().expect("rows")
}

/// Red when: a round, a mode or a sample is lost, or a ratio is made with nothing to compare.
#[test]
fn bench_has_a_row_for_each_mode_and_a_histogram_for_each_round() {
    if !can_run() {
        return;
    }
    let results = measure(&["--only", "self_ipi", "--irqchip", "user,kernel"]);
    assert_eq!((results["format"].as_str(), results["version"].as_u64()), (Some("tophalf-bench"), Some(1)));
    let host = &results["hosts"][0];
    assert!(host["fingerprint"]["cpus"].as_u64().unwrap() >= 1);
    let ran = &host["runs"][0];
    assert_eq!((ran["seed"].as_u64(), ran["cpus"].as_u64()), (Some(7), Some(2)));
    let rows = rows(&results);
    let modes: Vec<_> = rows.iter().map(|row| (row["kind"].as_str().unwrap(), row["mode"].as_str().unwrap())).collect();
    assert_eq!(modes, [("self_ipi", "user"), ("self_ipi", "kernel")]);
    for row in rows {
        let summary = &row["summary"];
        assert_eq!(summary["count"].as_u64(), Some(ROUNDS as u64 * SAMPLES), "{row}");
        let rounds = row["rounds"].as_array().unwrap();
        let numbers: Vec<_> = rounds.iter().map(|round| round["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [0, 1]);
        assert!(rounds.iter().all(|round| round["histogram"].as_str().unwrap().starts_with("HISTF")), "{row}");
        let figure = |name: &str| summary[name].as_u64().unwrap();
        assert!(figure("min") <= figure("p50") && figure("p50") <= figure("p99") && figure("p99") <= figure("max"));
        assert_eq!(row["missing"], Value::Null);
    }
    // The ICR, the EOI: exits where the local APIC is this program's, none where it is KVM's.
    assert!(rows[0]["per_interrupt"]["exits"].as_f64().unwrap() >= 1.0, "{}", rows[0]);
    assert!(rows[0]["per_interrupt"]["system_calls"].as_f64() >= rows[0]["per_interrupt"]["ioctls"].as_f64());
    assert!(!rows[0]["ratio"].is_null(), "a ratio to kernel");
    assert_eq!(rows[1]["ratio"], Value::Null, "the reference itself");
}

/// Red when: an event of an open loop is lost, or its parts are.
#[test]
fn bench_counts_every_event_that_the_host_has_raised() {
    if !can_run() {
        return;
    }
    let kinds = ["device_edge", "device_level", "pic_extint", "msi", "nmi"];
    let mut arguments = vec!["--irqchip", "user", "--same-cpuid"];
    kinds.iter().for_each(|kind| arguments.extend(["--only", kind]));
    let results = measure(&arguments);
    let rows = rows(&results);
    assert_eq!(rows.len(), 2 * kinds.len(), "two tables");
    for row in rows {
        if let Some(why) = row["missing"].as_str() {
            println!("left out: {}: {why}", row["kind"]);
            continue;
        }
        assert_eq!(row["summary"]["count"].as_u64(), Some(ROUNDS as u64 * SAMPLES), "{row}");
        let stages = row["stages"].as_array().unwrap();
        let names: Vec<_> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["due to raised", "raised to served"]);
        assert!(stages.iter().all(|stage| stage["summary"]["count"].as_u64() == Some(ROUNDS as u64 * SAMPLES)));
    }
}

/// Red when: a kind can't be measured with one CPU or fails instead of saying so.
#[test]
fn bench_says_what_is_missing() {
    if !can_run() {
        return;
    }
    let results = measure(&["--cpus", "1", "--only", "ipi_*", "--only", "eoi", "--irqchip", "user"]);
    let rows = rows(&results);
    let found: Vec<_> = rows.iter().map(|row| (row["kind"].as_str().unwrap(), row["missing"].as_str())).collect();
    let missing = Some("needs 2 CPUs, there are 1");
    let expected = [("ipi_running", missing), ("ipi_halted", missing), ("ipi_all", missing), ("eoi", None)];
    assert_eq!(found, expected);
}

/// The same guest under QEMU, where there is one; what needs our own devices is in the result with the reason.
///
/// Red when: the guest does not hand over by its serial port, or a kind is left out silently.
#[test]
fn bench_measures_the_same_guest_under_qemu() {
    if !can_run() {
        return;
    }
    let mut command = tophalf();
    command.args(["bench", "--vs-qemu", "--rounds", &ROUNDS.to_string(), "--samples", &SAMPLES.to_string()]);
    command.args(["-c", "1", "--irqchip", "kernel", "--only", "self_ipi", "--only", "msi", "--json", "-"]);
    let finished = run(command, b"");
    if finished.code == Some(2) {
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        println!("SKIPPED: {}", finished.stderr);
        return;
    }
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let results: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert!(results["hosts"][0]["runs"][0]["qemu"].is_string(), "its version");
    let row = |kind: &str, mode: &str| {
        let found = rows(&results).iter().find(|row| row["kind"] == kind && row["mode"] == mode);
        found.unwrap_or_else(|| panic!("no {kind} in {mode}: {}", finished.stderr))
    };
    assert_eq!(row("self_ipi", "qemu-on")["summary"]["count"].as_u64(), Some(ROUNDS as u64 * SAMPLES));
    assert!(row("self_ipi", "qemu-on")["ratio"].is_object(), "a ratio to kernel");
    for mode in ["qemu-split", "qemu-off"] {
        // A QEMU need not have them.
        let row = row("self_ipi", mode);
        assert!(row["summary"]["count"].as_u64() > Some(0) || row["missing"].is_string(), "{row}");
    }
    assert!(row("msi", "kernel")["summary"]["count"].as_u64() > Some(0));
    for mode in ["qemu-on", "qemu-split", "qemu-off"] {
        assert!(row("msi", mode)["missing"].as_str().is_some_and(|why| !why.is_empty()), "{mode}");
    }
}

#[test]
fn no_qemu_is_one_line_and_exit_code_2() {
    let mut command = tophalf();
    command.args(["bench", "--vs-qemu=/nonexistent/qemu"]);
    let finished = run(command, b"");
    assert_eq!((finished.code, finished.stderr.lines().count()), (Some(2), 1), "{}", finished.stderr);
    assert!(finished.stderr.contains("--vs-qemu=PATH"), "{}", finished.stderr);
}
