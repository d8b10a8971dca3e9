//! A guest whose root is on a disk of Debian's files: load on its disks while their interrupts move, and a VMM that is killed in the
//! middle of it.

use crate::crash::{self, Written};
use crate::disks::Image;
use crate::guest::{base64, variable};

/// Bytes of the second disk, which fio writes all over.
const SECOND: u64 = 16 << 20;

/// What comes between `@@NAME ` and `@@` in the lines that have it.
fn said<'a>(console: &'a [String], name: &str) -> Vec<&'a str> {
    let begin = format!("@@{name} ");
    console.iter().filter_map(|line| line.strip_prefix(&begin)?.strip_suffix("@@")).collect()
}

/// Red when: a level is lost between two CPUs, or its EOI goes to the entry as it was (fio's jobs wait for ever);
/// data of one request gets into another's (the checksums); an fsync of the guest's ends before the data are in the file.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn fio_verifies_two_disks_while_interrupts_move_and_what_was_synced_survives_a_kill() {
    if crash::e2fs("TOPHALF_E2FSCK", &["-V"]).is_none() {
        println!("SKIPPED: no e2fsck here; install e2fsprogs");
        return;
    }
    let (root, second) = (Image::copy("root", &variable("TOPHALF_DISK")), Image::zeroes("second", SECOND));
    let seconds = if std::env::var_os("TOPHALF_FULL").is_some() { 300 } else { 30 };
    let script = base64(format!("sh /load.sh {seconds}").as_bytes());
    // A disk's MSI-X vectors are the kernel's to place, and it moves none for others; lines it does.
    let cmdline = format!("console=ttyS0 quiet pci=nomsi th.virtio th.root=/dev/vda th.sh={script}");
    let options = ["--cpus", "2", "--disk", &root.path(), "--disk", &second.path(), "--cmdline", &cmdline];
    let Written { last, console } = crash::write_and_kill(&options);
    let text = console.join("\n");

    let jobs = said(&console, "FIO");
    assert_eq!(jobs.len(), 2, "a line for each disk\n{text}");
    for (job, name) in jobs.iter().zip(["root", "second"]) {
        let words: Vec<_> = job.split(' ').collect();
        let [of, error, read, written] = words[..] else { panic!("{job}\n{text}") };
        assert_eq!((of, error), (name, "0"), "{text}");
        assert!([read, written].iter().all(|kib| kib.parse::<u64>().is_ok_and(|kib| kib > 0)), "{job}\n{text}");
    }
    assert_eq!(said(&console, "FIO-END"), ["0"], "{text}");
    assert!(!text.contains("@@TROUBLE"), "{text}");
    // They were moved, and came to both CPUs.
    assert!(said(&console, "MOVED").iter().any(|count| count.parse::<u64>().is_ok_and(|count| count > 0)), "{text}");
    for disk in ["virtio0", "virtio1"] {
        let row = console.iter().find(|line| line.ends_with(disk)).unwrap_or_else(|| panic!("no {disk}\n{text}"));
        assert!(row.contains("IO-APIC"), "{row}\n{text}");
        let counts: Vec<u64> = row.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
        assert!(counts.len() == 2 && counts.iter().all(|&count| count > 0), "{row}\n{text}");
    }
    crash::assert_records(&root, "/data", last);
}
