//! A VMM that is killed: what the guest had been told is on the disk is there, in a file system and on a disk without one.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::disks::Image;
use crate::guest::{self, Guest, Running};

/// Records that the guest is told are on the disk before it is killed.
const RECORDS: usize = 40;
/// A guest that says nothing for longer than this has hung: five minutes more than fio runs at most.
const SILENCE: Duration = Duration::from_secs(600);
/// Bytes of one on the disk without a file system.
const RECORD: usize = 4096;
const FILE_SYSTEM: u64 = 32 << 20;

/// Writes numbered records, each as a file and as a block, and says so once both are synced; goes on until it is killed.
const WRITE: &str = r#"
set -e
mkdir /tmp/m
mount -t ext4 /dev/vda /tmp/m
n=0
while [ $n -lt 4000 ]; do
    yes "record $n of the guest" | head -c 4096 >/tmp/r
    dd if=/tmp/r of=/dev/vdb bs=4096 seek=$n conv=fsync,notrunc 2>/dev/null
    dd if=/tmp/r of=/tmp/m/r$n conv=fsync 2>/dev/null
    echo "@@RECORD $n@@"
    n=$((n + 1))
done
"#;

fn record(number: usize) -> Vec<u8> {
    format!("record {number} of the guest\n").bytes().cycle().take(RECORD).collect()
}

/// Runs a program of e2fsprogs, which the host may have; `None` if not.
pub fn e2fs(variable: &str, arguments: &[&str]) -> Option<std::process::Output> {
    let program = std::env::var_os(variable)?;
    Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()
}

/// What a guest said before it was killed.
pub struct Written {
    /// The last record that it knew to be on the disk.
    pub last: usize,
    /// All lines of its console.
    pub console: Vec<String>,
}

/// Boots the guest, and kills the VMM when it has said so many records.
pub fn write_and_kill(options: &[&str]) -> Written {
    let child = guest::command(guest::variable("TOPHALF_KERNEL").as_ref())
        .args(["--initrd", &guest::variable("TOPHALF_INITRD"), "--no-reboot"])
        .args(options)
        .stderr(Stdio::inherit())
        .spawn()
        .expect("tophalf starts");
    // Killed by SIGKILL at the end of this function, or when it panics: nothing of it gets to clean up.
    let mut child = Running(child);
    let said = guest::lines(child.0.stdout.take().expect("a pipe"));
    let mut last = None;
    let mut console = Vec::new();
    while let Ok(line) = said.recv_timeout(SILENCE) {
        let line = line.trim_end().to_owned();
        let number = line.strip_prefix("@@RECORD ").and_then(|rest| rest.strip_suffix("@@"));
        last = number.and_then(|number| number.parse::<usize>().ok()).or(last);
        let ended = line.contains("@@TOPHALF-STATUS");
        console.push(line);
        if ended || last.is_some_and(|last| last + 1 >= RECORDS) {
            break;
        }
    }
    drop(child);
    let last = last.unwrap_or_else(|| panic!("no record was written:\n{}", console.join("\n")));
    assert!(last + 1 >= RECORDS, "nothing came after record {last}:\n{}", console.join("\n"));
    Written { last, console }
}

/// The file system's journal is for whoever mounts it next; after that nothing is wrong with it, and each record up to `last` is in the
/// file of its number in `folder`.
pub fn assert_records(image: &Image, folder: &str, last: usize) {
    let replayed = e2fs("TOPHALF_E2FSCK", &["-fp", &image.path()]).expect("e2fsck runs");
    let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(replayed.status.code().is_some_and(|code| code <= 1), "{said}");
    let checked = e2fs("TOPHALF_E2FSCK", &["-fn", &image.path()]).expect("e2fsck runs");
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    for number in 0..=last {
        let request = format!("cat {folder}/r{number}");
        let file = e2fs("TOPHALF_DEBUGFS", &["-R", &request, &image.path()]).expect("debugfs runs");
        assert!(file.stdout == record(number), "file {number} of {last} is not there");
    }
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn what_was_synced_survives_the_kill_of_the_vmm() {
    let (system, plain) = (Image::zeroes("ext4", FILE_SYSTEM), Image::zeroes("records", 16 << 20));
    if !e2fs("TOPHALF_MKE2FS", &["-q", "-F", "-t", "ext4", &system.path()]).is_some_and(|made| made.status.success()) {
        println!("SKIPPED: no mke2fs here; install e2fsprogs");
        return;
    }
    let cmdline = format!("console=ttyS0 quiet th.virtio th.sh={}", guest::base64(WRITE.as_bytes()));
    let Written { last, .. } =
        write_and_kill(&["--disk", &system.path(), "--disk", &plain.path(), "--cmdline", &cmdline]);
    let blocks = plain.contents();
    for number in 0..=last {
        assert!(blocks[number * RECORD..][..RECORD] == record(number), "block {number} of {last} is not there");
    }
    assert_records(&system, "", last);
}

/// Windows of four devices are on the same wire, with requests tried in the softirq and done in the work queue.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn four_disks_on_one_line_are_all_busy_and_none_starves() {
    // Windows have four lines in turn: each fourth disk is on the first.
    let disks: Vec<_> =
        (0..13).map(|n| Image::new(&format!("shared-{n}"), if n % 4 == 0 { 2 << 20 } else { 4096 })).collect();
    let script = r#"
for d in a e i m; do
    (
        for round in 1 2 3; do dd if=/dev/vd$d bs=16k iflag=direct 2>/dev/null | md5sum; done | sort -u >/tmp/$d
        dd if=/dev/vd$d of=/dev/vd$d bs=64k conv=fsync,notrunc 2>/dev/null || echo failed >>/tmp/$d
    ) &
done
wait
for d in a e i m; do cat /tmp/$d; done
for d in a e i m; do awk '{ print ($1 > 0 && $5 > 0) }' /sys/block/vd$d/stat; done
"#;
    let mut guest = Guest::new().cpus(2).word("quiet th.virtio").script(script).option("--virtio", "mmio");
    let before: Vec<_> = disks.iter().map(Image::contents).collect();
    for disk in &disks {
        guest = guest.option("--disk", &disk.path());
    }
    let report = guest.option("--bottom-half", "blk=softirq").boot();
    crate::assert_healthy(&report, 2);
    let row = report.interrupt_line("16").expect("the line is used").to_owned();
    for device in ["virtio0", "virtio4", "virtio8", "virtio12"] {
        assert!(row.contains(device), "{device} is not on {row}\n{report}");
    }
    let sums: Vec<_> = report.lines("script").iter().filter(|line| line.ends_with(" -")).collect();
    assert_eq!(sums.len(), 4, "every round read the same\n{report}");
    let busy = report.lines("script").iter().filter(|line| *line == "1").count();
    assert_eq!(busy, 4, "all have read and written\n{report}");
    assert!(!report.section("script").contains("failed"), "{report}");
    assert!(disks.iter().map(Image::contents).eq(before), "the disks are as they were\n{report}");
}
