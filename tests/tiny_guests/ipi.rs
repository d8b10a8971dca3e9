//! Interprocessor interrupts, between CPUs and from one to itself.

use iced_x86::code_asm::*;
use x86::apic::reg;

use crate::chips::{Mode, NMI};
use crate::guest::{Cell, Guest, asm};
use crate::program::{can_run, report};
use crate::smp::{ALL_BUT_SELF, INIT, LOGICAL, LOWEST_PRIORITY, MYSELF, START_UP};

const VECTOR: u8 = 0x60;
const PING: u8 = 0x61;
const PONG: u8 = 0x62;

/// Red when: `VcpuThread::collect` drops a start-up; CPUID leaf 1 or the APIC's register has another CPU's ID; an AP
/// counts itself twice because the second start-up is taken.
#[test]
fn init_and_start_up_bring_every_cpu_up_once() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        for cpus in [1, 2, 4, 64] {
            let guest = Guest::image_with_apic(mode, |g| {
                let ids = g.cells(64);
                let online = g.application_processors(|g| {
                    g.apic_read(reg::ID);
                    if g.mode == Mode::XApic {
                        asm!(g; shr eax, 24;);
                    }
                    asm!(g; mov ids.mine(), rax;);
                });
                g.start_all(cpus, online);
                g.wait_pm_ticks(20_000);
                g.report("online", online);
                for cpu in [1, cpus - 1] {
                    g.report(&format!("id {cpu}"), ids.at(cpu.into()));
                }
            });
            let report = report(&guest, &["--cpus", &cpus.to_string()]);
            assert_eq!(report.get("online"), u64::from(cpus) - 1);
            if cpus > 1 {
                let (first, last) = (report.get("id 1"), report.get(&format!("id {}", cpus - 1)));
                assert_eq!((first, last), (1, u64::from(cpus) - 1), "{mode:?}");
            }
        }
    }
}

/// Two CPUs, 2,000 round trips; each one waits for the other, so one lost IPI ends it, and a doubled one shows in the
/// counts.
///
/// Red when: `Mailbox::wake` looks before the fence; `sleep` enters the futex without a last look; `enter` clears
/// `immediate_exit` after the last look.
#[test]
fn no_ipi_of_a_ping_pong_is_lost() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 2_000;
    for &mode in Mode::all() {
        for halting in [true, false] {
            let guest = Guest::image_with_apic(mode, |g| {
                let (pings, pongs) = (g.cell(), g.cell());
                g.handler(PING, |g| {
                    asm!(g; inc pings.q(););
                    g.eoi();
                    g.ipi(0, PONG.into());
                });
                g.handler(PONG, |g| {
                    let mut last = g.label();
                    asm!(g; inc pongs.q(););
                    g.eoi();
                    asm!(g; cmp pongs.q(), ROUNDS as i32; jae last;);
                    g.ipi(1, PING.into());
                    g.place(&mut last);
                });
                let online = g.application_processors(|g| {
                    if !halting {
                        asm!(g; sti;);
                        let top = g.here();
                        asm!(g; pause; jmp top;);
                    }
                });
                g.start_all(2, online);
                g.ipi(1, PING.into());
                if halting {
                    g.halt_until(pongs, ROUNDS);
                } else {
                    asm!(g; sti;);
                    g.spin_until(pongs, ROUNDS);
                }
                g.report("pings", pings);
                g.report("pongs", pongs);
            });
            let report = report(&guest, &["--cpus", "2"]);
            let counts = (report.get("pings"), report.get("pongs"));
            assert_eq!(counts, (u64::from(ROUNDS), u64::from(ROUNDS)), "{mode:?}, halting: {halting}");
        }
    }
}

/// Four CPUs hand one token round: each sends to the next.
///
/// Red when: a kick goes to another CPU's thread.
#[test]
fn no_ipi_of_a_ring_is_lost() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 300;
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let counts = g.cells(4);
            g.handler(VECTOR, |g| {
                let (mut last, mut send) = (g.label(), g.label());
                asm!(g; inc counts.mine(););
                g.eoi();
                asm!(g; test r13, r13; jnz send; cmp counts.q(), ROUNDS as i32; jae last;);
                g.place(&mut send);
                asm!(g; lea edx, ptr(r13 + 1); and edx, 3;);
                g.ipi_to_edx(VECTOR.into());
                g.place(&mut last);
            });
            let online = g.application_processors(|_| {});
            g.start_all(4, online);
            g.ipi(1, VECTOR.into());
            g.halt_until(counts, ROUNDS);
            for cpu in 0..4 {
                g.report(&format!("cpu {cpu}"), counts.at(cpu));
            }
        });
        let report = report(&guest, &["--cpus", "4"]);
        for cpu in 0..4 {
            assert_eq!(report.get(&format!("cpu {cpu}")), u64::from(ROUNDS), "CPU {cpu}, {mode:?}");
        }
    }
}

