//! `--exec`: the command's output and status come out as they are, whatever the kernel says.

use std::process::{Command, Output};

use crate::guest::{run, variable};

const IGNORED_BECAUSE: &str = "found none";

#[track_caller]
fn assert_ended(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*err), (Some(code), stderr), "{}: {out}", output.status);
    assert!(out == stdout, "{} bytes instead of {}:\n{out}", out.len(), stdout.len());
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn exec_runs_a_command_in_an_initramfs_of_its_own() {
    let output = run(variable("TOPHALF_KERNEL").as_ref(), &["--exec", "echo words >&2; cat /proc/interrupts; exit 42"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains(IGNORED_BECAUSE) {
        println!("SKIPPED: {err}");
        return;
    }
    assert_eq!((output.status.code(), &*err), (Some(42), "words\n"), "{out}");
    // Nothing but the file, from its first to its last line.
    assert!(out.trim_start().starts_with("CPU0") && out.contains("IO-APIC") && out.contains("LOC:"), "{out}");
    assert!(out.lines().skip(1).all(|line| line.contains(':') && !line.starts_with('[')), "{out}");
}

/// Compressed, as distributions have it, and with more output than fits into any buffer.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn exec_runs_a_command_in_the_users_initramfs() {
    let plain = variable("TOPHALF_INITRD");
    let packed = std::env::temp_dir().join(format!("tophalf-exec-{}.gz", std::process::id()));
    let gzip = Command::new("gzip").args(["-c", &plain]).output().expect("there is a gzip");
    std::fs::write(&packed, gzip.stdout).expect("the temporary directory is writable");
    let command = "seq 1 20000; nproc; test -x /init; echo $?; exit 255";
    let output = run(
        variable("TOPHALF_KERNEL").as_ref(),
        &["--initrd", &packed.to_string_lossy(), "--cpus", "2", "--exec", command],
    );
    let numbers: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert_ended(&output, 255, &(numbers + "2\n0\n"), "");
    std::fs::remove_file(packed).expect("it is ours");
}

/// Output that looks like anything is output; a command that is killed has the status that a shell gives it; what it
/// leaves running does not hold it up.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn exec_passes_on_odd_ends() {
    let initrd = variable("TOPHALF_INITRD");
    let output = run(
        variable("TOPHALF_KERNEL").as_ref(),
        &["--initrd", &initrd, "--exec", "printf 'no newline'; sleep 1000 & kill -9 $$"],
    );
    assert_ended(&output, 128 + 9, "no newline", "");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn exec_in_a_guest_that_panics_has_no_status() {
    let initrd = variable("TOPHALF_INITRD");
    let output = run(
        variable("TOPHALF_KERNEL").as_ref(),
        &["--initrd", &initrd, "--exec", "echo before; sleep 1; echo c > /proc/sysrq-trigger; sleep 100"],
    );
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(32), "before\n"), "{err}");
    assert!(err.contains("Kernel panic") && err.contains("without a status of the command"), "{err}");
}
