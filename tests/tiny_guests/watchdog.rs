//! The watchdog: a guest that feeds it, and one that does not.

use iced_x86::code_asm::*;
use x86::platform;

use crate::guest::{DONE, Guest, asm};
use crate::program::{Report, can_run, exit_code, run};

/// The first device behind the host bridge.
const DEVICE: u32 = 1;
const CONFIG: u32 = 0x60;
const LOCK: u32 = 0x68;
const ENABLE: u8 = 2;
/// The fast clock, no interrupt.
const FAST: u16 = 4 | 3;
const RELOAD: u16 = 0x100;
const TIMED_OUT: u16 = 0x200;

/// Selects a configuration register. Changes RAX and RDX.
fn select(g: &mut Guest, register: u32) {
    let address = 1 << 31 | DEVICE << 11 | register;
    asm!(g; mov dx, u32::from(platform::PCI_CONFIG_ADDRESS); mov eax, address; out dx, eax; mov dx, u32::from(platform::PCI_CONFIG_DATA););
}

/// The next write of a register counts. RBX: the watchdog's memory.
fn unlock(g: &mut Guest) {
    asm!(g; mov word_ptr(rbx + 0xc), 0x80; mov word_ptr(rbx + 0xc), 0x86;);
}

fn feed(g: &mut Guest) {
    unlock(g);
    asm!(g; mov word_ptr(rbx + 0xc), u32::from(RELOAD););
}

/// Says who it is and whether it has timed out, and starts it with both stages of `preload` microseconds.
fn start(g: &mut Guest, preload: u32) {
    select(g, 0);
    asm!(g; in_ eax, dx;);
    g.report_rax("id");
    select(g, 0x10);
    asm!(g; in_ eax, dx; mov ebx, eax; movzx eax, word_ptr(rbx + 0xc););
    g.report_rax("timed out");
    select(g, CONFIG);
    asm!(g; mov ax, u32::from(FAST); out dx, ax;);
    for register in [0, 4] {
        unlock(g);
        asm!(g; mov dword_ptr(rbx + register), preload;);
    }
    select(g, LOCK);
    asm!(g; mov al, u32::from(ENABLE); out dx, al;);
}

/// Starts it with short stages and waits for what comes of it: a timeout, if the machine goes on.
fn unfed() -> Vec<u8> {
    Guest::image(|g| {
        let mut again = g.label();
        start(g, 5_000);
        // It was the cause of the reset.
        select(g, 0x10);
        asm!(g; cmp word_ptr(rbx + 0xc), u32::from(TIMED_OUT); je again;);
        let top = g.here();
        asm!(g; pause; cmp word_ptr(rbx + 0xc), u32::from(TIMED_OUT); jne top;);
        g.print("goes on\n");
        g.place(&mut again);
    })
}

/// Red when: the action of `--watchdog` does not reach the stopper; the watchdog's timeout is no timer of the main loop's CPU;
/// a reset takes the bit that says so.
#[test]
fn an_unfed_watchdog_does_what_the_user_wants() {
    if !can_run() {
        return;
    }
    let guest = unfed();
    for (options, code, goes_on) in [
        (&["--watchdog", "reset", "--no-reboot"][..], Some(32), false),
        (&["--watchdog", "reset"], exit_code(DONE), false),
        (&["--watchdog", "poweroff"], Some(0), false),
        (&["--watchdog", "dump"], exit_code(DONE), true),
        (&["--watchdog", "none"], exit_code(DONE), true),
        (&["--watchdog", "none", "--bottom-half", "watchdog=workqueue"], exit_code(DONE), true),
        (&["--watchdog", "none", "--bottom-half", "watchdog=tasklet"], exit_code(DONE), true),
    ] {
        let finished = run(&guest, options);
        assert_eq!(finished.code, code, "{options:?}: {finished:?}");
        let said = String::from_utf8_lossy(&finished.stdout);
        assert_eq!(said.contains("goes on"), goes_on, "{options:?}: {finished:?}");
        assert_eq!(Report::new(&finished).get("id"), 0x25ab_8086);
        // The last report is that of the machine after the reset.
        let reset = options == ["--watchdog", "reset"];
        assert_eq!(Report::new(&finished).get("timed out"), if reset { TIMED_OUT.into() } else { 0 }, "{options:?}");
        assert!(finished.stderr.contains("has not fed its watchdog"), "{options:?}: {finished:?}");
    }
}

/// Red when: the dump is not asked for, or its vCPUs do not answer.
#[test]
fn a_dump_says_where_the_vcpus_are() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        start(g, 5_000);
        // Until the dump has been seen.
        let top = g.here();
        g.in8(platform::COM1 + 5);
        asm!(g; test al, 1; jz top;);
    });
    let (_file, command) = crate::program::command(&guest, &["--watchdog", "dump"]);
    let mut program = crate::common::Program::start(command);
    program.stderr_line("has not fed its watchdog");
    let line = program.stderr_line("vCPU 0");
    assert!(line.contains("RIP"), "{line}");
    program.send(b"x");
    assert_eq!(program.finish().code, exit_code(DONE));
}

/// Red when: a reload does not start the first stage again.
#[test]
fn a_fed_watchdog_is_quiet() {
    if !can_run() {
        return;
    }
    const MOST: u32 = 0xf_ffff;
    let guest = Guest::image(|g| {
        start(g, MOST);
        g.wait_pm_ticks(1000);
        asm!(g; mov ecx, 100;);
        let top = g.here();
        feed(g);
        asm!(g; dec ecx; jnz top; movzx eax, word_ptr(rbx + 0xc););
        g.report_rax("after");
        // Not locked, it can be stopped.
        select(g, LOCK);
        asm!(g; xor eax, eax; out dx, al;);
    });
    let finished = run(&guest, &["--watchdog", "reset", "--no-reboot"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(DONE), ""), "{finished:?}");
    assert_eq!(Report::new(&finished).get("after"), 0);
}

/// Red when: it is there without `--watchdog`.
#[test]
fn there_is_no_watchdog_unless_it_is_asked_for() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        select(g, 0);
        asm!(g; in_ eax, dx;);
        g.report_rax("id");
    });
    let finished = run(&guest, &[]);
    assert_eq!(Report::new(&finished).get("id"), 0xffff_ffff);
}
