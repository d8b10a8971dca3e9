//! The guest kernel runs its whole suite, on this program and on another machine monitor: if both fail the guest is wrong, if one does
//! it is that one.

use std::path::Path;
use std::process::Command;

use crate::common::{Finished, Scratch, run, tophalf};
use crate::program::can_run;

static IMAGE: &[u8] = include_bytes!(env!("TOPHALF_GUEST"));

/// What the kernel writes to the debug exit when nothing has failed, as an exit code.
const PASSED: Option<i32> = Some(1);

/// Everything ran that could, and nothing failed.
#[track_caller]
fn assert_passed(finished: &Finished, at_least: u32) {
    let log = String::from_utf8_lossy(&finished.stdout);
    let failures: Vec<_> = log.lines().filter(|line| line.contains("FAILED")).collect();
    assert!(
        finished.code == PASSED && failures.is_empty(),
        "{:?} {failures:#?}\n{log}\n{}",
        finished.code,
        finished.stderr
    );
    let summary = log.lines().find(|line| line.contains(" passed, ")).unwrap_or_default();
    let passed: u32 = summary.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(passed >= at_least, "only {summary:?}\n{log}");
}

/// On this machine's KVM, with this many vCPUs and words on the kernel's command line.
fn on_tophalf(cpus: &str, words: &str) {
    if !can_run() {
        return;
    }
    let image = Scratch::file(IMAGE);
    let host = if Path::new("/sys/module/kvm_pvm").exists() { "host=software" } else { "" };
    let mut command = tophalf();
    command.args(["run", "--cpus", cpus, "--memory", "128M", "--cmdline", &format!("{host} {words}")]);
    command.arg(image.path());
    assert_passed(&run(command, b""), 100);
}

#[test]
fn suite_passes_with_x2apic() {
    on_tophalf("2", "");
}

#[test]
fn suite_passes_with_xapic() {
    on_tophalf("4", "apic=xapic");
}

#[test]
fn suite_passes_with_one_cpu() {
    on_tophalf("1", "");
}

/// By Linux's 64-bit entry, for which loaders look when there is no PVH note.
#[test]
fn image_without_its_note_enters_in_64_bits() {
    if !can_run() {
        return;
    }
    let mut image = IMAGE.to_vec();
    // The note's name: with another one it is nobody's.
    let at = image.windows(8).position(|bytes| bytes == b"\x12\0\0\0Xen\0").expect("a PVH note");
    image[at + 4..at + 7].copy_from_slice(b"xxx");
    let image = Scratch::file(&image);
    let mut command = tophalf();
    command.args(["run", "--cpus", "2", "--cmdline", "test=boot.*"]).arg(image.path());
    assert_passed(&run(command, b""), 2);
}

#[test]
fn suite_passes_on_plain_qemu() {
    let there =
        Command::new("qemu-system-x86_64").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("SKIPPED: no qemu-system-x86_64; install the package qemu-system-x86");
        return;
    }
    let image = Scratch::file(IMAGE);
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "4", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(image.path());
    assert_passed(&run(command, b""), 100);
}

#[test]
fn unknown_tests_are_a_failure() {
    if !can_run() {
        return;
    }
    let image = Scratch::file(IMAGE);
    let mut command = tophalf();
    command.args(["run", "--cmdline", "test=no.such_test"]).arg(image.path());
    let finished = run(command, b"");
    assert_eq!(finished.code, Some(3), "{finished:?}");
}
