//! Disks: what a stock kernel reads is what is in the file, and what it writes is there afterwards, however they are connected.

use std::path::PathBuf;

use crate::guest::{Guest, Report};
use crate::{assert_chip, assert_healthy};

const SECTOR: usize = 512;

/// A disk image that is removed at the end.
pub struct Image(PathBuf);

impl Image {
    /// `bytes` of numbers that repeat nowhere.
    pub fn new(name: &str, bytes: usize) -> Self {
        let this = Self::zeroes(name, 0);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let words = (0..bytes / 8).flat_map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        std::fs::write(&this.0, words.collect::<Vec<_>>()).expect("it is ours");
        this
    }

    /// `bytes` of zeroes, which take no space.
    pub fn zeroes(name: &str, bytes: u64) -> Self {
        let path = std::env::temp_dir().join(format!("tophalf-{}-{name}", std::process::id()));
        let file = std::fs::File::create(&path).expect("the temporary directory is writable");
        file.set_len(bytes).expect("room for a file");
        Self(path)
    }

    /// What is in a file or block device.
    pub fn copy(name: &str, of: &str) -> Self {
        let this = Self::zeroes(name, 0);
        // Not std::fs::copy, which takes no block device.
        let copied =
            std::fs::File::open(of).and_then(|mut from| std::io::copy(&mut from, &mut std::fs::File::create(&this.0)?));
        copied.unwrap_or_else(|error| panic!("cannot copy {of}: {error}"));
        this
    }