/// Red when: `ApicBus::send_ipi` posts to the sender too, or leaves one out.
#[test]
fn all_but_self_reaches_each_other_cpu_each_time() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 200;
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let counts = g.cells(4);
            g.handler(VECTOR, |g| {
                asm!(g; inc counts.mine(););
                g.eoi();
            });
            let online = g.application_processors(|_| {});
            g.start_all(4, online);
            asm!(g; sti; xor ebx, ebx;);
            let top = g.here();
            asm!(g; inc ebx;);
            g.ipi(0, ALL_BUT_SELF | u32::from(VECTOR));
            for cpu in 1..4 {
                g.spin_until(counts.at(cpu), None);
            }
            asm!(g; cmp ebx, ROUNDS; jb top;);
            g.wait_pm_ticks(3000);
            for cpu in 0..4 {
                g.report(&format!("cpu {cpu}"), counts.at(cpu));
            }
        });
        let report = report(&guest, &["--cpus", "4"]);
        let counts = [0, 1, 2, 3].map(|cpu| report.get(&format!("cpu {cpu}")));
        assert_eq!(counts, [0, 1, 1, 1].map(|rounds| rounds * u64::from(ROUNDS)), "{mode:?}");
    }
}

/// To a CPU with interrupts off, one that spins and one that halts: neither hears anything else.
///
/// Red when: `deliver` gives KVM the NMI only when the guest takes interrupts; `post_nmi` does not kick.
#[test]
fn each_nmi_ipi_is_handled_once() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 200;
    for &mode in Mode::all() {
        for halting in [true, false] {
            let guest = Guest::image_with_apic(mode, |g| {
                let nmis = g.cells(2);
                g.handler(2, |g| asm!(g; inc nmis.mine();));
                let online = g.application_processors(|g| {
                    let top = g.here();
                    if halting {
                        asm!(g; hlt; jmp top;);
                    } else {
                        asm!(g; pause; jmp top;);
                    }
                });
                g.start_all(2, online);
                asm!(g; xor ebx, ebx;);
                let top = g.here();
                asm!(g; inc ebx;);
                g.ipi(1, NMI);
                g.spin_until(nmis.at(1), None);
                asm!(g; cmp ebx, ROUNDS; jb top;);
                g.wait_pm_ticks(3000);
                g.report("mine", nmis);
                g.report("other", nmis.at(1));
            });
            let report = report(&guest, &["--cpus", "2"]);
            assert_eq!(
                (report.get("mine"), report.get("other")),
                (0, u64::from(ROUNDS)),
                "{mode:?}, halting: {halting}"
            );
        }
    }
}

/// Logical destination of CPUs 0 and 1, after [`set_logical_ids`].
const BOTH: u32 = 0b11;

/// Gives each CPU the logical ID with the bit of its number: x2APIC IDs below 16 have it by themselves. Changes RAX,
/// RCX and RDX.
fn set_logical_ids(g: &mut Guest) {
    if g.mode == Mode::XApic {
        asm!(g; mov ecx, r13d; mov eax, 1 << 24; shl eax, cl;);
        g.apic_write_eax(reg::LDR);
    }
}

/// Sends [`VECTOR`] with lowest priority to both CPUs, 200 times, each after the one before was handled.
fn count_lowest_priority(g: &mut Guest, rounds: u32, total: Cell) {
    asm!(g; sti; xor ebx, ebx;);
    let top = g.here();
    asm!(g; inc rbx;);
    g.ipi(BOTH, LOGICAL | LOWEST_PRIORITY | u32::from(VECTOR));
    g.spin_until(total, None);
    asm!(g; cmp ebx, rounds; jb top;);
    g.wait_pm_ticks(3000);
}

/// Red when: `lowest_priority` posts to all that match; it compares the wrong way round; the priority that the mailbox
/// shows is not the owner's.
#[test]
fn lowest_priority_reaches_one_cpu_and_the_right_one() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 200;
    for &mode in Mode::all() {
        // (task priority of the sender and of the other CPU): who gets it, if that is determined.
        for (priorities, expected) in [((0, 0), None), ((0x50, 0), Some((0, ROUNDS))), ((0, 0x50), Some((ROUNDS, 0)))] {
            let guest = Guest::image_with_apic(mode, |g| {
                let (counts, total) = (g.cells(2), g.cell());
                g.handler(VECTOR, |g| {
                    asm!(g; inc counts.mine(););
                    g.eoi();
                    g.lock_inc(total);
                });
                let ready = g.cell();
                let online = g.application_processors(|g| {
                    set_logical_ids(g);
                    g.apic_write(reg::TPR, priorities.1);
                    g.lock_inc(ready);
                });
                set_logical_ids(g);
                g.start_all(2, online);
                g.spin_until(ready, 1);
                g.apic_write(reg::TPR, priorities.0);
                count_lowest_priority(g, ROUNDS, total);
                g.report("sender", counts);
                g.report("other", counts.at(1));
            });
            let report = report(&guest, &["--cpus", "2"]);
            let counts = (report.get("sender") as u32, report.get("other") as u32);
            match expected {
                Some(expected) => assert_eq!(counts, expected, "{mode:?}, {priorities:?}"),
                None => assert_eq!(counts.0 + counts.1, ROUNDS, "{mode:?}, {counts:?}"),
            }
        }
    }
}

