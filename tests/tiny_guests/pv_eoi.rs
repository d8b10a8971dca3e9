//! Paravirtual EOI: a guest that ends its edge interrupts by clearing a bit in memory, and counts how often it could.
//!
//! The guest looks at the bit and clears it in one instruction; only if it was clear does it write the EOI register,
//! which is the exit that the bit is there to spare.

use iced_x86::code_asm::*;
use x86::apic::reg;
use x86::msr::KVM_PV_EOI;
use x86::platform::COM1;

use crate::chips::{LEVEL, Mode, PERIODIC};
use crate::guest::{Cell, Guest, asm};
use crate::program::{can_run, report};

const VECTOR: u8 = 0x51;
const LOW: u8 = 0x41;
const ROUNDS: u32 = 500;

/// Whether this host lets the MSR through to the program; says so if not.
pub fn offered() -> bool {
    let features = kvm::Kvm::open().and_then(|kvm| kvm::probe::HostFeatures::probe(&kvm));
    let offered = features.is_ok_and(|features| features.pv_eoi);
    if !offered {
        println!("SKIPPED: paravirtual EOI, which this host does not offer");
    }
    offered
}

/// What a guest keeps for it, an element for each CPU.
#[derive(Clone, Copy)]
pub struct PvEoi {
    flags: Cell,
    spared: Cell,
    written: Cell,
}

impl PvEoi {
    /// None used yet.
    pub fn new(g: &mut Guest) -> Self {
        Self { flags: g.cells(4), spared: g.cells(4), written: g.cells(4) }
    }

    /// Tells the machine where this CPU's flag is. Changes RAX, RCX and RDX.
    pub fn enable(self, g: &mut Guest) {
        asm!(g; lea rax, ptr(r13 * 8 + self.flags.address()); or rax, 1; xor edx, edx; mov ecx, KVM_PV_EOI; wrmsr;);
    }

    /// Ends an interrupt. Changes RAX, RCX and RDX.
    pub fn eoi(self, g: &mut Guest) {
        let (mut write, mut done) = (g.label(), g.label());
        asm!(g; btr self.flags.mine(), 0u32; jnc write; inc self.spared.mine(); jmp done;);
        g.place(&mut write);
        asm!(g; inc self.written.mine(););
        g.eoi();
        g.place(&mut done);
    }

    fn report(self, g: &mut Guest, cpu: u64) {
        g.report(&format!("spared {cpu}"), self.spared.at(cpu));
        g.report(&format!("written {cpu}"), self.written.at(cpu));
    }
}

/// Self-IPIs, one after the other, spinning and halted: every one of them is ended without an exit.
///
/// Red when: `arm_pv_eoi` is not called, or `eoi_can_wait` is always false (all are written); `disarm` does no EOI (the
/// second never comes).
#[test]
fn an_edge_interrupt_costs_no_eoi_exit() {
    if !can_run() || !offered() {
        return;
    }
    for &mode in Mode::all() {
        for halting in [false, true] {
            let guest = Guest::image_with_apic(mode, |g| {
                let (pv, count) = (PvEoi::new(g), g.cell());
                pv.enable(g);
                g.handler(VECTOR, |g| {
                    asm!(g; inc count.q(););
                    pv.eoi(g);
                });
                asm!(g; xor ebx, ebx;);
                let top = g.here();
                asm!(g; cli;);
                g.apic_write(reg::ICR_LOW, 1 << 18 | u32::from(VECTOR));
                asm!(g; inc rbx; sti;);
                if halting {
                    asm!(g; hlt;);
                }
                g.spin_until(count, None);
                asm!(g; cmp ebx, ROUNDS; jb top;);
                g.report("count", count);
                pv.report(g, 0);
            });
            let report = report(&guest, &[]);
            let counts = (report.get("count"), report.get("spared 0"), report.get("written 0"));
            assert_eq!(counts, (u64::from(ROUNDS), u64::from(ROUNDS), 0), "{mode:?}, halting: {halting}");
        }
    }
}

/// While a lower request waits for the EOI, the guest must write it; the lower one then is spared.
///
/// Red when: `eoi_can_wait` does not look at IRR (the lower one waits for the next exit: here there is none, and the
/// guest hangs).
#[test]
fn a_request_behind_it_makes_the_guest_write_the_eoi() {
    if !can_run() || !offered() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (pv, high, low) = (PvEoi::new(g), g.cell(), g.cell());
            pv.enable(g);
            g.handler(VECTOR, |g| {
                asm!(g; inc high.q(););
                pv.eoi(g);
            });
            g.handler(LOW, |g| {
                asm!(g; inc low.q(););
                pv.eoi(g);
            });
            asm!(g; xor ebx, ebx;);
            let top = g.here();
            asm!(g; cli;);
            for vector in [LOW, VECTOR] {
                g.apic_write(reg::ICR_LOW, 1 << 18 | u32::from(vector));
            }
            asm!(g; inc rbx; sti;);
            g.spin_until(low, None);
            asm!(g; cmp ebx, ROUNDS; jb top;);
            g.report("high", high);
            pv.report(g, 0);
        });
        let report = report(&guest, &[]);
        let counts = ["high", "spared 0", "written 0"].map(|name| report.get(name));
        assert_eq!(counts, [u64::from(ROUNDS); 3], "{mode:?}");
    }
}

