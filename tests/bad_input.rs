//! What can be wrong with the command line, the input files and the host: one line on stderr with the cause and the
//! remedy, the right exit code, nothing on stdout.
//!
//! Each case names words of its cause and of its remedy, so a message that loses either makes it red.

mod common;
#[path = "bad_input/config.rs"]
mod config;
#[path = "bad_input/disk.rs"]
mod disk;
#[path = "bad_input/exec.rs"]
mod exec;

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
        (&["bench", "merge"], &["<FILE>", "--help"]),
        (&["bench", "merge", "/nowhere/a.json"], &["/nowhere/a.json can't be read", "bench --json"]),
        (&["bench", "report", "/nowhere/a.json", "-o", "x"], &["/nowhere/a.json can't be read", "bench --json"]),
        (
            &["bench", "compare", "a", "b", "--budget", "msi > 5us"],
            &["does not parse", "expected [MODE/]KIND.FIGURE < LIMIT"],
        ),
        (&["run"], &["<KERNEL>", "--help"]),
        (&["run", "a", "b"], &["b", "--help"]),
        (&["run", ""], &["[KERNEL]", "--help"]),
        (&["run", "--turbo", "k"], &["--turbo", "--help"]),
        (&["run", "--initrd"], &["--initrd", "--help"]),
        (&["run", "--cpus", "abc", "k"], &["abc", "--cpus", "--help"]),
        (&["run", "--cpus", "-1", "k"], &["-1", "--help"]),
        (&["run", "--cpus", "1.5", "k"], &["1.5", "--help"]),
        (&["run", "--cpus", "99999999999", "k"], &["99999999999", "--help"]),
        (&["run", "--cpus", "0", "k"], &["0 vCPUs", "give --cpus 1 or more"]),
        (&["run", "--cpus", "65", "k"], &["65 vCPUs", "give --cpus 64 or fewer"]),
        (&["run", "-c", "2", "-c", "2", "k"], &["--cpus", "--help"]),
        // The default of --cpus contradicts nothing, but who writes it down means it.
        (
            &["run", "--cpus", "1", "--apic-ids", "0,1", "k"],
            &["--cpus 1 contradicts --apic-ids, a list of 2", "leave --cpus out"],
        ),
        (
            &["run", "--cpus", "3", "--apic-ids", "0,1", "k"],
            &["--cpus 3 contradicts --apic-ids, a list of 2", "one ID for each vCPU"],
        ),
        (&["explain", "/nowhere/x"], &["/nowhere/x can't be read", "give another file"]),
        (&["explain", "/etc/hostname"], &["/etc/hostname is no native trace", "give a file that 'tophalf run --trace"]),
        (&["explain", "x", "--lost", "--id", "1"], &["--lost", "--help"]),
        (&["explain", "x", "--picture", "y.svg"], &["--picture does not know whose life", "give --id or --slowest"]),
        (&["explain"], &["<FILE>", "--help"]),
        (&["run", "--agent", "-", "k"], &["can't both be on stdout", "--serial null"]),
        (&["stress", "--irqchip", "usr"], &["\"usr\"", "give --irqchip user, split or kernel"]),
        (&["stress", "--cpus", "0"], &["0 vCPUs", "give --cpus 1 to 64"]),
        (&["stress", "--only", "ipi.slef"], &["\"ipi.slef\"", "did you mean", "--list"]),
        (&["stress", "--only", "xyz*"], &["\"xyz*\"", "'tophalf stress --list' names all"]),
        (&["stress", "--rounds", "0"], &["'0' for '--rounds <N>'", "not in 1.."]),
        (&["stress", "--minutes", "0"], &["'0' for '--minutes <M>'", "not in 1.."]),
        (&["stress", "--irqchip", "kernel", "--only", "storm.line*"], &["none of these tests", "give other modes"]),
        (&["stress", "--image", "/etc/hostname"], &["/etc/hostname", "give a build of the guest kernel"]),
        (&["stress", "--json", "/nowhere/x", "--only", "boot.*"], &["/nowhere/x", "give another file"]),
        (&["bench", "--irqchip", "usr"], &["\"usr\"", "give --irqchip user, split or kernel"]),
        (&["bench", "--irqchip", "user,user"], &["given twice", "each mode once"]),
        (&["bench", "--cpus", "65"], &["65 vCPUs", "give --cpus 1 to 64"]),
        (&["bench", "--rounds", "1"], &["one round", "give --rounds 2 or more"]),
        (&["bench", "--rounds", "2", "--seconds", "9"], &["--rounds", "--seconds", "see 'tophalf --help'"]),
        (&["bench", "--samples", "0"], &["no samples", "give --samples 1 or more"]),
        (&["bench", "--only", "clock"], &["\"clock\"", "there are", "self_ipi"]),
        (&["bench", "--json", "/nowhere/x"], &["/nowhere/x", "give another file"]),
        (&["bench", "--hist", "/nowhere/x"], &["/nowhere/x", "give another file"]),
        (&["bench", "--pin", "100000"], &["--pin [100000]", "give CPUs that this process may use"]),
        (&["run", "--serial", "tty", "k"], &["\"tty\"", "give --serial stdio, file:PATH, pty, socket:PATH or null"]),
        (&["run", "--serial", "pty:x", "k"], &["\"pty:x\"", "give --serial stdio"]),
        (&["run", "--serial", "file", "k"], &["\"file\"", "file:PATH"]),
        (&["run", "--serial", "file:", "k"], &["file: has no path", "give one after the colon"]),
        (&["run", "--serial", "socket:", "k"], &["socket: has no path", "give one after the colon"]),
        (&["run", "--bottom-half", "blk=inline", "k"], &["\"inline\"", "blk= one of workqueue, softirq, tasklet"]),
        (&["run", "--bottom-half", "net=now", "k"], &["\"now\"", "net= one of softirq, tasklet, workqueue"]),
        (&["run", "--console", "tty", "k"], &["\"tty\"", "give --console stdio, file:PATH, pty, socket:PATH or null"]),
        (&["run", "--console", "null,name=a/b", "k"], &["a port's name", "give --console TARGET,name=NAME"]),
        (&["run", "--console", "stdio", "k"], &["can't both be on standard input", "give --serial null"]),
        (&["run", "--on-halt", "reboot", "k"], &["\"reboot\"", "give --on-halt exit or wait"]),
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

