//! The test agent's reports, and a reader of them that does not read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use iced_x86::code_asm::*;
use x86::agent;

use crate::chips::Mode;
use crate::common::{Program, Scratch};
use crate::guest::{DONE, Guest, asm};
use crate::program::{can_run, command, exit_code};

/// Where the request is, and its samples.
const REQUEST: u64 = 0x30_0000;
const SAMPLES: u64 = 0x31_0000;
const PAIR_BYTES: u64 = 16;
/// Reports of the guest, each more than twice what a pipe holds: whoever writes the first one is stuck in it.
const REPORTS: usize = 5;

/// A FIFO of this test alone.
fn fifo() -> Scratch {
    let name = Scratch::name();
    let made = Command::new("mkfifo").arg(name.path()).status();
    assert!(made.is_ok_and(|status| status.success()));
    name
}

/// Says "." and reports as many samples as there may be, [`REPORTS`] times.
fn reporter() -> Vec<u8> {
    Guest::image_with_apic(Mode::XApic, |g| {
        let bytes = agent::SAMPLES_MAX * PAIR_BYTES;
        asm!(g; mov edi, SAMPLES as u32; mov ecx, bytes as u32; mov al, u32::from(b'x'););
        g.a.rep().stosb().expect("assembles");
        asm!(g; mov dword_ptr(REQUEST), agent::Op::Samples as u32;);
        // Name and its length, samples and their number.
        for (argument, value) in (1..).zip([SAMPLES, 4, SAMPLES, agent::SAMPLES_MAX]) {
            asm!(g; mov rax, value; mov qword_ptr(REQUEST + 8 * argument), rax;);
        }
        g.times(REPORTS as u32, |g| {
            g.print(".");
            asm!(g; mov dx, u32::from(agent::PORT); mov eax, REQUEST as u32; out dx, eax;);
        });
    })
}

fn dots(stdout: &[u8]) -> usize {
    stdout.iter().filter(|&&byte| byte == b'.').count()
}

fn terminate(program: &Program) {
    let killed = Command::new("kill").args(["-TERM", &program.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
}

/// A program whose guest waits for a reader of the FIFO, which is given: it has read the first byte.
fn stuck(fifo: &Scratch) -> (Scratch, Program, File) {
    let (image, mut command) = command(&reporter(), &[]);
    command.arg("--agent").arg(fifo.path());
    let program = Program::start(command);
    // Each waits for the other to open it.
    let mut reader = File::open(fifo.path()).expect("it is there");
    let mut first = [0];
    reader.read_exact(&mut first).expect("a report has begun");
    assert_eq!(first, *b"{");
    (image, program, reader)
}

/// Red when: a vCPU's thread writes, or waits for the writer without regard to the machine's end; the program's end waits for the
/// writer.
#[test]
fn sigterm_ends_a_program_whose_reports_nobody_reads() {
    if !can_run() {
        return;
    }
    let fifo = fifo();
    let (_image, program, _reader) = stuck(&fifo);
    terminate(&program);
    let finished = program.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (None, ""), "by the signal");
    assert!(dots(&finished.stdout) <= 1, "the guest went on: {} reports", dots(&finished.stdout));
}

/// Red when: a report is not whole, or lost at the program's end.
#[test]
fn a_reader_that_reads_again_gets_all_reports() {
    if !can_run() {
        return;
    }
    let fifo = fifo();
    let (_image, program, reader) = stuck(&fifo);
    let reports: Vec<_> = BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
    let finished = program.finish();
    assert_eq!((finished.code, dots(&finished.stdout)), (exit_code(DONE), REPORTS), "{}", finished.stderr);
    let number = u64::from_le_bytes([b'x'; 8]);
    let samples = vec![format!("[{number},{number}]"); agent::SAMPLES_MAX as usize].join(",");
    let expected = format!("{{\"event\":\"samples\",\"name\":\"xxxx\",\"samples\":[{samples}]}}");
    let whole = |(index, report): (usize, &String)| *report == expected[usize::from(index == 0)..];
    assert!(reports.len() == REPORTS && reports.iter().enumerate().all(whole), "{} reports", reports.len());
}

/// Red when: the FIFO is opened once signals are taken over.
#[test]
fn sigterm_ends_a_program_that_waits_for_a_reader() {
    if !can_run() {
        return;
    }
    let fifo = fifo();
    let (_image, mut command) = command(&reporter(), &["-v"]);
    command.arg("--agent").arg(fifo.path());
    let mut program = Program::start(command);
    program.stderr_line("waiting for somebody who reads the FIFO");
    terminate(&program);
    let finished = program.finish();
    assert_eq!((finished.code, finished.stdout.as_slice()), (None, &b""[..]), "by the signal: {}", finished.stderr);
}
