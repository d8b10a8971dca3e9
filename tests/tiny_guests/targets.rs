//! What the serial port can be connected to, and other ends that come and go.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use iced_x86::code_asm::*;
use x86::platform::COM1;

use crate::common::{Finished, LIMIT, Program, Scratch};
use crate::guest::{Guest, asm};
use crate::program::{can_run, command, exit_code, run};

const LSR: u16 = COM1 + 5;
/// Lines of a flood, of eight bytes each.
const LINES: u32 = 8192;

/// Waits until the transmitter is empty. Changes RAX and RDX.
fn wait_for_room(g: &mut Guest) {
    let top = g.here();
    g.in8(LSR);
    asm!(g; test al, 1 << 5; jz top;);
}

/// Writes [`LINES`] lines, numbered in octal. Changes RAX, RBX, RCX, RDX and RDI.
fn flood(g: &mut Guest) {
    asm!(g; xor edi, edi;);
    let top = g.here();
    wait_for_room(g);
    asm!(g; mov ebx, edi; rol ebx, 11; mov ecx, 7; mov dx, u32::from(COM1););
    let digit = g.here();
    asm!(g; rol ebx, 3; mov eax, ebx; and eax, 7; add eax, u32::from(b'0'); out dx, al; dec ecx; jnz digit;);
    asm!(g; mov al, u32::from(b'\n'); out dx, al; inc edi; cmp edi, LINES; jb top;);
}

/// What [`flood`] writes.
fn flooded() -> Vec<u8> {
    (0..LINES).flat_map(|line| format!("{line:07o}\n").into_bytes()).collect()
}

/// A guest that floods, says hello, and answers each byte: `f` with a flood and "done", `q` with its end, others with
/// themselves.
fn answering() -> Vec<u8> {
    Guest::image(|g| {
        let (mut quit, mut more) = (g.label(), g.label());
        flood(g);
        g.print("hello\n");
        // Listening.
        g.out8(COM1 + 4, 3);
        let top = g.here();
        g.in8(LSR);
        asm!(g; test al, 1; jz top;);
        g.in8(COM1);
        asm!(g; cmp al, u32::from(b'q'); je quit; cmp al, u32::from(b'f'); je more;);
        asm!(g; mov dx, u32::from(COM1); out dx, al; jmp top;);
        g.place(&mut more);
        flood(g);
        g.print("done\n");
        asm!(g; jmp top;);
        g.place(&mut quit);
    })
}

/// Reads until `text` has come.
fn read_until(client: &mut impl Read, text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(text.as_bytes()) {
        let mut buffer = [0; 4096];
        match client.read(&mut buffer) {
            Ok(count @ 1..) => all.extend(&buffer[..count]),
            end => panic!("{end:?} before {text:?}, after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    all
}

/// Connects as soon as the program listens.
fn connect(program: &mut Program, path: &Scratch) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path.path()) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT)).expect("a socket has a time-out");
                return stream;
            }
            Err(e) if start.elapsed() > LIMIT || program.child.try_wait().is_ok_and(|end| end.is_some()) => {
                panic!("nobody listens: {e}")
            }
            Err(_) => thread::yield_now(),
        }
    }
}

fn assert_done(finished: &Finished) {
    assert_eq!((finished.code, finished.stdout.as_slice()), (exit_code(0), &b""[..]), "{finished:?}");
}

/// Red when: the file is not emptied; output goes anywhere else, or is not whole at the end.
#[test]
fn a_file_has_all_output() {
    if !can_run() {
        return;
    }
    let path = Scratch::file(&[b'?'; 1 << 20]);
    let option = format!("file:{}", path.path().display());
    let finished = run(&Guest::image(flood), &["--serial", &option]);
    assert_done(&finished);
    assert_eq!(finished.stderr, "");
    assert!(fs::read(path.path()).expect("it is there") == flooded());
}

