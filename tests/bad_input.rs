//! What can be wrong with the command line, the input files and the host: one line on stderr with the cause and the
//! remedy, the right exit code, nothing on stdout.
//!
//! Each case names words of its cause and of its remedy, so a message that loses either makes it red.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Finished, Scratch, bzimage, run, tophalf};

/// Exit code for a wrong argument or input file.
const USAGE: i32 = 2;
/// Exit code for what the host lacks.
const HOST: i32 = 4;
/// User and group with no rights at all.
const NOBODY: &str = "65534";

/// Checks that `finished` is one line with all of `words`, and this exit code.
#[track_caller]
fn assert_refused(finished: &Finished, code: i32, words: &[&str]) {
    let line = &finished.stderr;
    assert_eq!(finished.code, Some(code), "{line}");
    assert_eq!(finished.stdout, b"", "{line}");
    assert!(line.starts_with("tophalf: ") && line.ends_with('\n') && line.lines().count() == 1, "{line:?}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line:?}");
    }
}

fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let mut command = tophalf();
    command.args(arguments);
    assert_refused(&run(command, b""), code, words);
}

/// A kernel that is as it should be; none of these tests gets as far as running it.
fn good_kernel() -> Scratch {
    Scratch::file(&bzimage(&[0xf4; 0x400]))
}

/// Refused by `tophalf run` with this kernel and these options. Input files are looked at once KVM is there.
#[track_caller]
fn kernel_refused(kernel: &Path, options: &[&str], words: &[&str]) {
    let mut command = tophalf();
    command.arg("run").args(options).arg(kernel);
    let finished = run(command, b"");
    assert_refused(&finished, USAGE, words);
    assert!(finished.stderr.contains("kernel"), "{finished:?}");
}

fn no_kvm() -> bool {
    let none = !kvm::kvm_available();
    if none {
        println!("SKIPPED: no usable /dev/kvm");
    }
    none
}

#[test]
fn arguments() {
    for (arguments, words) in [
        (&["walk"][..], &["walk", "--help"][..]),
        (&["run"], &["<KERNEL>", "--help"]),
        (&["run", "a", "b"], &["b", "--help"]),
        (&["run", ""], &["<KERNEL>", "--help"]),
        (&["run", "--turbo", "k"], &["--turbo", "--help"]),
        (&["run", "--initrd"], &["--initrd", "--help"]),
        (&["run", "--cpus", "abc", "k"], &["abc", "--cpus", "--help"]),
        (&["run", "--cpus", "-1", "k"], &["-1", "--help"]),
        (&["run", "--cpus", "1.5", "k"], &["1.5", "--help"]),
        (&["run", "--cpus", "99999999999", "k"], &["99999999999", "--help"]),
        (&["run", "--cpus", "0", "k"], &["0 vCPUs", "give --cpus 1 or more"]),
        (&["run", "--cpus", "65", "k"], &["65 vCPUs", "give --cpus 64 or fewer"]),
        (&["run", "-c", "2", "-c", "2", "k"], &["--cpus", "--help"]),
        (&["run", "--memory", "0", "k"], &["too small", "give --memory 16M or more"]),
        (&["run", "--memory", "1M", "k"], &["1M is too small", "give --memory 16M or more"]),
        (&["run", "--memory", "1024G", "k"], &["too large", "give --memory 1023G or less"]),
        (&["run", "--memory", "99999999999999999999G", "k"], &["too large", "give --memory 1023G or less"]),
        (&["run", "--memory", "lots", "k"], &["\"lots\" is not a number", "write for example 512M"]),
        (&["run", "--memory", "", "k"], &["\"\" is not a number", "write for example 512M"]),
        (&["run", "--memory", "512MB", "k"], &["\"512MB\" is not a number", "write for example 512M"]),
        (&["run", "--memory=-1", "k"], &["\"-1\" is not a number", "write for example 512M"]),
        (&["run", "--memory", "16385K", "k"], &["no multiple of the 4K page", "give for example --memory"]),
    ] {
        refused(arguments, USAGE, words);
    }
}

