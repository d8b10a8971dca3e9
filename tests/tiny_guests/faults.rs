//! Interrupts while what the guest does all the time is to leave it: exits whose completion may raise an exception, which
//! beats a queued interrupt, and which KVM then forgets.

use iced_x86::code_asm::*;
use x86::apic::reg;
use x86::platform;

use crate::chips::{Mode, NMI, x2apic_msr};
use crate::guest::{Cell, Guest, asm};
use crate::program::{Report, can_run, report};

const VECTOR: u8 = 0x70;
const INTERRUPTS: u32 = 300;
/// The one-shot's count in nanoseconds: long enough for a few turns in between, on slow hosts too.
const TIMER: u32 = 1_000_000;
/// The serial port's pin, edge-triggered here: an edge that is lost is one for good.
const SERIAL_PIN: u8 = 4;
/// General protection.
const GP: u8 = 13;
/// RFLAGS: trap flag.
const TRAP: i32 = 1 << 8;

/// Where the interrupts come from that must not be lost: each source sends the next one only when the last was counted.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The CPU's own timer, one-shot, armed again by the handler.
    Timer,
    /// The other CPU.
    Ipi,
    /// The serial port, as fast as it goes: its transmitter is empty, and the handler writes the next byte.
    Device,
}

impl Source {
    const ALL: [Self; 3] = [Self::Timer, Self::Ipi, Self::Device];
}

/// Runs `body` over and over on the bootstrap processor until all interrupts were counted. The report has "interrupts"
/// and "turns".
fn interrupts_during(
    mode: Mode,
    source: Source,
    set_up: impl FnOnce(&mut Guest),
    body: impl FnOnce(&mut Guest),
) -> Report {
    let guest = Guest::image_with_apic(mode, |g| {
        let (count, turns) = (g.cell(), g.cell());
        g.handler(VECTOR, |g| {
            asm!(g; inc count.q(););
            g.eoi();
            match source {
                Source::Timer => g.apic_write(reg::TIMER_INITIAL, TIMER),
                Source::Ipi => {}
                Source::Device => {
                    // Reading why it asks quiets it; the byte, an empty line, has it ask again.
                    g.in8(platform::COM1 + 2);
                    g.out8(platform::COM1, b'\n');
                }
            }
        });
        let online = g.application_processors(|g| send_one_by_one(g, count));
        set_up(g);
        asm!(g; sti;);
        match source {
            Source::Timer => {
                g.apic_write(reg::TIMER_DIVIDE, 0b1011);
                g.apic_write(reg::LVT_TIMER, VECTOR.into());
                g.apic_write(reg::TIMER_INITIAL, TIMER);
            }
            Source::Ipi => g.start_all(2, online),
            Source::Device => {
                g.ioapic_entry(SERIAL_PIN, VECTOR.into(), 0);
                g.out8(platform::COM1 + 4, 0x08);
                g.out8(platform::COM1 + 1, 2);
            }
        }
        let top = g.here();
        body(g);
        asm!(g; inc turns.q(); cmp count.q(), INTERRUPTS as i32; jb top; cli;);
        // The trap flag off, if it was on.
        asm!(g; pushfq; and dword_ptr(rsp), !TRAP; popfq;);
        g.out8(platform::COM1 + 1, 0);
        g.report("turns", turns);
        g.report("interrupts", count);
    });
    report(&guest, &["--cpus", "2"])
}

/// Sends the next IPI when the last one was counted.
fn send_one_by_one(g: &mut Guest, count: Cell) {
    asm!(g; xor ebx, ebx;);
    let top = g.here();
    g.ipi(0, VECTOR.into());
    asm!(g; inc rbx;);
    g.spin_until(count, None);
    asm!(g; cmp ebx, INTERRUPTS; jb top;);
}

fn assert_none_lost(report: &Report) {
    // That the loop ended says it; that it was interrupted in many places makes it worth saying.
    assert!(report.get("interrupts") >= u64::from(INTERRUPTS), "{report:?}");
    assert!(report.get("turns") >= u64::from(INTERRUPTS) / 10, "{report:?}");
}

/// Red when: `deliver` injects without asking `injection_safe`, or that forgets `msr_error`.
#[test]
fn none_is_lost_to_general_protection_faults_of_msr_writes() {
    if !can_run() {
        return;
    }
    if !Mode::all().contains(&Mode::X2Apic) {
        return;
    }
    for source in Source::ALL {
        let report = interrupts_during(
            Mode::X2Apic,
            source,
            |g| {
                // Passes over the two-byte instruction; RDI counts.
                g.raw_handler(GP, |g| asm!(g; add rsp, 8; add qword_ptr(rsp), 2; inc rdi; iretq;));
                asm!(g; xor edi, edi;);
            },
            |g| {
                let before = g.cell();
                let mut all = g.label();
                asm!(g; mov before.q(), rdi;);
                // Reserved bits, a read-only register, an absent one.
                for (msr, low, high) in [
                    (x2apic_msr(reg::EOI), 1, 0),
                    (x2apic_msr(reg::TPR), 0x100, 0),
                    (x2apic_msr(reg::ICR_LOW), 1 << 13, 0),
                    (x2apic_msr(reg::SVR), 0x1ff, 1),
                    (x2apic_msr(reg::ID), 0, 0),
                    (x2apic_msr(reg::DFR), 0, 0),
                ] {
                    asm!(g; mov ecx, msr; mov eax, low; mov edx, high; wrmsr;);
                }
                asm!(g; mov rax, rdi; sub rax, before.q(); cmp rax, 6; je all; ud2;);
                g.place(&mut all);
            },
        );
        assert_none_lost(&report);
    }
}

