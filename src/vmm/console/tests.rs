//! The console between a port and two pipes, its other ends in the test's hands.

use std::fs;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::OwnedFd;

use devices::{BusDevice, Later};
use irqchip::line::{LineTarget, Wire};
use sys::terminal::reopen;

use super::*;

const DATA: u64 = 0;
const MCR: u64 = 4;
const LSR: u64 = 5;

struct Nobody;

impl LineTarget for Nobody {
    fn set_level(&self, _gsi: u8, _level: bool) {}
}

impl Later for Nobody {
    fn schedule(&self) {}
}

fn port() -> Arc<Mutex<Serial>> {
    Arc::new(Mutex::new(Serial::new(Wire::new(4, Arc::new(Nobody)).holder(), Arc::new(Nobody))))
}

/// A console and everything round it.
struct Setup {
    serial: Arc<Mutex<Serial>>,
    console: Console,
    /// The user's keyboard and screen.
    keyboard: PipeWriter,
    screen: PipeReader,
}

fn non_blocking(end: impl Into<OwnedFd>, direction: Direction) -> File {
    match reopen(&end.into(), direction).expect("a pipe can be opened again") {
        Stream::NonBlocking(file) => file,
        Stream::Shared(_) => panic!("a pipe can be made non-blocking"),
    }
}

fn setup(keys: bool) -> Setup {
    let (input, keyboard) = pipe().expect("a pipe");
    let (screen, output) = pipe().expect("a pipe");
    let serial = port();
    let input = non_blocking(input, Direction::Input);
    let output = non_blocking(output, Direction::Output);
    let console = Console::new(Arc::clone(&serial), input, output, keys);
    let screen = PipeReader::from(OwnedFd::from(non_blocking(screen, Direction::Input)));
    let keyboard = PipeWriter::from(OwnedFd::from(non_blocking(keyboard, Direction::Output)));
    Setup { serial, console, keyboard, screen }
}

/// The guest sends one byte if the transmitter takes one.
fn guest_sends(serial: &Mutex<Serial>, byte: u8) -> bool {
    let mut serial = serial.lock();
    let mut status = [0];
    serial.read(0, LSR, &mut status);
    if status[0] & 0x20 == 0 {
        return false;
    }
    serial.write(0, DATA, &[byte]);
    true
}

/// The guest's driver comes up: from now on it receives.
fn guest_listens(serial: &Mutex<Serial>) {
    serial.lock().write(0, MCR, &[0x0b]);
}

/// The guest reads what its port has received.
fn guest_reads(serial: &Mutex<Serial>) -> Vec<u8> {
    let mut serial = serial.lock();
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        serial.read(0, LSR, &mut byte);
        if byte[0] & 1 == 0 {
            return bytes;
        }
        serial.read(0, DATA, &mut byte);
        bytes.push(byte[0]);
    }
}

/// What is on the screen since the last look, up to `limit` bytes.
fn seen(screen: &mut PipeReader, limit: usize) -> Vec<u8> {
    let mut bytes = vec![0; limit];
    match screen.read(&mut bytes) {
        Ok(count) => bytes.truncate(count),
        Err(e) if e.kind() == ErrorKind::WouldBlock => bytes.clear(),
        Err(e) => panic!("{e}"),
    }
    bytes
}

fn watched(console: &mut Console) -> Vec<(bool, bool)> {
    console.watch_changes().into_iter().map(|change| (change.output, change.watch)).collect()
}

const INPUT: bool = false;
const OUTPUT: bool = true;

#[test]
fn keys_of_ours_do_not_reach_the_guest() {
    let mut t = setup(true);
    guest_listens(&t.serial);
    t.keyboard.write_all(b"a\x01\x01b\x01zc\x01hd\x01").expect("room in the pipe");
    assert!(!t.console.read_input());
    assert_eq!(guest_reads(&t.serial), b"a\x01bcd");
    t.keyboard.write_all(b"\x01e").expect("room in the pipe");
    assert!(!t.console.read_input());
    assert_eq!(guest_reads(&t.serial), b"\x01e", "the two keys may come in two reads");
    t.keyboard.write_all(b"f\x01x").expect("room in the pipe");
    assert!(t.console.read_input(), "quit");
    assert_eq!(guest_reads(&t.serial), b"f");
}

#[test]
fn a_pipe_has_no_keys_of_ours() {
    let mut t = setup(false);
    guest_listens(&t.serial);
    t.keyboard.write_all(b"\x01x\x01\x01").expect("room in the pipe");
    assert!(!t.console.read_input());
    assert_eq!(guest_reads(&t.serial), b"\x01x\x01\x01");
}

#[test]
fn output_survives_a_screen_that_is_slow() {
    let mut t = setup(false);
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    let sent: Vec<u8> = (0u32..400_000).map(|i| (i ^ i >> 8) as u8).collect();
    let (mut at, mut shown, mut blocked) = (0, Vec::new(), 0);
    while shown.len() < sent.len() {
        while at < sent.len() && guest_sends(&t.serial, sent[at]) {
            at += 1;
        }
        while t.console.serve() {}
        // As the main loop does: what is watched stays so until the console wants something else.
        for change in watched(&mut t.console) {
            assert_eq!(change, (OUTPUT, blocked % 2 == 0), "watched just while it would block");
            blocked += 1;
        }
        assert_eq!(blocked % 2 == 1, t.console.has_output(), "what is left waits for the screen");
        let more = seen(&mut t.screen, 10_007);
        assert!(!more.is_empty(), "something always moves");
        shown.extend(more);
    }
    assert!(blocked > 0, "the screen was never slow");
    assert!(shown == sent);
    assert_eq!(t.serial.lock().dropped_output(), 0);
    while t.console.serve() {}
    assert!(!t.console.has_output());
}

