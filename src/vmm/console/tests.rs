//! The console between a port and two pipes, its other ends in the test's hands.

use std::fs;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use devices::virtio::console::Console as VirtioConsole;
use devices::virtio::{Common, Device, Memory, Serve};
use devices::{BusDevice, Later, Serial};
use irqchip::line::{LineTarget, Wire};
use parking_lot::Mutex;
use sys::terminal::{Direction, Stream, reopen};
use vm_memory::GuestAddress;

use super::*;
use crate::interrupts::Processors;

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

/// `serial` in a machine without vCPUs.
fn port_of(serial: &Arc<Mutex<Serial>>) -> Port {
    Port::new(Arc::clone(serial), Processors::new(Arc::new([])))
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
    let (input, output) = (Some(Side::new(input)), Some(Side::new(output)));
    let opened = Opened { input, output, keys, screen: true, ..Opened::nothing() };
    let console = Console::new(port_of(&serial), opened);
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

fn watched(console: &mut Console) -> Vec<(Place, bool)> {
    console.watch_changes().into_iter().map(|change| (change.place, change.to.is_some())).collect()
}

const INPUT: Place = Place::Input;
const OUTPUT: Place = Place::Output;

/// As the main loop reads, with a monitor that echoes its commands.
fn press(console: &mut Console) -> bool {
    let quit = console.read_input(&mut |line| Reply { text: format!("<{line}>\n"), then: Then::Stay });
    console.feed();
    quit
}

#[test]
fn keys_of_ours_do_not_reach_the_guest() {
    let mut t = setup(true);
    guest_listens(&t.serial);
    t.keyboard.write_all(b"a\x01\x01b\x01zc\x01hd\x01").expect("room in the pipe");
    assert!(!press(&mut t.console));
    assert_eq!(guest_reads(&t.serial), b"a\x01bcd");
    t.keyboard.write_all(b"\x01e").expect("room in the pipe");
    assert!(!press(&mut t.console));
    assert_eq!(guest_reads(&t.serial), b"\x01e", "the two keys may come in two reads");
    t.keyboard.write_all(b"f\x01x").expect("room in the pipe");
    assert!(press(&mut t.console), "quit");
    assert_eq!(guest_reads(&t.serial), b"f");
}

#[test]
fn the_monitor_takes_lines_while_output_waits() {
    let mut t = setup(true);
    guest_listens(&t.serial);
    assert!(guest_sends(&t.serial, b'1'));
    t.keyboard.write_all(b"a\x01c").expect("room in the pipe");
    assert!(!press(&mut t.console));
    assert!(!t.console.serve());
    let greeting = format!("{GREETING}{PROMPT}");
    assert_eq!(seen(&mut t.screen, 1000), greeting.as_bytes());
    assert!(guest_sends(&t.serial, b'2'));
    // Rubbed out, an arrow key, and Ctrl-A in the middle of a line.
    t.keyboard.write_all(b"irx\x7f\x1b[Aq 1\x01\x01\rx\x15\r").expect("room in the pipe");
    assert!(!press(&mut t.console));
    assert!(!t.console.serve());
    let shown = "irx\x08 \x08q 1\n<irq 1>\n(tophalf) x\x08 \x08\n<>\n(tophalf) ";
    assert_eq!(String::from_utf8(seen(&mut t.screen, 1000)).expect("text"), shown);
    assert_eq!(t.serial.lock().output_len(), 0, "the guest is not held up");
    t.keyboard.write_all(b"\x01cb").expect("room in the pipe");
    assert!(!press(&mut t.console));
    assert!(!t.console.serve());
    assert_eq!(seen(&mut t.screen, 1000), b"\n12");
    assert_eq!(guest_reads(&t.serial), b"ab", "what is typed before and after is the guest's");
}

/// Output beyond what we hold waits in the port, whose transmitter is busy then.
#[test]
fn nothing_is_lost_behind_the_monitor() {
    let mut t = setup(true);
    t.keyboard.write_all(b"\x01c").expect("room in the pipe");
    assert!(!press(&mut t.console));
    let mut sent = 0_u32;
    loop {
        let before = sent;
        while guest_sends(&t.serial, sent as u8) {
            sent += 1;
        }
        while t.console.serve() {}
        if sent == before {
            break;
        }
    }
    assert!(sent as usize > OUTPUT_HELD && t.console.waiting.len() == OUTPUT_HELD);
    // The machine stops meanwhile.
    t.console.finish();
    let mut shown = Vec::new();
    while t.console.has_output() {
        while t.console.serve() {}
        shown.extend(seen(&mut t.screen, 1 << 16));
    }
    shown.extend(seen(&mut t.screen, 1 << 16));
    let greeting = GREETING.len() + PROMPT.len();
    assert!(shown[greeting..].iter().copied().eq((0..sent).map(|i| i as u8)), "{} of {sent}", shown.len());
    assert_eq!(t.serial.lock().dropped_output(), 0);
}

/// A guest that reads nothing must not keep the user from quitting.
#[test]
fn our_keys_work_however_much_is_typed_ahead() {
    let mut t = setup(true);
    for _ in 0..TYPED_HELD / CHUNK + 10 {
        t.keyboard.write_all(&[b'x'; CHUNK]).expect("room in the pipe");
        assert!(!press(&mut t.console));
    }
    assert_eq!(t.console.held.len(), TYPED_HELD);
    t.keyboard.write_all(b"\x01x").expect("room in the pipe");
    assert!(press(&mut t.console));
}

#[test]
fn a_pipe_has_no_keys_of_ours() {
    let mut t = setup(false);
    guest_listens(&t.serial);
    t.keyboard.write_all(b"\x01x\x01\x01").expect("room in the pipe");
    assert!(!press(&mut t.console));
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
    t.console.output = Some(Side::new(File::options().write(true).open("/dev/null").expect("/dev/null")));
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
        assert!(!press(&mut t.console));
    }
    assert_eq!(typed.len() - left.len(), INPUT_HELD, "no more is read than is held");
    assert!(!press(&mut t.console));
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
        assert!(!press(&mut t.console));
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
    assert!(!press(&mut t.console));
    assert!(!press(&mut t.console));
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
    t.console.input = Some(Side::new(File::open(&path).expect("the file just written")));
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
    assert!(t.console.input.is_none());
}