/// Red when: completing a read drops its answer, or the loop enters with an interrupt queued for an entry that does not end
/// at an instruction boundary.
#[test]
fn none_is_lost_to_port_and_memory_accesses() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        for source in Source::ALL {
            let buffer = 0x30_0000_u64;
            let report = interrupts_during(
                mode,
                source,
                |_| {},
                |g| {
                    let mut right = g.label();
                    // The scratch register must read back, however the accesses are interrupted.
                    g.out8(platform::COM1 + 7, 0xa5);
                    asm!(g; mov dx, u32::from(platform::COM1 + 7); mov rdi, buffer; mov ecx, 5;);
                    g.a.rep().insb().expect("assembles");
                    asm!(g; mov rdi, buffer; cmp dword_ptr(rdi), 0xa5a5_a5a5_u32 as i32; je right; ud2;);
                    g.place(&mut right);
                    // Read, change, write back; and across the end of a page, which takes two exits each.
                    asm!(g; mov dword_ptr(r14), 0; add dword_ptr(r14), 1; mov rax, 0xd000_0ffdu64; mov ecx, dword_ptr(rax);
                    mov dword_ptr(rax), ecx;);
                },
            );
            assert_none_lost(&report);
        }
    }
}

/// A debugger in the guest: #DB after each instruction, exits included.
///
/// Red when: `injection_safe` forgets the trap flag.
#[test]
fn none_is_lost_to_single_step_traps() {
    if !can_run() {
        return;
    }
    let features = kvm::Kvm::open().and_then(|kvm| kvm::probe::HostFeatures::probe(&kvm));
    if !features.is_ok_and(|features| features.exact_interrupt_window) {
        println!("SKIPPED: on this host we step the guest ourselves, and KVM then drops the guest's own trap flag");
        return;
    }
    for source in Source::ALL {
        let report = interrupts_during(
            Mode::XApic,
            source,
            |g| {
                g.raw_handler(1, |g| asm!(g; inc rdi; iretq;));
                asm!(g; xor edi, edi; pushfq; or dword_ptr(rsp), TRAP; popfq;);
            },
            |g| {
                let before = g.cell();
                let mut trapped = g.label();
                asm!(g; mov before.q(), rdi;);
                g.out8(platform::POST, 0);
                asm!(g; mov eax, dword_ptr(r14); mov dword_ptr(r14), eax; mov ecx, x86::msr::IA32_APIC_BASE; rdmsr;);
                // It does trap.
                asm!(g; cmp rdi, before.q(); ja trapped; ud2;);
                g.place(&mut trapped);
            },
        );
        assert_none_lost(&report);
    }
}

/// Instructions with interrupts off for each one with them on.
const CLOSED: u32 = 100;

/// Interrupts on for one instruction of a hundred, where a host that interprets the guest may never see it; NMIs meanwhile.
///
/// Red when: `Steps` does nothing on such a host; it steps over what delivers an NMI or an exception, whose frame then
/// has our trap flag (the guest meets a #DB); a step over HLT is taken for a halt.
#[test]
fn none_is_lost_in_narrow_windows() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        for halting in [false, true] {
            let guest = Guest::image_with_apic(mode, |g| {
                let (count, nmis, done) = (g.cell(), g.cell(), g.cell());
                g.handler(2, |g| {
                    // The one exception of this guest, in the NMI's handler.
                    asm!(g; inc nmis.q(); ud2;);
                });
                g.raw_handler(6, |g| asm!(g; add qword_ptr(rsp), 2; iretq;));
                g.handler(VECTOR, |g| {
                    asm!(g; inc count.q(););
                    g.eoi();
                });
                let online = g.application_processors(|g| {
                    asm!(g; xor ebx, ebx;);
                    let top = g.here();
                    // Both at once, then one after the other.
                    g.ipi(0, VECTOR.into());
                    g.ipi(0, NMI);
                    asm!(g; inc rbx;);
                    g.spin_until(count, None);
                    g.spin_until(nmis, None);
                    asm!(g; cmp ebx, INTERRUPTS; jb top; mov done.q(), 1;);
                });
                g.start_all(2, online);
                let top = g.here();
                asm!(g; cli;);
                for _ in 0..CLOSED {
                    asm!(g; nop;);
                }
                asm!(g; sti;);
                if halting {
                    asm!(g; hlt;);
                } else {
                    asm!(g; nop;);
                }
                asm!(g; cli; cmp count.q(), INTERRUPTS as i32; jb top;);
                g.spin_until(nmis, INTERRUPTS);
                g.spin_until(done, 1);
                g.report("interrupts", count);
                g.report("nmis", nmis);
            });
            let report = report(&guest, &["--cpus", "2"]);
            let counts = (report.get("interrupts"), report.get("nmis"));
            assert_eq!(counts, (u64::from(INTERRUPTS), u64::from(INTERRUPTS)), "{mode:?}, halting: {halting}");
        }
    }
}