/// A level interrupt's EOI is for the I/O APIC: it is always written, and the interrupt comes again.
///
/// Red when: `eoi_can_wait` does not look at TMR (the second never comes).
#[test]
fn a_level_interrupt_is_always_ended_by_the_register() {
    const FIRES: u32 = 50;
    const SERIAL_PIN: u8 = 4;
    if !can_run() || !offered() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (pv, count) = (PvEoi::new(g), g.cell());
            pv.enable(g);
            g.handler(VECTOR, |g| {
                let mut again = g.label();
                asm!(g; inc count.q(); cmp count.q(), FIRES as i32; jb again;);
                // Reading it quiets the port.
                g.in8(COM1 + 2);
                g.place(&mut again);
                pv.eoi(g);
            });
            g.ioapic_entry(SERIAL_PIN, LEVEL | u32::from(VECTOR), 0);
            g.out8(COM1 + 4, 0x08);
            g.out8(COM1 + 1, 2);
            asm!(g; sti;);
            g.spin_until(count, FIRES);
            g.wait_pm_ticks(3000);
            asm!(g; cli;);
            g.report("count", count);
            pv.report(g, 0);
        });
        let report = report(&guest, &[]);
        let counts = (report.get("count"), report.get("spared 0"), report.get("written 0"));
        assert_eq!(counts, (u64::from(FIRES), 0, u64::from(FIRES)), "{mode:?}");
    }
}

/// Two CPUs that answer each other, with a periodic timer on each: nothing is lost, whoever ends what how.
///
/// Red when: `disarm` comes after `collect`, or the mailbox's wake-up takes an armed byte for a reason not to kick.
#[test]
fn no_ipi_is_lost_with_it() {
    const PING: u8 = 0x61;
    const TIMER: u8 = 0x71;
    const EXCHANGES: u32 = 1_000;
    if !can_run() || !offered() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (pv, counts, ticks) = (PvEoi::new(g), g.cells(2), g.cells(2));
            g.handler(PING, |g| {
                let mut last = g.label();
                asm!(g; inc counts.mine(););
                pv.eoi(g);
                asm!(g; cmp counts.mine(), EXCHANGES as i32; jae last; mov rdx, r13; xor edx, 1;);
                g.ipi_to_edx(PING.into());
                g.place(&mut last);
            });
            g.handler(TIMER, |g| {
                asm!(g; inc ticks.mine(););
                pv.eoi(g);
            });
            let tick = |g: &mut Guest| {
                pv.enable(g);
                g.apic_write(reg::TIMER_DIVIDE, 0b1011);
                g.apic_write(reg::LVT_TIMER, PERIODIC | u32::from(TIMER));
                g.apic_write(reg::TIMER_INITIAL, 3_000_000);
            };
            let online = g.application_processors(tick);
            g.start_all(2, online);
            tick(g);
            g.ipi(1, PING.into());
            g.halt_until(counts, EXCHANGES - 1);
            asm!(g; cli;);
            g.report("mine", counts);
            g.report("other's", counts.at(1));
            pv.report(g, 0);
        });
        let report = report(&guest, &["--cpus", "2"]);
        let (mine, others) = (report.get("mine"), report.get("other's"));
        assert!(mine + others >= u64::from(2 * EXCHANGES - 2), "{mode:?}: {report:?}");
        assert!(report.get("spared 0") > 0, "{mode:?}: {report:?}");
    }
}

/// Bit 1, a place without memory, an address that is not aligned: #GP, and the flag stays where it was. Disabled, none
/// is armed. The MSR reads back.
///
/// Red when: `write_msr` takes what it should not; the flag is armed while disabled.
#[test]
fn the_msr_is_checked_and_can_be_switched_off() {
    if !can_run() || !offered() {
        return;
    }
    const BAD: [u64; 5] = [0x20_0003, 0x20_0002, 0xf_ffff_ffff_f001, 0xfee0_0001, 0xffff_ffff_ffff_fffd];
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (pv, faults, count, msr) = (PvEoi::new(g), g.cell(), g.cell(), g.cell());
        g.raw_handler(13, |g| asm!(g; inc faults.q(); add rsp, 8; add qword_ptr(rsp), 2; iretq;));
        g.handler(VECTOR, |g| {
            asm!(g; inc count.q(););
            pv.eoi(g);
        });
        let write = |g: &mut Guest, value: u64| {
            asm!(g; mov ecx, KVM_PV_EOI; mov eax, value as u32; mov edx, (value >> 32) as u32; wrmsr;);
        };
        let interrupt = |g: &mut Guest| {
            asm!(g; cli;);
            g.apic_write(reg::ICR_LOW, 1 << 18 | u32::from(VECTOR));
            asm!(g; sti;);
        };
        pv.enable(g);
        BAD.iter().for_each(|&value| write(g, value));
        asm!(g; mov ecx, KVM_PV_EOI; rdmsr; shl rdx, 32; or rax, rdx; mov rdx, pv.flags.address(); sub rax, rdx;
            mov msr.q(), rax;);
        interrupt(g);
        g.spin_until(count, 1);
        write(g, 0);
        interrupt(g);
        g.spin_until(count, 2);
        g.report("faults", faults);
        g.report("msr", msr);
        pv.report(g, 0);
    });
    let report = report(&guest, &[]);
    assert_eq!(report.get("faults"), BAD.len() as u64);
    assert_eq!(report.get("msr"), 1, "the address as written, and enabled");
    assert_eq!((report.get("spared 0"), report.get("written 0")), (1, 1));
}