/// The main loop of the rebooted machine is a new one. It went on as if the old one's watches were still there, so
/// no key reached the guest after its first reboot.
#[test]
fn a_rebooted_machine_has_its_keyboard_watched_again() {
    let mut t = setup(false);
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    t.keyboard.write_all(b"typed ahead").expect("room in the pipe");
    assert!(!press(&mut t.console));
    let serial = port();
    t.console.attach(port_of(&serial));
    assert_eq!(watched(&mut t.console), [(INPUT, true)]);
    guest_listens(&serial);
    assert!(!t.console.serve());
    assert_eq!(guest_reads(&serial), b"typed ahead");
    assert!(guest_sends(&serial, b'!'));
    assert!(!t.console.serve());
    assert_eq!(seen(&mut t.screen, 10), b"!");
}

/// A console that listens at a socket, and its first client.
fn with_client() -> (Arc<Mutex<Serial>>, Console, PathBuf, UnixStream) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("tophalf-console-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let opened = SerialTarget::Socket(path.clone()).open().expect("a socket");
    let serial = port();
    let mut console = Console::new(port_of(&serial), opened);
    let client = UnixStream::connect(&path).expect("somebody listens");
    console.arrive();
    (serial, console, path, client)
}

/// The next client is heard.
fn next_is_let_in(console: &mut Console, serial: &Mutex<Serial>, path: &Path) {
    assert!(watched(console).contains(&(Place::Arrival, true)), "somebody may come");
    let mut next = UnixStream::connect(path).expect("somebody listens");
    console.arrive();
    while console.serve() {}
    assert!(guest_sends(serial, b'!'));
    while console.serve() {}
    let mut byte = [0];
    next.read_exact(&mut byte).expect("it is there");
    next.set_nonblocking(true).expect("a socket");
    while byte != *b"!" {
        next.read_exact(&mut byte).expect("it is there");
    }
}

/// It kept everybody else out: nothing was watched that would have told.
#[test]
fn a_client_that_sent_too_much_and_left_makes_room() {
    let (serial, mut console, path, mut client) = with_client();
    client.set_nonblocking(true).expect("a socket");
    let mut sent = 0_usize;
    while let Ok(count) = client.write(&[b'x'; CHUNK]) {
        sent += count;
        assert!(!press(&mut console));
    }
    assert_eq!(console.held.len(), INPUT_HELD);
    assert!(sent > INPUT_HELD);
    let input = console.input.as_ref().expect("a client").file.as_raw_fd();
    let changes = console.watch_changes();
    let change = changes.iter().find(|change| change.place == INPUT).expect("it was not watched before");
    assert_eq!((change.fd, change.to), (input, Some(Interest::HangUp)));
    drop(client);
    assert!(!press(&mut console), "no reads are wanted");
    assert!(!console.serve());
    assert_eq!(console.held.len(), sent, "all of it is for the guest");
    next_is_let_in(&mut console, &serial, &path);
}

