use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::bench::io::results::Results;
use crate::bench::kinds::{Kind, Machine};

/// The names in the guest's script are those that are looked for.
#[test]
fn the_guest_measures_what_is_printed() {
    let guest = include_str!("../initrd.rs");
    for (name, ..) in MEASURED {
        let said = [
            format!("disk {name} "),
            format!("stream {name} "),
            format!("@@value {name} "),
            format!("@@value {name}\""),
        ];
        assert!(said.iter().any(|text| guest.contains(text)), "{name}");
    }
}

/// A shell runs the script, without its disks and interface, with a program that behaves like a guest, or fails.
#[test]
fn the_script_passes_on_what_guests_measure_and_tells_which_fail() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("guest");
    let said: String = MEASURED
        .iter()
        .map(|(name, ..)| {
            format!("printf '@@begin {name}@@\\r\\n@@end {name}@@\\r\\n@@value {name} 50 100 30\\r\\n'\n")
        })
        .collect();
    for (body, complete) in [
        (said.clone(), true),
        (format!("{said}exit 36"), false),
        (said.replacen("@@end", "@@ends", 1), false),
        (said.replacen("50 100 30", "50 100", 1), false),
        ("exit 0".to_owned(), false),
    ] {
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.display().to_string();
        let machine = Machine { program, kernel: "/k".into(), initrd: "/i".into(), ..Machine::default() };
        let plan = Plan { machine, kinds: vec![Kind::User, Kind::Kernel], cpus: vec![1], rounds: 2 };
        let output = Command::new("sh").args(["-c", &with_setup(&plan, 60, "")]).output().unwrap();
        let output = String::from_utf8_lossy(&output.stdout);
        let results = Results::parse(&output);
        assert_eq!(results.complete(plan.guests()), complete, "{body}: {output}");
    }
}
