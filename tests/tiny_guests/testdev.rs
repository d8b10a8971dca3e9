//! The devices of `--testdev`, as a guest sees them.

use iced_x86::code_asm::*;
use x86::platform;

use crate::chips::Mode;
use crate::guest::{Cell, Guest, asm};
use crate::program::{can_run, report};

const VECTOR: u8 = 0x50;
/// A line that no device of the machine holds.
const LINE: u8 = 11;

/// Reads a port of this width into EAX, zero-extended, and reports it.
fn report_port(g: &mut Guest, name: &str, port: u16, width: u32) {
    asm!(g; mov dx, u32::from(port); xor eax, eax;);
    match width {
        1 => asm!(g; in_ al, dx;),
        2 => asm!(g; in_ ax, dx;),
        _ => asm!(g; in_ eax, dx;),
    }
    g.report_rax(name);
}

/// Selects an item of `fw_cfg` and reports its first bytes.
fn report_item(g: &mut Guest, name: &str, key: u16, bytes: u32) {
    asm!(g; mov dx, u32::from(platform::FW_CFG); mov ax, u32::from(key); out dx, ax;);
    asm!(g; mov dx, u32::from(platform::FW_CFG + 1); xor ebx, ebx;);
    for at in 0..bytes {
        asm!(g; xor eax, eax; in_ al, dx; shl rax, 8 * at; or rbx, rax;);
    }
    asm!(g; mov rax, rbx;);
    g.report_rax(name);
}

fn out(g: &mut Guest, port: u16, value: u32) {
    asm!(g; mov dx, u32::from(port); mov eax, value; out dx, eax;);
}

fn touch_all(g: &mut Guest) {
    out(g, platform::TEST_SCRATCH, 0x4433_2211);
    g.out8(platform::TEST_SCRATCH + 1, 0x99);
    report_port(g, "dword", platform::TEST_SCRATCH, 4);
    report_port(g, "word", platform::TEST_SCRATCH + 2, 2);
    report_port(g, "byte", platform::TEST_SCRATCH, 1);
    out(g, platform::TEST_SCRATCH_BYTES, 0x8877_6655);
    report_port(g, "bytes", platform::TEST_SCRATCH_BYTES + 2, 1);
    for (name, key, bytes) in [("signature", 0, 4), ("cpus", 5, 2), ("most", 15, 2), ("ram", 3, 8), ("cmdline", 21, 4)]
    {
        report_item(g, name, key, bytes);
    }
}

/// Red when: a port is not where it should be, or the command line's `--testdev` does not reach the wiring.
#[test]
fn scratch_ports_and_fw_cfg() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(touch_all);
    let report = report(&guest, &["--testdev", "--cpus", "3", "--cmdline", "abc"]);
    assert_eq!((report.get("dword"), report.get("word"), report.get("byte")), (0x4433_9911, 0x4433, 0x11));
    assert_eq!(report.get("bytes"), 0x77);
    assert_eq!(report.get("signature"), u64::from(u32::from_le_bytes(*b"QEMU")));
    assert_eq!((report.get("cpus"), report.get("most"), report.get("ram")), (3, 3, 64 << 20));
    assert_eq!(report.get("cmdline"), u64::from(u32::from_le_bytes(*b"abc\0")));
}

/// Red when: a device of `--testdev` is there without it.
#[test]
fn without_the_option_there_is_nothing() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        touch_all(g);
        asm!(g; mov ebx, platform::TEST_MEMORY as u32; mov dword_ptr(rbx), 1; mov eax, dword_ptr(rbx););
        g.report_rax("memory");
        report_port(g, "line", platform::TEST_IRQ_LINES, 1);
    });
    let report = report(&guest, &[]);
    for (name, width) in [("dword", 4), ("word", 2), ("byte", 1), ("bytes", 1), ("memory", 4), ("line", 1), ("ram", 8)]
    {
        assert_eq!(report.get(name), u64::MAX >> (64 - 8 * width), "{name}");
    }
}

