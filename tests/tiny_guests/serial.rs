//! The serial port between a guest and the program's standard streams.

use std::process::{Command, Stdio};

use iced_x86::code_asm::*;
use x86::platform::COM1;

use crate::chips::Mode;
use crate::common::{self, LIMIT, Program};
use crate::guest::{Guest, asm};
use crate::program::{can_run, command, exit_code, report, run};

const VECTOR: u8 = 0x50;
const IER: u16 = COM1 + 1;
const IIR: u16 = COM1 + 2;
const MCR: u16 = COM1 + 4;
const LSR: u16 = COM1 + 5;
const THR_EMPTY: u8 = 1 << 5;
/// DTR, RTS, OUT2: listening, with its interrupt.
const MCR_READY: u8 = 0x0b;

/// Waits until the transmitter is empty. Changes RAX and RDX.
fn wait_for_room(g: &mut Guest) {
    let top = g.here();
    g.in8(LSR);
    asm!(g; test al, i32::from(THR_EMPTY); jz top;);
}

/// Every byte value, single bytes and string output, and much more than any buffer on the way holds.
///
/// Red when: a byte is translated on its way; `PioOut` takes a string's elements for one write; output beyond the
/// buffer's size is dropped although the guest looked at LSR.
#[test]
fn output_appears_byte_for_byte() {
    if !can_run() {
        return;
    }
    const BURSTS: u32 = 8192;
    let all: Vec<u8> = (0..=255).collect();
    let burst = b"0123456789abcde\n";
    let guest = Guest::image(|g| {
        let text = g.aside(|g| asm!(g; db burst;));
        asm!(g; xor ebx, ebx;);
        let top = g.here();
        wait_for_room(g);
        asm!(g; mov dx, u32::from(COM1); mov eax, ebx; out dx, al; inc ebx; cmp ebx, 256; jb top;);
        g.times(BURSTS, |g| {
            wait_for_room(g);
            asm!(g; mov dx, u32::from(COM1); lea rsi, ptr(text); mov ecx, burst.len() as u32;);
            g.a.rep().outsb().expect("assembles");
        });
    });
    let finished = run(&guest, &[]);
    assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(0), ""));
    let (head, tail) = finished.stdout.split_at(256);
    assert_eq!(head, all);
    assert_eq!(tail.len(), burst.len() * BURSTS as usize);
    assert!(tail.chunks(burst.len()).all(|chunk| chunk == burst));
}

/// One byte for each interrupt: a lost one ends it.
///
/// Red when: a byte to send does not lower the line (it is edge-triggered), or reading IIR does not.
#[test]
fn a_transmitter_interrupt_comes_for_each_byte() {
    if !can_run() {
        return;
    }
    const BYTES: u32 = 500;
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (sent, other) = (g.cell(), g.cell());
            g.handler(VECTOR, |g| {
                let (mut known, mut done) = (g.label(), g.label());
                g.in8(IIR);
                asm!(g; and eax, 0x0fu32; cmp eax, 2; je known; inc other.q(););
                g.place(&mut known);
                asm!(g; cmp sent.q(), BYTES as i32; jae done;);
                g.out8(COM1, b'x');
                asm!(g; inc sent.q(););
                g.place(&mut done);
                g.eoi();
            });
            g.ioapic_entry(4, VECTOR.into(), 0);
            g.out8(MCR, MCR_READY);
            g.out8(IER, 2);
            g.halt_until(sent, BYTES);
            asm!(g; cli;);
            g.out8(IER, 0);
            g.print("\n");
            g.report("other", other);
        });
        let (_file, command) = command(&guest, &[]);
        let finished = common::run(command, b"");
        let text = String::from_utf8_lossy(&finished.stdout);
        assert_eq!(text, format!("{}\nother={:016x}\n", "x".repeat(BYTES as usize), 0), "{mode:?}");
    }
}

/// Red when: `Serial::push_input` does not raise the line; `later` is not scheduled when there is room again; a byte typed
/// ahead of the guest's readiness is lost.
#[test]
fn input_arrives_byte_for_byte_by_interrupt() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let done = g.cell();
        g.handler(VECTOR, |g| {
            let (mut out, mut echo) = (g.label(), g.label());
            let top = g.here();
            g.in8(LSR);
            asm!(g; test al, 1; jz out;);
            g.in8(COM1);
            asm!(g; cmp al, u32::from(b'.'); jne echo; inc done.q(););
            g.place(&mut echo);
            asm!(g; mov dx, u32::from(COM1); out dx, al; jmp top;);
            g.place(&mut out);
            g.eoi();
        });
        g.ioapic_entry(4, VECTOR.into(), 0);
        g.out8(MCR, MCR_READY);
        g.out8(IER, 1);
        g.halt_until(done, 1);
    });
    // More than the receiver's FIFO holds, with all values but the one that ends it.
    let mut input: Vec<u8> = (0..3000_u32).map(|i| (i % 251) as u8).filter(|&byte| byte != b'.').collect();
    input.push(b'.');
    let (_file, command) = command(&guest, &[]);
    let mut program = Program::start(command);
    for part in input.chunks(700) {
        program.send(part);
    }
    // The end of the input comes after the guest's own end: that it ends is its own doing.
    while program.take_output() {}
    let finished = program.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(0), ""));
    assert_eq!(finished.stdout, input);
}

/// Red when: a failed write stops the console or the guest.
#[test]
fn a_guest_goes_on_without_anybody_listening() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let text = g.aside(|g| asm!(g; db &[b'x'; 64];));
        g.times(3000, |g| {
            wait_for_room(g);
            asm!(g; mov dx, u32::from(COM1); lea rsi, ptr(text); mov ecx, 64;);
            g.a.rep().outsb().expect("assembles");
        });
        g.exit(9);
    });
    let (file, _) = command(&guest, &[]);
    for redirection in [">&-", "<&-", ">/dev/full", "<&- >&-", "| true"] {
        // In a pipeline the last command's code would be the shell's.
        let script =
            format!("{{ timeout {} \"$0\" run --memory 64M \"$1\"; echo $? >&2; }} {redirection}", LIMIT.as_secs());
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_tophalf")]).arg(file.path());
        let output = shell.env_remove("RUST_LOG").stdin(Stdio::null()).output().expect("sh is there");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stderr.lines().collect();
        // One line may say that output is lost.
        assert_eq!(lines.last(), Some(&"19"), "{redirection}: {stderr}");
        assert!(lines.len() <= 2, "{redirection}: {stderr}");
    }
}

/// String input: every element is a read of its own.
///
/// Red when: `PioIn` gives all elements to one read.
#[test]
fn string_input_reads_the_port_once_an_element() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let buffer = g.cell();
        // The scratch register, then LSR eight times.
        g.out8(COM1 + 7, 0x5a);
        asm!(g; mov rdi, buffer.address(); mov ecx, 8; mov dx, u32::from(COM1 + 7););
        g.a.rep().insb().expect("assembles");
        g.report("scratch", buffer);
    });
    assert_eq!(report(&guest, &[]).get("scratch"), 0x5a5a_5a5a_5a5a_5a5a);
}