    /// Its path.
    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// What is in it.
    pub fn contents(&self) -> Vec<u8> {
        std::fs::read(&self.0).expect("it is there")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Copies the first disk to the second in pieces that are not aligned to anything, past the page cache and through it, with
/// both at work at once; makes zeroes. Errors end it.
const COPY: &str = r#"
set -e
cat /sys/block/vda/size /sys/block/vdb/size /sys/block/vda/ro /sys/block/vdb/ro
cat /sys/block/vda/serial; echo
dd if=/dev/vda of=/dev/vdb bs=64k count=32 oflag=direct conv=fsync 2>/dev/null
dd if=/dev/vda of=/dev/vdb bs=12345 skip=100 seek=100 conv=fsync 2>/dev/null &
[ "$(dd if=/dev/vda bs=3k iflag=direct 2>/dev/null | md5sum)" = "$(md5sum </dev/vda)" ]
wait
blkdiscard -z -o 1048576 -l 65536 /dev/vdb 2>/dev/null || dd if=/dev/zero of=/dev/vdb bs=64k seek=16 count=1 conv=fsync 2>/dev/null
[ "$(dd if=/dev/vdb bs=1M iflag=direct 2>/dev/null | md5sum)" = "$(md5sum </dev/vdb)" ]
! dd if=/dev/zero of=/dev/vda bs=512 count=1 oflag=direct 2>/dev/null
"#;

/// Has `guest` copy one disk to another, and looks at what came of it.
pub fn copies(guest: Guest) -> Report {
    let (from, to) = (Image::new("from", 4 << 20), Image::new("to", 4 << 20));
    let mut expected = from.contents();
    // The two are alike: make the second different, so that what is not copied shows.
    std::fs::write(&to.0, vec![0xff; 4 << 20]).expect("it is ours");
    let first = format!("{},ro", from.path());
    let guest = guest.word("th.virtio").option("--disk", &first).option("--disk", &to.path());
    let report = guest.script(COPY).boot();
    let lines = report.lines("script");
    assert_eq!(lines.last().map(String::as_str), Some("@@TOPHALF-STATUS 0@@"), "{report}");
    let sectors = (expected.len() / SECTOR).to_string();
    assert_eq!(lines[..4], [&*sectors, &*sectors, "1", "0"], "{report}");
    let name = from.0.file_name().expect("a file").to_string_lossy();
    assert_eq!(lines[4], name[..name.len().min(20)], "{report}");
    expected[1 << 20..(1 << 20) + (64 << 10)].fill(0);
    assert!(to.contents() == expected, "the second disk is not the first with zeroes in it\n{report}");
    report
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn disks_on_pci_have_a_vector_for_each_queue() {
    let report = copies(Guest::new().cpus(2));
    assert_healthy(&report, 2);
    assert_messages(&report);
}

/// Each disk's first queue has a message of its own.
pub fn assert_messages(report: &Report) {
    let rows = report.section("interrupts");
    for queue in ["virtio0-req.0", "virtio1-req.0"] {
        assert!(rows.lines().any(|row| row.contains("MSI") && row.ends_with(queue)), "{queue}\n{report}");
    }
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn disks_without_messages_have_shared_lines() {
    let report = copies(Guest::new().word("pci=nomsi").option("--bottom-half", "blk=tasklet"));
    assert_healthy(&report, 1);
    assert_chip(&report, "17", "IO-APIC");
    assert!(report.interrupts("17").unwrap_or(0) > 0 && report.interrupts("18").unwrap_or(0) > 0, "{report}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn disks_in_windows_are_found_through_acpi() {
    let report = copies(Guest::new().cpus(2).option("--virtio", "mmio"));
    assert_healthy(&report, 2);
    assert_chip(&report, "16", "IO-APIC");
    assert!(!report.section("interrupts").contains("MSI"), "{report}");
}

/// Four loops of reads at once, past the page cache, each on a disk of one line, until the first has made its rounds; then how many each
/// has made, and how many interrupts of the line nobody wanted.
const FOUR: &str = r#"
set -e
md5sum </dev/vda >/tmp/sum
for disk in a e i m; do
    (
        n=0
        until [ -e /tmp/enough ]; do
            dd if=/dev/vd$disk bs=4k iflag=direct 2>/dev/null | md5sum | cmp - /tmp/sum || exit 1
            n=$((n + 1))
            if [ $n -ge 30 ]; then touch /tmp/enough; fi
        done
        echo $n >/tmp/rounds.$disk
    ) & jobs="$jobs $!"
done
for job in $jobs; do wait $job; done
cat /tmp/rounds.a /tmp/rounds.e /tmp/rounds.i /tmp/rounds.m
irq=$(sed -n 's/^ *\([0-9]*\):.*virtio0,.*/\1/p' /proc/interrupts)
grep unhandled /proc/irq/$irq/spurious
"#;
/// From one disk to the next on the same line: PCI slots take the four interrupt pins in turn.
const PINS: usize = 4;

/// Red when: the line is lowered for all when one device has been served, or the EOI does not look at it again (a disk whose request
/// came meanwhile waits for ever); a device asks on when it has been served (nobody wants those interrupts, and Linux counts them).
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn four_busy_disks_share_a_line_and_none_starves() {
    let disks: Vec<_> = (0..=3 * PINS).map(|n| Image::new(&format!("shared{n}"), 64 << 10)).collect();
    let guest = Guest::new().cpus(2).word("pci=nomsi").word("th.virtio");
    let guest = disks.iter().fold(guest, |guest, disk| guest.option("--disk", &format!("{},ro", disk.path())));
    let report = guest.script(FOUR).boot();
    let lines = report.lines("script");
    assert_eq!(lines.last().map(String::as_str), Some("@@TOPHALF-STATUS 0@@"), "{report}");
    let rows = report.section("interrupts");
    let row = rows.lines().find(|row| row.contains("virtio0,")).unwrap_or_default();
    assert!(["virtio4", "virtio8", "virtio12"].iter().all(|disk| row.contains(disk)), "one line\n{report}");
    let rounds: Vec<u64> = lines[..4].iter().map(|line| line.parse().expect("a number")).collect();
    // Each has had more than a fair quarter of a fair quarter.
    assert!(rounds.iter().all(|&rounds| rounds >= 30 / 4), "{rounds:?}\n{report}");
    let interrupts: u64 = row.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).sum();
    let unhandled: u64 = lines[4].split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a count");
    assert!(interrupts > 0 && unhandled * 100 <= interrupts, "{unhandled} of {interrupts}\n{report}");
    assert_healthy(&report, 2);
}
