//! `--disk`, `--net` and `--virtio`.

use std::path::Path;

use super::common::{Scratch, run, tophalf};
use super::{USAGE, assert_refused, good_kernel, no_kvm, refused};

/// Refused by `tophalf run` with a good kernel and this disk; the message names the file.
#[track_caller]
fn disk_refused(path: &Path, options: &str, words: &[&str]) {
    let kernel = good_kernel();
    let disk = format!("{}{options}", path.display());
    let mut command = tophalf();
    command.arg("run").args(["--disk", &disk]).arg(kernel.path());
    let finished = run(command, b"");
    let name = path.to_string_lossy();
    let words: Vec<_> = words.iter().copied().chain([&*name]).collect();
    assert_refused(&finished, USAGE, &words);
}

#[test]
fn options_that_are_none() {
    refused(&["run", "k", "--disk", "a,rw"], USAGE, &["no option \"rw\"", "give ro or direct"]);
    refused(&["run", "k", "--disk", ""], USAGE, &["names no file", "give --disk PATH"]);
    refused(&["run", "k", "--net", "eth0"], USAGE, &["no option \"eth0\"", "give --net tap=NAME"]);
    refused(&["run", "k", "--virtio", "isa"], USAGE, &["\"isa\"", "give --virtio pci or mmio"]);
    refused(&["run", "--print-config", "--disk", "a,rw"], USAGE, &["no option \"rw\""]);
}

/// Files are looked at once KVM is there.
#[test]
fn disks_that_are_none() {
    if no_kvm() {
        return;
    }
    disk_refused(Scratch::name().path(), "", &["No such file", "give --disk a file that is there"]);
    disk_refused(Scratch::name().path(), ",ro,direct", &["No such file", "give --disk a file that is there"]);
    disk_refused(&std::env::temp_dir(), ",ro", &["neither a regular file nor a block device", "check --disk"]);
    disk_refused(Path::new("/dev/null"), "", &["neither a regular file nor a block device", "check --disk"]);
    disk_refused(Scratch::file(&[0; 511]).path(), "", &["no sector of 512 bytes", "check --disk"]);
}

#[test]
fn a_disk_has_one_writer() {
    if no_kvm() {
        return;
    }
    let disk = Scratch::file(&[0; 4096]);
    let kernel = good_kernel();
    let twice = disk.path().to_string_lossy();
    let mut command = tophalf();
    command.arg("run").args(["--disk", &twice, "--disk", &twice]).arg(kernel.path());
    assert_refused(&run(command, b""), USAGE, &["in use already", "check --disk"]);
}

#[test]
fn interfaces_that_are_none() {
    if no_kvm() {
        return;
    }
    let kernel = good_kernel();
    let refused = |net: &str, words: &[&str]| {
        let mut command = tophalf();
        command.arg("run").args(["--net", net]).arg(kernel.path());
        assert_refused(&run(command, b""), USAGE, words);
    };
    refused(
        "tap=tophalf-none",
        &["tophalf-none: there is no such interface", "make it: ip tuntap add tophalf-none mode tap"],
    );
    refused("tap=sixteen-letters-", &["1 to 15 characters", "check --net"]);
}