#[test]
fn no_arguments_at_all_are_answered_with_the_help() {
    for arguments in [&[][..], &["help", "walk"]] {
        let mut command = tophalf();
        command.args(arguments);
        let finished = run(command, b"");
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(USAGE), &b""[..]));
        assert!(finished.stderr.contains("--help") || finished.stderr.contains("Usage:"), "{finished:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (arguments, word) in [
        (&["--help"][..], "Usage: tophalf"),
        (&["-h"], "run"),
        (&["help"], "run"),
        (&["run", "--help"], "--no-reboot"),
        (&["help", "run"], "--memory"),
        (&["run", "-h"], "--initrd"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["-V"], env!("CARGO_PKG_VERSION")),
    ] {
        let mut command = tophalf();
        command.args(arguments);
        let finished = run(command, b"");
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        let text = String::from_utf8_lossy(&finished.stdout);
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn kernels_that_are_none() {
    if no_kvm() {
        return;
    }
    let good = bzimage(&[0; 0x4000]);
    let patched = |offset: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        image
    };
    let elf = [b"\x7fELF\x02\x01\x01", &[0; 1000][..]].concat();
    for (contents, words) in [
        (vec![0; 4096], &["at offset 0x1fe", "00 00", "expected the boot flag 55 aa", "vmlinuz"][..]),
        (b"#!/bin/sh\n".repeat(200), &["at offset 0x1fe", "expected", "vmlinuz"]),
        (elf, &["at offset 0x0", "ELF", "expected a bzImage", "vmlinuz"]),
        (b"short".to_vec(), &["at offset 0x5", "end of the file", "expected", "vmlinuz"]),
        (patched(0x202, b"hdrs"), &["at offset 0x202", "HdrS", "vmlinuz"]),
        (patched(0x206, &[0x04, 0x02]), &["at offset 0x206", "2.04", "2.12 or later", "3.8 or later"]),
        (patched(0x236, &[0]), &["at offset 0x236", "64-bit entry point", "64-bit kernel"]),
        (good[..good.len() - 1].to_vec(), &["truncated", "copy or build it again"]),
        (Vec::new(), &["is empty", "check how the file was made"]),
    ] {
        let file = Scratch::file(&contents);
        kernel_refused(file.path(), &[], words);
        assert!(words.len() > 1);
    }
}

/// The message names the file as it was given.
#[test]
fn files_that_cannot_be_read() {
    if no_kvm() {
        return;
    }
    let missing = Scratch::name();
    let name = missing.path().to_string_lossy().into_owned();
    kernel_refused(missing.path(), &[], &[&name, "No such file", "check the path"]);
    kernel_refused(&std::env::temp_dir(), &[], &["is a directory", "name the file in it"]);
    kernel_refused(Path::new("/dev/null"), &[], &["no regular file", "copy its contents"]);
    let below_a_file = good_kernel();
    kernel_refused(&below_a_file.path().join("k"), &[], &["Not a directory", "check the path"]);
    let long = "k".repeat(5000);
    kernel_refused(Path::new(&long), &[], &["name too long", "check the path"]);
    // A pipe without a writer would be waited for.
    let pipe = Scratch::name();
    let made = Command::new("mkfifo").arg(pipe.path()).status();
    assert!(made.is_ok_and(|status| status.success()));
    kernel_refused(pipe.path(), &[], &["no regular file", "copy its contents"]);
}

#[test]
fn initrds() {
    if no_kvm() {
        return;
    }
    let kernel = good_kernel();
    let refused = |initrd: &Path, options: &[&str], words: &[&str]| {
        let mut command = tophalf();
        command.arg("run").args(options).arg("--initrd").arg(initrd).arg(kernel.path());
        let finished = run(command, b"");
        assert_refused(&finished, USAGE, words);
        assert!(finished.stderr.contains("initrd"), "{finished:?}");
    };
    let missing = Scratch::name();
    refused(missing.path(), &[], &["No such file", "check the path"]);
    refused(&std::env::temp_dir(), &[], &["is a directory", "name the file in it"]);
    let empty = Scratch::file(b"");
    refused(empty.path(), &[], &["is empty", "check how the file was made"]);
    // 600 MiB of nothing, which takes no space.
    let large = Scratch::file(b"");
    let file = std::fs::File::options().write(true).open(large.path()).expect("just made");
    file.set_len(600 << 20).expect("a sparse file");
    refused(large.path(), &[], &["does not fit", "use a larger --memory, 617M or more"]);
    file.set_len(5 << 30).expect("a sparse file");
    refused(large.path(), &["--memory", "8G"], &["does not fit", "no --memory is enough, use a smaller initrd"]);
}

#[test]
fn what_does_not_fit() {
    if no_kvm() {
        return;
    }
    let mut image = bzimage(&[0; 0x400]);
    // init_size: 32 MiB, from 16 MiB on.
    image[0x260..0x264].copy_from_slice(&(32_u32 << 20).to_le_bytes());
    let needs_48 = Scratch::file(&image);
    kernel_refused(needs_48.path(), &["--memory", "32M"], &["up to 0x3000000", "there is 32M", "give --memory 48M"]);
    let large = Scratch::file(&bzimage(&[0; 0x400]));
    let file = std::fs::File::options().write(true).open(large.path()).expect("just made");
    file.set_len(600 << 20).expect("a sparse file");
    kernel_refused(large.path(), &[], &["there is 512M", "give --memory 616M or more"]);
    let kernel = good_kernel();
    let cmdline = "x".repeat(256);
    kernel_refused(kernel.path(), &["--cmdline", &cmdline], &["256 bytes", "at most 255", "a shorter --cmdline"]);
}

