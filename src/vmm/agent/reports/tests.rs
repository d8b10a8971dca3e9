use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use devices::agent::Event;
use parking_lot::Mutex;

use super::{Reports, WAITING_MAX};

/// A machine that runs.
fn runs() -> bool {
    false
}

fn started(path: &Path) -> Arc<Reports> {
    let reports = Reports::open(path).unwrap();
    reports.start().unwrap();
    reports
}

fn begin(index: u64) -> Event {
    Event::Begin { index }
}

fn line(index: u64) -> String {
    format!("{{\"event\":\"begin\",\"index\":{index}}}\n")
}

#[test]
fn reports_are_json_lines_in_a_file_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reports");
    fs::write(&path, "old\n").unwrap();
    let reports = started(&path);
    reports.write(&begin(3), runs);
    assert_eq!(fs::read_to_string(&path).unwrap(), line(3), "who has reported has been heard");
    reports.write(&Event::Log { text: "a\nb".into() }, runs);
    assert_eq!(fs::read_to_string(&path).unwrap(), line(3) + "{\"event\":\"log\",\"text\":\"a\\nb\"}\n");
    reports.finish();
}

#[test]
fn a_file_that_can_not_be_made_is_the_users_error() {
    let error = Reports::open(Path::new("/nowhere/at/all")).err().expect("an error");
    assert_eq!(error.exit_code(), crate::exit_code::USAGE);
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn a_full_disk_ends_the_reports_but_not_the_machine() {
    let reports = started(Path::new("/dev/full"));
    reports.write(&begin(1), runs);
    reports.write(&begin(2), runs);
    assert_eq!(reports.lines.held.lock().done, 2);
    reports.finish();
}

/// A reader that takes a line only when it is told to, until it is told no more; says when one waits for it.
struct Reader {
    waits: Sender<()>,
    reads: Receiver<()>,
    read: Arc<Mutex<Vec<u8>>>,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The test may have seen enough.
        let _ = self.waits.send(());
        let _ = self.reads.recv();
        self.read.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stop lets the vCPU go that waits; what it has reported is kept, and machine after machine no more than there is room for.
#[test]
fn a_reader_that_does_not_read_holds_up_the_guest_but_not_its_end() {
    let (waits, waiting) = channel();
    let (read_one, reads) = channel();
    let read = Arc::default();
    let reports = Reports::to(Box::new(Reader { waits, reads, read: Arc::clone(&read) }));
    reports.start().unwrap();
    let stopped = AtomicBool::new(false);
    let is_stopped = || stopped.load(Ordering::Acquire);
    thread::scope(|scope| {
        let vcpu = scope.spawn(|| {
            reports.write(&begin(0), is_stopped);
            reports.write(&begin(1), is_stopped);
        });
        waiting.recv().unwrap();
        read_one.send(()).unwrap();
        waiting.recv().unwrap();
        // The first line is read, and the vCPU waits for the second to be.
        assert!(!vcpu.is_finished());
        stopped.store(true, Ordering::Release);
        reports.look_again();
        vcpu.join().unwrap();
    });
    // The writer has line 1; there is room for so many more.
    let kept = 2 + WAITING_MAX as u64;
    for index in 2..kept + 10 {
        reports.write(&begin(index), is_stopped);
    }
    let count = || {
        let held = reports.lines.held.lock();
        (held.waiting.len(), held.lost)
    };
    assert_eq!(count(), (WAITING_MAX, 10));
    drop(read_one);
    reports.finish();
    let all = String::from_utf8(read.lock().clone()).unwrap();
    assert_eq!(all, (0..kept).map(line).collect::<String>(), "in order, each whole");
}

/// With all the room taken by what others have left, a vCPU of a machine that runs waits for its place.
#[test]
fn who_finds_no_room_waits_for_it() {
    let (waits, waiting) = channel();
    let (read_one, reads) = channel();
    let read = Arc::default();
    let reports = Reports::to(Box::new(Reader { waits, reads, read: Arc::clone(&read) }));
    reports.start().unwrap();
    for index in 0..WAITING_MAX as u64 {
        reports.write(&begin(index), || true);
    }
    waiting.recv().unwrap();
    reports.write(&begin(WAITING_MAX as u64), || true);
    let last = WAITING_MAX as u64 + 1;
    thread::scope(|scope| {
        let vcpu = scope.spawn(|| reports.write(&begin(last), runs));
        drop(read_one);
        vcpu.join().unwrap();
    });
    let held = reports.lines.held.lock();
    assert_eq!((held.put, held.done, held.lost), (last + 1, last + 1, 0));
}