/// The end is first noticed by a write.
#[test]
fn a_client_that_can_not_be_written_to_makes_room() {
    let (serial, mut console, path, mut client) = with_client();
    client.write_all(b"last").expect("somebody listens");
    drop(client);
    assert!(guest_sends(&serial, b'?'));
    while console.serve() {}
    assert!(console.input.is_none() && console.output.is_none());
    guest_listens(&serial);
    assert!(!console.serve());
    assert_eq!(guest_reads(&serial), b"last");
    next_is_let_in(&mut console, &serial, &path);
}

/// A virtio console without a transport.
struct Bare(Mutex<(VirtioConsole, Common)>);

impl Serve<VirtioConsole> for Bare {
    fn serve(&self, work: &mut dyn FnMut(&mut VirtioConsole, &mut Common)) {
        let (console, common) = &mut *self.0.lock();
        work(console, common);
    }
}

impl Bare {
    fn new() -> Arc<Self> {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 0x1000)]).expect("memory");
        let console = VirtioConsole::new(vec![None]);
        let common = Common::new(&console, memory);
        Arc::new(Self(Mutex::new((console, common))))
    }

    fn port(self: &Arc<Self>) -> Port {
        Port::of_virtio(Arc::clone(self) as _, 0)
    }

    /// The size that its configuration has: columns, rows.
    fn size(&self) -> (u8, u8) {
        let mut config = [0; 4];
        self.0.lock().0.read_config(0, &mut config);
        (config[0], config[2])
    }
}

fn stty(terminal: &File, rows: u8, columns: u8) {
    let size = ["rows", &rows.to_string(), "columns", &columns.to_string()].map(str::to_owned);
    let terminal = terminal.try_clone().expect("a descriptor");
    assert!(Command::new("stty").args(size).stdin(terminal).status().is_ok_and(|status| status.success()));
}

/// The other side of a console on a pseudo-terminal is opened.
fn opened(path: &str) -> File {
    File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).expect("its other side")
}

#[test]
fn the_size_of_a_pseudo_terminal_is_told_when_somebody_comes_goes_or_types() {
    let device = Bare::new();
    let mut path = String::new();
    let announce = |line: &str| path = line.split(' ').next_back().unwrap_or_default().to_owned();
    let mut console = Console::open(&SerialTarget::Pty, "the port", device.port(), announce).expect("a terminal");
    assert_eq!(device.size(), (0, 0));
    console.arrive();
    stty(&opened(&path), 43, 132);
    assert_eq!(device.size(), (0, 0), "nothing is looked at without an event");
    console.arrive();
    assert_eq!(device.size(), (132, 43));

    let mut client = opened(&path);
    console.arrive();
    stty(&client, 24, 80);
    client.write_all(b"k").expect("room");
    assert!(!press(&mut console));
    assert_eq!(device.size(), (80, 24));
    drop(client);
    console.arrive();
    assert_eq!(device.size(), (80, 24), "as it was last");

    // The machine resets: its device is another.
    console.detach();
    stty(&opened(&path), 50, 100);
    let next = Bare::new();
    console.attach(next.port());
    assert_eq!((next.size(), device.size()), ((100, 50), (80, 24)));
}

#[test]
fn the_size_of_the_screen_is_told_when_it_is_asked_for() {
    let pty = sys::pty::Pty::open().expect("a pseudo-terminal");
    let screen = opened(&pty.path().to_string_lossy());
    let device = Bare::new();
    let mut console = Console::on_files(device.port(), screen.try_clone().expect("a descriptor"), screen);
    stty(pty.master(), 43, 132);
    console.tell_size();
    assert_eq!(device.size(), (132, 43));
    // What is no terminal has no size, nor has a file that the user does not see.
    stty(pty.master(), 24, 80);
    console.screen = false;
    console.tell_size();
    assert_eq!(device.size(), (132, 43));
    let mut t = setup(false);
    t.console.attach(device.port());
    assert_eq!(device.size(), (132, 43));
}