/// Runs as a user without rights, if this one may become it; `None`, with the reason, if not.
fn as_nobody(arguments: &[&str]) -> Option<Finished> {
    let setpriv = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program).env_remove("RUST_LOG");
        command
    };
    let program = Path::new(env!("CARGO_BIN_EXE_tophalf"));
    let works = setpriv(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!(
            "SKIPPED: {} can't be run as user {NOBODY} (needs root, setpriv and a readable path)",
            program.display()
        );
        return None;
    }
    let mut command = setpriv(program);
    command.args(arguments);
    Some(run(command, b""))
}

#[test]
fn no_permission_to_use_kvm() {
    let kernel = good_kernel();
    let name = kernel.path().to_string_lossy();
    let others = std::fs::metadata("/dev/kvm").map_or(0, |kvm| kvm.permissions().mode() & 0o006);
    if others != 0 || no_kvm() {
        println!("SKIPPED: everybody may use /dev/kvm here, or nobody");
        return;
    }
    if let Some(finished) = as_nobody(&["run", &name]) {
        assert_refused(&finished, HOST, &["no permission to open /dev/kvm"]);
        // Depends on who owns it.
        let remedies = ["add yourself to group", "run as root"];
        assert!(remedies.iter().any(|remedy| finished.stderr.contains(remedy)), "{finished:?}");
    }
}

/// Runs `script` in a mount namespace of its own, where `$0` is the program and `$1` a good kernel.
fn with_another_dev_kvm(prepare: &str) -> Option<Finished> {
    let kernel = good_kernel();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_tophalf")]).arg(kernel.path());
        command.env_remove("RUST_LOG");
        command
    };
    let works = unshare(prepare).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no mount namespace here (needs root and unshare)");
        return None;
    }
    Some(run(unshare(&format!("{prepare} && exec \"$0\" run \"$1\"")), b""))
}

#[test]
fn no_kvm_on_this_host() {
    if let Some(finished) = with_another_dev_kvm("mount -t tmpfs none /dev") {
        assert_refused(&finished, HOST, &["/dev/kvm does not exist", "modprobe kvm_intel"]);
    }
}

#[test]
fn a_dev_kvm_that_is_something_else() {
    if no_kvm() {
        return;
    }
    if let Some(finished) = with_another_dev_kvm("mount --bind /dev/null /dev/kvm") {
        assert_refused(&finished, HOST, &["/dev/kvm is not the KVM device", "load the kvm module"]);
    }
}

#[test]
fn a_kernel_that_this_user_may_not_read() {
    let kernel = good_kernel();
    let shut = std::fs::set_permissions(kernel.path(), std::fs::Permissions::from_mode(0o000));
    shut.expect("it is ours");
    let name = kernel.path().to_string_lossy().into_owned();
    // Root may read everything, and others may have no KVM: then there is nobody to try it as.
    let mut command = tophalf();
    command.args(["run", &name]);
    let finished =
        if std::fs::File::open(kernel.path()).is_err() { Some(run(command, b"")) } else { as_nobody(&["run", &name]) };
    match finished {
        Some(finished) if finished.code == Some(HOST) && finished.stderr.contains("/dev/kvm") => {
            println!("SKIPPED: a user who may not read the file may not use /dev/kvm either");
        }
        Some(finished) => assert_refused(&finished, USAGE, &["Permission denied", "readable for this user"]),
        None => {}
    }
}

/// Closed or full standard streams change neither the exit code nor the message.
#[test]
fn closed_streams() {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_tophalf")]).env_remove("RUST_LOG");
        run(command, b"")
    };
    for streams in ["<&-", ">&-", ">/dev/full", "<&- >&-"] {
        let finished = shell(&format!("exec \"$0\" run --cpus 0 nothing {streams}"));
        assert_refused(&finished, USAGE, &["0 vCPUs", "give --cpus 1 or more"]);
        for help in ["--help", "run --help", "--version"] {
            let finished = shell(&format!("exec \"$0\" {help} {streams}"));
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{help} {streams}");
        }
    }
    for streams in ["2>&-", "2>/dev/full", "<&- >&- 2>&-"] {
        let finished = shell(&format!("exec \"$0\" run --cpus 0 nothing {streams}"));
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(USAGE), &b""[..]), "{streams}");
    }
}
