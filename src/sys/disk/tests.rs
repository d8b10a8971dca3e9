use std::fs;
use std::path::PathBuf;

use super::*;

/// A file that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("tophalf-disk-{}-{name}", std::process::id()));
        fs::write(&path, contents).expect("the temporary directory is writable");
        Self(path)
    }

    fn open(&self, read_only: bool, direct: bool) -> io::Result<Disk> {
        Disk::open(&self.0, Options { read_only, direct })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let file = Temporary::new("plain", &[7; 4096 + 100]);
    let disk = file.open(false, false).expect("a disk");
    assert_eq!((disk.bytes(), disk.block_size(), disk.is_read_only()), (4096, 512, false), "whole sectors");
    assert!(file.0.to_string_lossy().into_owned().into_bytes().windows(20).any(|part| part == disk.id()));
    disk.write_at(512, &[1; 512]).expect("a write");
    disk.flush().expect("a flush");
    let mut data = [0; 1024];
    disk.read_at(256, &mut data).expect("a read");
    assert_eq!((data[0], data[256], data[767], data[768]), (7, 1, 1, 7));
}

#[test]
fn zeroes_are_zeroes_and_discarded_is_anything() {
    let file = Temporary::new("zeroes", &[7; 1 << 20]);
    let disk = file.open(false, false).expect("a disk");
    disk.write_zeroes(4096, 8192, false).expect("zeroes");
    disk.write_zeroes(65536, 4096, true).expect("zeroes, unmapped");
    disk.write_zeroes_by_hand(128 << 10, (64 << 10) + 512).expect("zeroes by hand");
    disk.discard(512 << 10, 4096).expect("a discard");
    disk.discard(0, 0).expect("nothing to discard");
    let all = fs::read(&file.0).expect("it is there");
    let zero = |from: usize, len: usize| all[from..from + len].iter().all(|&byte| byte == 0);
    assert!(zero(4096, 8192) && zero(65536, 4096) && zero(128 << 10, (64 << 10) + 512));
    let left =
        [4095, 4096 + 8192, 65535, 65536 + 4096, (128 << 10) - 1, (192 << 10) + 512, (512 << 10) - 1, (1 << 20) - 1];
    assert_eq!(left.map(|at| all[at]), [7; 8], "and nothing beside them");
    assert_eq!(all.len(), 1 << 20);
}

#[test]
fn a_disk_that_has_shrunk_gives_an_error() {
    let file = Temporary::new("shrunk", &[7; 4096]);
    let disk = file.open(false, false).expect("a disk");
    OpenOptions::new().write(true).open(&file.0).and_then(|file| file.set_len(1024)).expect("it shrinks");
    assert_eq!(disk.read_at(2048, &mut [0; 512]).map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
    assert!(disk.read_at(512, &mut [0; 512]).is_ok());
}

#[test]
fn what_is_no_disk_is_refused() {
    let missing = Disk::open(Path::new("/nowhere/disk"), Options::default());
    assert_eq!(missing.map_err(|e| e.kind()).err(), Some(io::ErrorKind::NotFound));
    let said = |path: &str, read_only| {
        let opened = Disk::open(Path::new(path), Options { read_only, direct: false });
        opened.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(said("/dev/null", false), "neither a regular file nor a block device");
    assert_eq!(said("/", true), "neither a regular file nor a block device");
    let empty = Temporary::new("empty", &[1; 511]);
    assert_eq!(said(&empty.0.to_string_lossy(), false), "it has no sector of 512 bytes");
}

#[test]
fn two_may_read_a_disk_and_only_one_may_write_it() {
    let file = Temporary::new("locked", &[0; 512]);
    let first = file.open(true, false).expect("a reader");
    let second = file.open(true, false).expect("another reader");
    let refused = file.open(false, false).expect_err("a writer beside readers");
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    drop((first, second));
    let writer = file.open(false, false).expect("a writer");
    assert!(file.open(true, false).is_err(), "a reader beside a writer");
    drop(writer);
    assert!(file.open(true, false).is_ok());
}

#[test]
fn direct_io_finds_its_block_size() {
    let file = Temporary::new("direct", &[7; 16384]);
    // Not every file system has it.
    let Ok(disk) = file.open(false, true) else { return };
    assert!([512, 4096].contains(&disk.block_size()), "{}", disk.block_size());
    let memory = vec![1; 3 * 4096];
    disk.write_at(4096, aligned(&memory, 4096)).expect("an aligned write");
    disk.write_zeroes_by_hand(8192, 4096).expect("aligned zeroes");
    drop(disk);
    let all = fs::read(&file.0).expect("it is there");
    assert_eq!([0, 4096, 8191, 8192, 12287, 12288].map(|at| all[at]), [7, 1, 1, 0, 0, 7]);
}

#[test]
fn a_flush_that_has_failed_once_fails_for_ever() {
    let file = Temporary::new("lost", &[0; 512]);
    let disk = file.open(false, false).expect("a disk");
    disk.lost.store(true, Ordering::Release);
    assert!(disk.flush().is_err() && disk.flush().is_err());
}

/// Whether a file system does it without waiting is its own affair; if it says so, it is right.
#[test]
fn what_is_tried_is_done_wholly_or_is_said_not_to_be() {
    let file = Temporary::new("tried", &[7; 8192]);
    let disk = file.open(false, false).expect("a disk");
    let mut data = [0; 1024];
    if disk.try_read_at(512, &mut data) {
        assert_eq!(data, [7; 1024]);
    }
    if disk.try_write_at(1024, &[1; 512]) {
        disk.read_at(512, &mut data).expect("a read");
        assert_eq!((data[511], data[512], data[1023]), (7, 1, 1));
    }
    assert!(!disk.try_read_at(8192 - 512, &mut data), "half of it is beyond the end");
    assert!(!disk.try_read_at(u64::MAX, &mut data), "no offset of a file");
    let read_only = Temporary::new("tried-ro", &[7; 4096]);
    assert!(!read_only.open(true, false).expect("a disk").try_write_at(0, &[1; 512]));
}

#[test]
fn direct_io_is_not_tried() {
    let file = Temporary::new("tried-direct", &[7; 8192]);
    // A file system without direct I/O has nothing to show.
    let Ok(disk) = file.open(false, true) else { return };
    assert!(!disk.try_read_at(0, &mut [0; 4096]) && !disk.try_write_at(0, &[0; 4096]));
}