/// A multiboot header with these flags, a checksum that is off by `error`, and address fields that load all of it at 1 MiB
/// and enter it at 0.
fn multiboot(flags: u32, error: u32) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = error.wrapping_sub(magic).wrapping_sub(flags);
    let image: Vec<u8> =
        [magic, flags, checksum, 1 << 20, 1 << 20, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    [image, vec![0xf4; 0x1000]].concat()
}

/// A multiboot image of 4,112 bytes with these address fields: header, load, end of load, end of bss, entry.
fn multiboot_at(addresses: [u32; 5]) -> Vec<u8> {
    let mut image = multiboot(1 << 16, 0);
    addresses
        .iter()
        .zip(image[12..32].chunks_mut(4))
        .for_each(|(address, to)| to.copy_from_slice(&address.to_le_bytes()));
    image
}

/// Addresses that wrap, lie outside memory or contradict each other; parts of a file that overlap.
#[test]
fn multiboot_addresses() {
    if no_kvm() {
        return;
    }
    const MIB: u32 = 1 << 20;
    let linked = "how the image was linked";
    for (addresses, words) in [
        // Loaded below the header, above it; ends before starts.
        ([MIB, MIB + 1, 0, 0, MIB], &["at offset 0x10", "load_addr 0x100001", "not above header_addr", linked][..]),
        ([MIB + 1, MIB, 0, 0, MIB], &["at offset 0x10", "load_addr 0x100000 with the header at 0x100001", linked]),
        ([MIB, MIB, MIB, 0, MIB], &["at offset 0x14", "load_end_addr 0x100000", "after the start", linked]),
        ([MIB, MIB, 0, MIB + 8, MIB], &["at offset 0x18", "bss_end_addr 0x100008", linked]),
        ([MIB, MIB, 0, 0, 2 * MIB], &["at offset 0x1c", "entry point 0x200000", linked]),
        // More than the file has.
        ([MIB, MIB, 2 * MIB, 0, MIB], &["at offset 0x10", "1048576 bytes from offset 0x0 on", "truncated"]),
        // Around the end of 32 bits, in the device hole, beyond memory, over the firmware's tables.
        ([0xffff_f000, 0xffff_f000, 0, 0, 0xffff_f000], &["address 0xfffff000", "below the device hole", linked]),
        ([0xd000_0000, 0xd000_0000, 0, 0, 0xd000_0000], &["address 0xd0000000", "below the device hole", linked]),
        ([0x2000_0000, 0x2000_0000, 0, 0, 0x2000_0000], &["needs memory up to 0x20001020", "give --memory 513M"]),
        ([MIB, MIB, 0, u32::MAX, MIB], &["below the device hole", linked]),
        ([0xf_0000, 0xf_0000, 0, 0, 0xf_0000], &["address 0xf0000", "outside 0x9fc00-0xfffff", linked]),
        ([0x9_f000, 0x9_f000, 0, 0, 0x9_f000], &["address 0x9f000", "outside 0x9fc00-0xfffff", linked]),
    ] {
        let file = Scratch::file(&multiboot_at(addresses));
        kernel_refused(file.path(), &[], words);
    }
    // Two segments of an ELF image at one place.
    let overlapping = Scratch::file(&elf_multiboot([MIB, MIB + 16]));
    kernel_refused(overlapping.path(), &[], &["no bootable multiboot image", "don't overlap", linked]);
    let outside = Scratch::file(&elf_multiboot([MIB, 0xffff_fff0]));
    kernel_refused(outside.path(), &[], &["no bootable multiboot image", "address 0xfffffff0", linked]);
}

