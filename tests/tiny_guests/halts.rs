//! All vCPUs halted for good: the end of the program, or not.

use iced_x86::code_asm::*;

use crate::chips::{MASKED, Mode, NMI};
use crate::guest::{Guest, asm};
use crate::program::{can_run, report, run};

/// Exit code when all vCPUs have halted for good.
const HALTED: Option<i32> = Some(38);

fn halt_for_good(g: &mut Guest) {
    let top = g.here();
    asm!(g; cli; hlt; jmp top;);
}

/// With application processors that were never started, and with some that halt as well.
///
/// Red when: `Rest` counts a vCPU wrongly; the last output is not drained.
#[test]
fn all_vcpus_halted_with_interrupts_off_end_with_38() {
    if !can_run() {
        return;
    }
    for (cpus, started) in [("1", false), ("3", false), ("3", true)] {
        let guest = Guest::image_with_apic(Mode::XApic, |g| {
            let online = g.application_processors(halt_for_good);
            if started {
                g.start_all(3, online);
            }
            g.print("bye");
            halt_for_good(g);
        });
        let finished = run(&guest, &["--cpus", cpus]);
        assert_eq!((finished.code, finished.stdout.as_slice()), (HALTED, &b"bye"[..]), "{finished:?}");
        assert!(finished.stderr.contains("--on-halt wait") && finished.stderr.lines().count() == 1, "{finished:?}");
    }
}

/// Red when: a halted vCPU that takes interrupts counts as at its end.
#[test]
fn a_halt_that_an_interrupt_can_end_is_not_for_good() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let online = g.application_processors(halt_for_good);
        let woken = g.cell();
        g.handler(0x50, |g| {
            asm!(g; inc woken.q(););
            g.eoi();
        });
        g.start_all(2, online);
        g.ioapic_entry(2, 0x50, 0);
        g.pit(0, 20_000);
        g.halt_until(woken, 1);
    });
    report(&guest, &["--cpus", "2"]);
}

/// The watchdog of old kernels: the timer as an NMI. With the pin masked there is no such watchdog.
///
/// Red when: `can_give_nmi` does not look at the pins, or at their masks.
#[test]
fn a_halt_that_a_device_ends_by_nmi_is_not_for_good() {
    if !can_run() {
        return;
    }
    for masked in [false, true] {
        let guest = Guest::image_with_apic(Mode::XApic, |g| {
            g.handler(2, |g| g.exit(5));
            g.ioapic_entry(2, NMI | if masked { MASKED } else { 0 }, 0);
            g.pit(0, 20_000);
            halt_for_good(g);
        });
        let finished = run(&guest, &[]);
        assert_eq!(finished.code, if masked { HALTED } else { Some(11) }, "{finished:?}");
    }
}

/// Two vCPUs wake each other by NMI and halt at once: each may be the last to rest while the other's NMI is on its way.
/// The handler of an NMI that comes before its HLT skips it.
///
/// Red when: `Rest::begin` does not look at the mailboxes, or `Rest::end` comes after the mailbox was emptied.
#[test]
fn an_nmi_on_its_way_is_not_the_end() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 300;
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (mut check, mut out) = (g.label(), g.label());
        let (ready, woken) = (g.cell(), g.cells(2));
        let sleep = g.aside(|g| {
            g.place(&mut check);
            asm!(g; cmp woken.mine(), 0; jne out; hlt;);
            g.place(&mut out);
            asm!(g; mov woken.mine(), 0; ret;);
        });
        g.handler(2, |g| {
            // Five registers are above the return address.
            let mut elsewhere = g.label();
            asm!(g;
                mov woken.mine(), 1;
                mov rax, qword_ptr(rsp + 5 * 8);
                lea rcx, ptr(check);
                lea rdx, ptr(out);
                cmp rax, rcx;
                jb elsewhere;
                cmp rax, rdx;
                jae elsewhere;
                mov qword_ptr(rsp + 5 * 8), rdx;
            );
            g.place(&mut elsewhere);
        });
        let online = g.application_processors(|g| {
            g.times(ROUNDS, |g| {
                asm!(g; mov ready.q(), 1;);
                asm!(g; call sleep;);
                g.ipi(0, NMI);
            });
            halt_for_good(g);
        });
        g.start_all(2, online);
        g.spin_until(ready, 1);
        g.times(ROUNDS, |g| {
            g.ipi(1, NMI);
            asm!(g; call sleep;);
        });
    });
    report(&guest, &["--cpus", "2"]);
}
