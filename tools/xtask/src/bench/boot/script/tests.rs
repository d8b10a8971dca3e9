use std::process::Command;

use super::script;
use crate::bench::boot::results::Results;
use crate::bench::kinds::{Kind, Machine, Plan};

fn plan(program: &str, kinds: Vec<Kind>) -> Plan {
    Plan {
        machine: Machine {
            program: program.to_owned(),
            kernel: "/k".to_owned(),
            initrd: "/i".to_owned(),
            ..Machine::default()
        },
        kinds,
        cpus: vec![1, 2],
        rounds: 3,
    }
}

#[test]
fn every_round_begins_with_another_kind_and_has_them_all() {
    let plan = plan("/p", vec![Kind::User, Kind::Split, Kind::Kernel]);
    let firsts: Vec<Kind> = (0..3).filter_map(|round| plan.order(round).next()).collect();
    assert_eq!(firsts, [Kind::User, Kind::Split, Kind::Kernel]);
    for round in 0..3 {
        let mut order: Vec<Kind> = plan.order(round).collect();
        order.sort_unstable();
        assert_eq!(order, [Kind::User, Kind::Split, Kind::Kernel]);
    }
}

#[test]
fn qemu_without_kvms_chips_is_left_out_where_it_does_not_come_up() {
    let plan = plan("/p", vec![Kind::QemuOff, Kind::QemuOn]);
    let text = script(&plan);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("boot qemu")).collect();
    assert_eq!(lines.len(), plan.guests());
    assert_eq!(lines.iter().filter(|line| line.starts_with("boot qemu-off")).count(), 3);
    assert!(lines.iter().all(|line| !line.starts_with("boot qemu-off 2")));
}

/// A shell runs the script with a program that behaves like a guest, or fails.
#[test]
fn the_script_measures_what_runs_and_tells_what_fails() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("guest");
    for (body, complete) in [
        ("echo '@@TOPHALF-BEGIN uptime@@'; printf '1.25\\r\\n'", true),
        ("echo '@@TOPHALF-BEGIN uptime@@'; echo 1.25; exit 36", false),
        ("exit 0", false),
    ] {
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plan = plan(&program.display().to_string(), vec![Kind::User, Kind::Kernel]);
        let output = Command::new("sh").args(["-c", &script(&plan)]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.lines().filter(|line| line.starts_with("@@boot ")).count(), 12, "{text}");
        let results = Results::parse(&text);
        assert_eq!(results.complete(plan.guests()), complete, "{body}: {text}");
        assert_eq!(results.to_string().contains("1.25 (1.25-1.25)"), complete, "{results}");
    }
}