/// Red when: the ports are wired to other lines, or a rise comes more than once.
#[test]
fn a_byte_raises_a_line_and_lowers_it() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let count = g.cell();
        g.handler(VECTOR, |g| {
            asm!(g; inc count.q(););
            g.eoi();
        });
        // The 8259A pair gets the line too; KVM's passes it on without having been initialized.
        g.pic(0xff, 0xff);
        g.ioapic_entry(LINE, u32::from(VECTOR), 0);
        asm!(g; sti;);
        for round in 1..=5 {
            g.out8(platform::TEST_IRQ_LINES + u16::from(LINE), 1);
            g.halt_until(count, round);
            // Set again it is no edge.
            g.out8(platform::TEST_IRQ_LINES + u16::from(LINE), 2);
            report_port(g, "high", platform::TEST_IRQ_LINES + u16::from(LINE), 1);
            g.out8(platform::TEST_IRQ_LINES + u16::from(LINE), 0);
        }
        g.report("count", count);
        report_port(g, "low", platform::TEST_IRQ_LINES + u16::from(LINE), 1);
    });
    for mode in ["user", "split", "kernel"] {
        let report = report(&guest, &["--testdev", "--irqchip", mode]);
        let seen = (report.get("count"), report.get("high"), report.get("low"));
        assert_eq!(seen, (5, 1, 0), "--irqchip {mode}");
    }
}

/// Stores and loads of every width, a string move, and read-modify-write with a lock, all emulated.
///
/// Red when: the memory is not where it should be, or not all of it is there.
#[test]
fn scratch_memory_can_be_used_by_any_instruction() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let (source, copy) = (g.cells(4), g.cells(4));
        let fill = |g: &mut Guest, cell: Cell| asm!(g; mov rax, 0x0807_0605_0403_0201_u64; mov cell.q(), rax;);
        asm!(g; mov ebx, platform::TEST_MEMORY as u32;);
        asm!(g; mov byte_ptr(rbx), 0x11; mov word_ptr(rbx + 2), 0x2222; mov dword_ptr(rbx + 4), 0x3333_3333;);
        asm!(g; mov rax, qword_ptr(rbx););
        g.report_rax("mixed");
        asm!(g; mov ebx, platform::TEST_MEMORY as u32; mov qword_ptr(rbx + 0xfff8), 5;);
        g.a.lock().add(dword_ptr(rbx + 0xfff8), 2).expect("assembles");
        asm!(g; mov rax, qword_ptr(rbx + 0xfff8););
        g.report_rax("last");
        for index in 0..4 {
            fill(g, source.at(index));
        }
        let there = platform::TEST_MEMORY + 0x100;
        for (from, to) in [(source.address(), there), (there, copy.address())] {
            asm!(g; cld; mov rsi, from; mov rdi, to; mov ecx, 4;);
            g.a.rep().movsq().expect("assembles");
        }
        g.report("copied", copy.at(3));
    });
    let report = report(&guest, &["--testdev"]);
    assert_eq!(report.get("mixed"), 0x3333_3333_2222_0011);
    assert_eq!((report.get("last"), report.get("copied")), (7, 0x0807_0605_0403_0201));
}

/// Red when: flushing loses what is in the page, or what is no memory does harm.
#[test]
fn a_flushed_page_keeps_its_contents() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let cell = g.cell();
        asm!(g; mov rax, 0x1234_5678_u64; mov cell.q(), rax;);
        for address in [cell.address() as u32, 0x10_0000, 0, 0xb_8000, 0xd000_0000, u32::MAX] {
            out(g, platform::TEST_FLUSH, address);
            asm!(g; inc cell.q(););
        }
        g.report("cell", cell);
    });
    assert_eq!(report(&guest, &["--testdev"]).get("cell"), 0x1234_567e);
}