/// Red when: `deliverable` is not the highest request; EOI ends another than the highest in service; the handler is
/// interrupted although interrupts are off.
#[test]
fn self_ipis_come_by_priority() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (count, order) = (g.cell(), g.cells(3));
            for vector in [0x35_u8, 0x45, 0x55] {
                g.handler(vector, |g| {
                    asm!(g; mov rdi, count.q(); mov qword_ptr(rdi * 8 + order.address()), i32::from(vector); inc count.q(););
                    g.eoi();
                });
            }
            // One by the self-IPI register, where there is one.
            match g.mode {
                Mode::XApic => g.ipi(0, MYSELF | 0x45),
                Mode::X2Apic => g.apic_write(reg::SELF_IPI, 0x45),
            }
            g.ipi(0, MYSELF | 0x35);
            // And one by the own physical ID.
            g.ipi(0, 0x55);
            g.halt_until(count, 3);
            for at in 0..3 {
                g.report(&format!("vector {at}"), order.at(at));
            }
        });
        let report = report(&guest, &[]);
        assert_eq!([0, 1, 2].map(|at| report.get(&format!("vector {at}"))), [0x55, 0x45, 0x35], "{mode:?}");
    }
}

/// CR8 is lowered without any exit on some hosts.
///
/// Red when: `deliver` does not keep the timer armed for `blocked_by_tpr`; CR8 is not read back before the priority is
/// computed.
#[test]
fn cr8_holds_back_what_is_not_above_it_until_it_is_lowered() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (low, high) = (g.cell(), g.cell());
            for (vector, cell) in [(0x45, low), (0x65, high)] {
                g.handler(vector, |g| {
                    asm!(g; inc cell.q(););
                    g.eoi();
                });
            }
            asm!(g; mov eax, 5; mov cr8, rax; sti;);
            g.ipi(0, MYSELF | 0x45);
            g.ipi(0, MYSELF | 0x65);
            g.spin_until(high, 1);
            g.wait_pm_ticks(3000);
            asm!(g; mov rbx, low.q(); xor eax, eax; mov cr8, rax;);
            g.spin_until(low, 1);
            asm!(g; mov rax, rbx;);
            g.report_rax("low while held back");
            g.report("low", low);
            g.report("high", high);
        });
        let report = report(&guest, &[]);
        let counts = ["low while held back", "low", "high"].map(|name| report.get(name));
        assert_eq!(counts, [0, 1, 1], "{mode:?}");
    }
}

/// Red when: INIT leaves the vCPU's registers, or its local APIC's, as they were; a start-up that comes right behind INIT is
/// lost.
#[test]
fn a_cpu_is_started_again_and_again() {
    if !can_run() {
        return;
    }
    const ROUNDS: u32 = 30;
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (dirty, sent) = (g.cell(), g.cell());
            let online = g.application_processors(|g| {
                // INIT has left no request and no task priority.
                for register in [reg::IRR + 0x10 * (u32::from(VECTOR) / 32), reg::TPR] {
                    g.apic_read(register);
                    asm!(g; or dirty.q(), rax;);
                }
                g.apic_write(reg::TPR, 0xf0);
                // Never handled: interrupts stay off.
                g.ipi(1, VECTOR.into());
                asm!(g; inc sent.q(););
                let top = g.here();
                asm!(g; pause; jmp top;);
            });
            asm!(g; xor ebx, ebx;);
            let top = g.here();
            asm!(g; inc rbx;);
            g.ipi(1, INIT);
            g.ipi(1, START_UP);
            g.ipi(1, START_UP);
            g.spin_until(sent, None);
            asm!(g; cmp ebx, ROUNDS; jb top;);
            g.wait_pm_ticks(3000);
            g.report("online", online);
            g.report("dirty", dirty);
        });
        let report = report(&guest, &["--cpus", "2"]);
        assert_eq!((report.get("online"), report.get("dirty")), (u64::from(ROUNDS), 0), "{mode:?}");
    }
}
