use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::script;
use crate::bench::kinds::{Kind, Machine, Plan};
use crate::bench::linux::results::Results;

/// A shell runs the script with a program that behaves like a guest, or fails.
#[test]
fn the_script_passes_on_what_guests_measure_and_tells_which_fail() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("guest");
    for (body, complete) in [
        ("printf '@@wakeup 7 3\\r\\n@@wakeup 90 1\\r\\n@@pipe 10 0.002\\r\\n'", true),
        ("printf '@@wakeup 7 3\\r\\n@@wakeup 90 1\\r\\n@@pipe 10 0.002\\r\\n'; exit 36", false),
        ("printf '@@wakeup 7 3\\r\\n@@pipe 10 0.002\\r\\n'", false),
        ("printf '@@wakeup 7 4\\r\\n@@pipe 10 \\r\\n'", false),
        ("exit 0", false),
    ] {
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Machine {
            program: program.display().to_string(),
            kernel: "/k".into(),
            initrd: "/i".into(),
            ..Machine::default()
        };
        let plan = Plan { machine, kinds: vec![Kind::User, Kind::Kernel], cpus: vec![1], rounds: 2 };
        let output = Command::new("sh").args(["-c", &script(&plan)]).output().unwrap();
        let results = Results::parse(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(results.complete(plan.guests(), 4, 10), complete, "{body}: {results}");
    }
}
