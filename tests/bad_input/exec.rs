//! `--exec` and what goes with it.

use super::common::Scratch;
use super::{HOST, USAGE, assert_refused, good_kernel, no_kvm, refused, with_another_dev_kvm};

#[test]
fn commands() {
    let missing = Scratch::name();
    let missing = missing.path().to_string_lossy();
    let script = Scratch::file(b"#!/bin/sh\n");
    let script = script.path().to_string_lossy();
    let long = "x".repeat(130_000) + &"y".repeat(2000);
    for (arguments, words) in [
        (&["--exec"][..], &["--exec", "--help"][..]),
        (&["--exec", ""], &["--exec has nothing to run", "give a command"]),
        (&["--exec", "\n"], &["--exec has nothing to run", "give a command"]),
        (&["--exec", "a", "--exec", "b"], &["--exec", "--help"]),
        (&["--busybox", "b"], &["--busybox is for --exec only", "leave it out"]),
        (&["--exec", "a", "--busybox", &missing], &["--busybox", &missing, "No such file"]),
        (&["--exec", "a", "--busybox", &script], &["--busybox", "no x86-64 program", "static busybox"]),
        (&["--exec", "a", "--busybox", "/"], &["--busybox", "it is no program", "static busybox"]),
        (&["--exec", "a", "--busybox", "b", "--initrd", "i"], &["--busybox", "--initrd", "leave one out"]),
        (&["--exec", "a", "--cmdline", "x rdinit=/y"], &["rdinit=", "leave it out"]),
        (&["--exec", "a", "--cpus", "0"], &["0 vCPUs"]),
    ] {
        let all: Vec<_> = ["run", "k"].iter().chain(arguments).copied().collect();
        refused(&all, USAGE, words);
    }
    // More than a program can be given as one argument, but not more than a file can hold.
    let file = Scratch::file(format!("kernel = \"k\"\nexec = \"{long}\"\n").as_bytes());
    refused(
        &["run", "--config", &file.path().to_string_lossy()],
        USAGE,
        &["--exec has more than 131071 bytes", "script"],
    );
    let file = Scratch::file(b"kernel = \"k\"\nexec = \"a\\u0000\"\n");
    refused(&["run", "--config", &file.path().to_string_lossy()], USAGE, &["NUL", "leave it out"]);
}

#[test]
fn no_busybox_on_this_host() {
    let hide = "for f in /bin/busybox /usr/bin/busybox; do ! [ -e $f ] || mount --bind /dev/null $f; done; PATH=";
    if let Some(finished) = with_another_dev_kvm(hide, "run \"$1\" --exec true") {
        assert_refused(&finished, USAGE, &["found none", "install busybox-static", "--busybox", "--initrd"]);
    }
}

#[test]
fn what_does_not_fit_beside_the_command() {
    if no_kvm() {
        return;
    }
    // No busybox here: this is about its size once there is one.
    let (kernel, busybox) = (good_kernel(), Scratch::file(&large_program()));
    let (kernel, busybox) = (kernel.path().to_string_lossy(), busybox.path().to_string_lossy());
    let arguments = ["run", &kernel, "--exec", "a", "--busybox", &busybox, "--memory", "32M"];
    refused(&arguments, USAGE, &["initrd", "(made for --exec)", "does not fit", "larger --memory"]);
    let missing = Scratch::name();
    refused(
        &["run", &kernel, "--exec", "a", "--initrd", &missing.path().to_string_lossy()],
        USAGE,
        &["initrd", "No such file"],
    );
}

/// 30 MiB that look like a static program.
fn large_program() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(30 << 20, 0);
    elf[18] = 62;
    elf
}

#[test]
fn a_host_without_kvm_is_no_fault_of_the_command() {
    let finished = with_another_dev_kvm("mount -t tmpfs none /dev", "run \"$1\" --exec true --initrd \"$1\"");
    if let Some(finished) = finished {
        assert_refused(&finished, HOST, &["/dev/kvm does not exist", "modprobe"]);
    }
}