#[test]
fn a_flood_leaves_the_main_loop_its_other_work() {
    let mut t = setup(false);
    t.console.output.file = File::options().write(true).open("/dev/null").expect("/dev/null");
    let mut count = 0;
    while guest_sends(&t.serial, b'x') {
        count += 1;
    }
    assert!(count > CHUNK);
    // As much as the port holds fits one turn: it takes a port that fills up meanwhile to make this matter.
    assert!(!t.console.serve());
    assert!(!t.console.has_output());
    (0..count).for_each(|_| assert!(guest_sends(&t.serial, b'y')));
    assert!(t.console.write_output(CHUNK), "there is more, and it would not block");
    assert!(t.console.has_output());
}

#[test]
fn input_waits_for_a_guest_that_does_not_read() {
    let mut t = setup(false);
    let typed: Vec<u8> = (0u32..200_000).map(|i| (i ^ i >> 8) as u8).collect();
    let mut left = &typed[..];
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    while watched(&mut t.console) != [(INPUT, false)] {
        let (now, later) = left.split_at(CHUNK);
        t.keyboard.write_all(now).expect("room in the pipe");
        left = later;
        assert!(!t.console.read_input());
    }
    assert_eq!(typed.len() - left.len(), INPUT_HELD, "no more is read than is held");
    assert!(!t.console.read_input());
    assert_eq!(t.console.held.len(), INPUT_HELD);

    guest_listens(&t.serial);
    let mut read = Vec::new();
    while read.len() < typed.len() {
        if t.console.wants_input() {
            let (now, later) = left.split_at(left.len().min(CHUNK));
            t.keyboard.write_all(now).expect("room in the pipe");
            left = later;
        }
        assert!(!t.console.serve());
        assert!(!t.console.read_input());
        let more = guest_reads(&t.serial);
        assert!(!more.is_empty(), "something always moves");
        read.extend(more);
    }
    assert!(read == typed);
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
}

#[test]
fn the_guest_goes_on_when_the_screen_is_closed() {
    let mut t = setup(false);
    drop(t.screen);
    for _ in 0..3 {
        for _ in 0..1000 {
            assert!(guest_sends(&t.serial, b'x'));
        }
        assert!(!t.console.serve());
        assert!(!t.console.has_output(), "thrown away");
    }
    assert_eq!(watched(&mut t.console), [(INPUT, true)], "nothing to wait for");
}

#[test]
fn the_end_of_the_input_is_not_the_end_of_the_output() {
    let mut t = setup(false);
    guest_listens(&t.serial);
    t.keyboard.write_all(b"last").expect("room in the pipe");
    drop(t.keyboard);
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    assert!(!t.console.read_input());
    assert!(!t.console.read_input());
    assert_eq!(watched(&mut t.console), [(INPUT, false)], "or the main loop would spin on it");
    assert_eq!(guest_reads(&t.serial), b"last");
    assert!(guest_sends(&t.serial, b'!'));
    assert!(!t.console.serve());
    assert_eq!(seen(&mut t.screen, 10), b"!");
}

#[test]
fn a_file_is_read_as_fast_as_the_guest_takes_it() {
    let typed: Vec<u8> = (0u32..50_000).map(|i| (i ^ i >> 8) as u8).collect();
    let path = std::env::temp_dir().join(format!("tophalf-console-{}", std::process::id()));
    fs::write(&path, &typed).expect("a temporary file");
    let mut t = setup(false);
    t.console.input.file = File::open(&path).expect("the file just written");
    fs::remove_file(&path).expect("the file just written");
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    t.console.cannot_watch(INPUT);
    assert_eq!(watched(&mut t.console), []);

    let mut read = Vec::new();
    assert!(!t.console.serve());
    guest_listens(&t.serial);
    while read.len() < typed.len() {
        let before = read.len();
        // The port asks for this whenever the guest has made room.
        assert!(!t.console.serve());
        read.extend(guest_reads(&t.serial));
        assert!(read.len() > before);
    }
    assert!(read == typed);
    assert!(!t.console.serve());
    assert!(t.console.input.ended);
}

/// The main loop of the rebooted machine is a new one. It went on as if the old one's watches were still there, so
/// no key reached the guest after its first reboot.
#[test]
fn a_rebooted_machine_has_its_keyboard_watched_again() {
    let mut t = setup(false);
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    t.keyboard.write_all(b"typed ahead").expect("room in the pipe");
    assert!(!t.console.read_input());
    let serial = port();
    t.console.attach(Arc::clone(&serial));
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    guest_listens(&serial);
    assert!(!t.console.serve());
    assert_eq!(guest_reads(&serial), b"typed ahead");
    assert!(guest_sends(&serial, b'!'));
    assert!(!t.console.serve());
    assert_eq!(seen(&mut t.screen, 10), b"!");
}