/// Red when: the port is not drained without a console.
#[test]
fn null_takes_everything_and_gives_nothing() {
    if !can_run() {
        return;
    }
    let finished = run(&Guest::image(flood), &["--serial", "null"]);
    assert_done(&finished);
    assert_eq!(finished.stderr, "");
}

/// Red when: output before the first client is lost; the flood stops when a client goes; who comes again is not let in;
/// the socket's file is left behind.
#[test]
fn a_socket_takes_one_client_after_the_other() {
    if !can_run() {
        return;
    }
    let path = Scratch::name();
    let option = format!("socket:{}", path.path().display());
    let (_file, command) = command(&answering(), &["--serial", &option]);
    let mut program = Program::start(command);

    let mut first = connect(&mut program, &path);
    let text = read_until(&mut first, "hello\n");
    assert!(text == [flooded(), b"hello\n".to_vec()].concat(), "all from the start");
    first.write_all(b"a").expect("it reads");
    assert_eq!(read_until(&mut first, "a"), b"a");
    first.write_all(b"f").expect("it reads");
    drop(first);

    // Whatever went to the first before it was gone, the rest waits for the second.
    let mut second = connect(&mut program, &path);
    let text = read_until(&mut second, "done\n");
    assert!([flooded(), b"done\n".to_vec()].concat().ends_with(&text), "the rest in order");
    // A third one waits for its turn.
    let mut third = connect(&mut program, &path);
    third.write_all(b"c").expect("it reads, some time");
    second.write_all(b"b").expect("it reads");
    assert_eq!(read_until(&mut second, "b"), b"b");
    // One that has only stopped writing is still there.
    second.write_all(b"f").expect("it reads");
    second.shutdown(std::net::Shutdown::Write).expect("it is connected");
    assert!(read_until(&mut second, "done\n").starts_with(b"0000000\n"));
    drop(second);
    assert_eq!(read_until(&mut third, "c"), b"c");
    third.write_all(b"q").expect("it reads");
    let finished = program.finish();
    assert_done(&finished);
    assert_eq!(finished.stderr, "");
    assert!(!path.path().exists(), "the socket's file is gone");
    let mut rest = Vec::new();
    third.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"");
}

/// A file that a program has left behind when it was killed is no obstacle.
///
/// Red when: `is_left_over` is not asked.
#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    if !can_run() {
        return;
    }
    let path = Scratch::name();
    drop(std::os::unix::net::UnixListener::bind(path.path()).expect("a socket"));
    let option = format!("socket:{}", path.path().display());
    let finished = run(&Guest::image(|g| g.print("x")), &["--serial", &option]);
    assert_done(&finished);
    assert_eq!(finished.stderr, "");
}

/// Red when: what is written is echoed; nobody at the other side stops the guest, or loses what waits; the last output is
/// thrown away when the program ends.
#[test]
fn a_pty_says_where_it_is_and_may_be_opened_again() {
    if !can_run() {
        return;
    }
    let (_file, command) = command(&answering(), &["--serial", "pty"]);
    let mut program = Program::start(command);
    let place = "the serial port is at ";
    let line = program.stderr_line(place);
    let path = PathBuf::from(line.split_once(place).expect("just found").1);
    let open = || File::options().read(true).write(true).open(&path).expect("the path is right");

    let mut first = open();
    let text = read_until(&mut first, "hello\n");
    assert!(text == [flooded(), b"hello\n".to_vec()].concat(), "all from the start");
    first.write_all(b"\x01a\x03\r").expect("it reads");
    assert_eq!(read_until(&mut first, "\r"), b"\x01a\x03\r", "every byte is the guest's");
    first.write_all(b"f").expect("it reads");
    drop(first);

    let mut second = open();
    let text = read_until(&mut second, "done\n");
    assert!([flooded(), b"done\n".to_vec()].concat().ends_with(&text), "the rest in order");
    second.write_all(b"fq").expect("it reads");
    let text = read_until(&mut second, "done\n");
    assert!(text == [flooded(), b"done\n".to_vec()].concat(), "the last of it, too");
    let finished = program.finish();
    assert_done(&finished);
}