/// An ELF32 image with a multiboot header and two segments of 64 bytes at these addresses.
fn elf_multiboot(segments: [u32; 2]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 2 * 32;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let magic = 0x1bad_b002_u32;
    let segment = |address: u32| words(&[1, HEADERS, address, address, 64, 64, 7, 4]);
    [
        &b"\x7fELF\x01\x01\x01"[..],
        &[0; 9],
        &[2, 0, 3, 0],
        &words(&[1, segments[0], 52, 0, 0]),
        &[52, 0, 32, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &segment(segments[0]),
        &segment(segments[1]),
        &words(&[magic, 0, 0_u32.wrapping_sub(magic)]),
        &[0xf4; 64],
    ]
    .concat()
}

/// One more than there is room for.
#[test]
fn multiboot_modules_that_do_not_fit() {
    if no_kvm() {
        return;
    }
    const MIB: u32 = 1 << 20;
    let kernel = Scratch::file(&multiboot_at([MIB, MIB, 0, 0, MIB]));
    let module = Scratch::file(b"m");
    std::fs::File::options().write(true).open(module.path()).and_then(|file| file.set_len(7 << 20)).expect("sparse");
    let name = module.path().to_string_lossy().into_owned();
    let refused = |modules: usize, words: &[&str]| {
        let mut command = tophalf();
        command.args(["run", "--memory", "16M"]);
        for _ in 0..modules {
            command.args(["--module", &name]);
        }
        command.arg(kernel.path());
        let finished = run(command, b"");
        assert_refused(&finished, USAGE, words);
    };
    // Two fit into 15 MiB, three do not.
    refused(3, &["module", &name, "does not fit", "use a larger --memory"]);
    // And one that no memory below the device hole holds.
    std::fs::File::options().write(true).open(module.path()).and_then(|file| file.set_len(4 << 30)).expect("sparse");
    refused(1, &["module", "does not fit", "no --memory is enough, use a smaller module"]);
}

/// Linux's own protocol has an initrd and nothing else.
#[test]
fn modules_for_linux() {
    if no_kvm() {
        return;
    }
    let (kernel, module) = (good_kernel(), Scratch::file(b"module"));
    let name = module.path().to_string_lossy().into_owned();
    kernel_refused(kernel.path(), &["--module", &name], &["no modules beside its initrd", "leave out --module"]);
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
        (vec![0; 4096], &["no format known", "give a bzImage", "vmlinuz"][..]),
        (b"#!/bin/sh\n".repeat(200), &["no format known", "give a bzImage"]),
        (b"short".to_vec(), &["no format known", "give a bzImage"]),
        (patched(0x202, b"hdrs"), &["no format known", "give a bzImage"]),
        (patched(0x1fe, b"hi"), &["at offset 0x1fe", "68 69", "expected the boot flag 55 aa", "vmlinuz"]),
        (elf, &["at offset 0x10", "no bootable ELF kernel", "type 0", "expected 2", "give the vmlinux"]),
        (patched(0x206, &[0x04, 0x02]), &["at offset 0x206", "2.04", "2.12 or later", "3.8 or later"]),
        (patched(0x236, &[0]), &["at offset 0x236", "64-bit entry point", "64-bit kernel"]),
        (good[..good.len() - 1].to_vec(), &["truncated", "copy or build it again"]),
        (multiboot(0, 1), &["at offset 0x8", "no bootable multiboot image", "checksum", "how the image was linked"]),
        (multiboot(4, 0), &["at offset 0x4", "no bootable multiboot image", "no video", "how the image was linked"]),
        (multiboot(0x1_0000, 0), &["at offset 0x1c", "entry point 0x0", "how the image was linked"]),
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
fn serial_ports_that_cannot_be_opened() {
    if no_kvm() {
        return;
    }
    let kernel = good_kernel();
    let refused = |target: String, words: &[&str]| {
        let mut command = tophalf();
        command.args(["run", "--serial", &target]).arg(kernel.path());
        let finished = run(command, b"");
        assert_refused(&finished, USAGE, words);
        assert!(finished.stderr.contains(&target), "{finished:?}");
    };
    let there = Scratch::file(b"precious");
    let missing = Scratch::name();
    let (there_name, missing_name) = (there.path().display(), missing.path().display());
    refused(format!("file:{missing_name}/f"), &["No such file", "check the path"]);
    refused(format!("file:{there_name}/f"), &["Not a directory", "check the path"]);
    refused(format!("file:{}", std::env::temp_dir().display()), &["s a directory", "name a file in it"]);
    refused(format!("socket:{missing_name}/s"), &["No such file", "check the path"]);
    refused(format!("socket:{there_name}"), &["in use", "remove it or choose another path"]);
    refused(format!("socket:/tmp/{}", "s".repeat(200)), &["choose a shorter path"]);
    assert_eq!(std::fs::read(there.path()).expect("still there"), b"precious");
    let live = Scratch::name();
    let _listener = std::os::unix::net::UnixListener::bind(live.path()).expect("a socket");
    refused(format!("socket:{}", live.path().display()), &["in use", "remove it or choose another path"]);
    assert!(live.path().exists());
    // A pipe without a reader would be waited for.
    let pipe = Scratch::name();
    let made = Command::new("mkfifo").arg(pipe.path()).status();
    assert!(made.is_ok_and(|status| status.success()));
    refused(format!("file:{}", pipe.path().display()), &["No such device", "choose another path"]);
}

/// A start that fails leaves alone what the serial port would have gone to.
#[test]
fn a_failed_start_empties_no_file() {
    let there = Scratch::file(b"precious");
    let missing = Scratch::name();
    let mut command = tophalf();
    command.args(["run", "--serial", &format!("file:{}", there.path().display())]).arg(missing.path());
    assert_ne!(run(command, b"").code, Some(0));
    assert_eq!(std::fs::read(there.path()).expect("still there"), b"precious");
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

/// Runs `prepare` and then the program with `command` in a mount namespace of its own, where `$1` is a good kernel.
fn with_another_dev_kvm(prepare: &str, command: &str) -> Option<Finished> {
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
    Some(run(unshare(&format!("{prepare} && exec \"$0\" {command}")), b""))
}

#[test]
fn no_kvm_on_this_host() {
    if let Some(finished) = with_another_dev_kvm("mount -t tmpfs none /dev", "run \"$1\"") {
        assert_refused(&finished, HOST, &["/dev/kvm does not exist", "modprobe kvm_intel"]);
    }
}

#[test]
fn a_dev_kvm_that_is_something_else() {
    if no_kvm() {
        return;
    }
    if let Some(finished) = with_another_dev_kvm("mount --bind /dev/null /dev/kvm", "run \"$1\"") {
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
