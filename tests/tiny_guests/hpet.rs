//! The HPET: its counter, and every way an interrupt of it can take.

use iced_x86::code_asm::*;
use x86::platform;

use crate::chips::{LEVEL, Mode, NMI, PIC_VECTOR};
use crate::guest::{Cell, Guest, asm};
use crate::program::{Report, can_run, report, run};

const TICKS: u32 = 200;
/// One-shots, each armed by the handler of the one before.
const SHOTS: u32 = 300;
const VECTOR: u8 = 0x40;
/// Main counter ticks: a millisecond.
const PERIOD: u32 = 100_000;
/// The same of the PM timer's.
const PM_PER_PERIOD: f64 = platform::PM_TIMER_HZ as f64 / 1000.0;
/// The PM timer's ticks for one of the counter's.
const PM_PER_TICK: f64 = platform::PM_TIMER_HZ as f64 / 100_000_000.0;

const CONFIGURATION: u32 = 0x10;
const STATUS: u32 = 0x20;
const COUNTER: u32 = 0xf0;
const ENABLE: u32 = 1;
const LEGACY: u32 = 2;

const TIMER_LEVEL: u32 = 1 << 1;
const INTERRUPTS: u32 = 1 << 2;
const PERIODIC: u32 = 1 << 3;
const VALUE_SET: u32 = 1 << 6;
const FSB: u32 = 1 << 14;
const ROUTE_SHIFT: u32 = 9;

fn timer(index: u32) -> u32 {
    0x100 + 0x20 * index
}

impl Guest {
    /// Writes a register by 32 bits; its upper half is another. Changes RAX and RDX.
    fn hpet(&mut self, register: u32, value: u32) {
        asm!(self; mov edx, platform::HPET_BASE as u32 + register; mov eax, value; mov dword_ptr(rdx), eax;);
    }

    /// RAX: a register's 64 bits. Changes RDX.
    fn hpet_read(&mut self, register: u32) {
        asm!(self; mov edx, platform::HPET_BASE as u32 + register; mov rax, qword_ptr(rdx););
    }

    /// Timer `index` ticks every [`PERIOD`] once the counter runs, from now on.
    fn hpet_periodic(&mut self, index: u32, config: u32) {
        self.hpet(timer(index), config | INTERRUPTS | PERIODIC | VALUE_SET);
        self.hpet(timer(index) + 8, PERIOD);
        self.hpet(timer(index), config | INTERRUPTS | PERIODIC | VALUE_SET);
        self.hpet(timer(index) + 12, 0);
    }

    /// A handler that counts in `ticks` and ends the interrupt at the local APIC.
    fn counting_handler(&mut self, ticks: Cell) {
        self.handler(VECTOR, |g| {
            asm!(g; inc ticks.q(););
            g.eoi();
        });
    }

    /// Starts the counter, halts until [`TICKS`] have been counted, and reports.
    fn count_hpet_ticks(&mut self, ticks: Cell, configuration: u32) {
        let watch = self.cell();
        self.start_watch(watch);
        self.hpet(CONFIGURATION, configuration);
        self.halt_until(ticks, TICKS);
        asm!(self; cli;);
        self.stop_watch(watch);
        self.report("ticks", ticks);
        self.report("elapsed", watch);
    }
}

/// No tick was counted before its time: one interrupt for each, and none of another timer's.
fn assert_no_tick_too_many(report: &Report) {
    let (ticks, elapsed) = (report.get("ticks"), report.get("elapsed"));
    assert!(ticks >= u64::from(TICKS));
    assert!(elapsed as f64 >= ticks as f64 * PM_PER_PERIOD - 6.0, "{ticks} ticks in {elapsed} ticks of the PM timer");
}

/// One stretch inside the other, by two clocks.
///
/// Red when: the capabilities' period is not the counter's; the block is elsewhere on the bus; 64-bit accesses don't get
/// through.
#[test]
fn the_counter_agrees_with_the_pm_timer() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let (outer, inner, counter) = (g.cell(), g.cell(), g.cell());
        g.hpet(CONFIGURATION, ENABLE);
        g.start_watch(outer);
        g.hpet_read(COUNTER);
        asm!(g; mov counter.q(), rax;);
        g.start_watch(inner);
        g.wait_pm_ticks(100_000);
        g.stop_watch(inner);
        g.hpet_read(COUNTER);
        asm!(g; sub rax, counter.q(); mov counter.q(), rax;);
        g.stop_watch(outer);
        for (name, cell) in [("outer", outer), ("inner", inner), ("counter", counter)] {
            g.report(name, cell);
        }
        g.hpet_read(0);
        g.report_rax("capabilities");
    });
    let report = report(&guest, &[]);
    let counted = report.get("counter") as f64 * PM_PER_TICK;
    let (inner, outer) = (report.get("inner") as f64, report.get("outer") as f64);
    assert!(inner - 1.0 <= counted && counted <= outer + 1.0, "{report:?}");
    // Femtoseconds.
    assert_eq!(report.get("capabilities") >> 32, 10_000_000);
}

/// Red when: the pins of `wiring` are not those of the routing mask; an edge is sent twice.
#[test]
fn periodic_ticks_arrive_at_each_io_apic_pin() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        for index in 0..4 {
            let pin = platform::GSI_HPET + 3 - index as u8;
            let guest = Guest::image_with_apic(mode, |g| {
                let ticks = g.cell();
                g.counting_handler(ticks);
                g.ioapic_entry(pin, VECTOR.into(), 0);
                g.hpet_periodic(index, u32::from(pin) << ROUTE_SHIFT);
                g.count_hpet_ticks(ticks, ENABLE);
            });
            assert_no_tick_too_many(&report(&guest, &[]));
        }
    }
}

/// Red when: a write of the status does not lower the line (it fires for ever), or the alarm is not armed again.
#[test]
fn level_triggered_ticks_wait_for_their_status() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (ticks, wrong) = (g.cell(), g.cell());
        g.handler(VECTOR, |g| {
            let mut mine = g.label();
            asm!(g; inc ticks.q(););
            g.hpet_read(STATUS);
            asm!(g; cmp rax, 1 << 2; je mine; inc wrong.q(););
            g.place(&mut mine);
            g.hpet(STATUS, 1 << 2);
            g.eoi();
        });
        g.ioapic_entry(platform::GSI_HPET, LEVEL | u32::from(VECTOR), 0);
        g.hpet_periodic(2, TIMER_LEVEL | u32::from(platform::GSI_HPET) << ROUTE_SHIFT);
        g.count_hpet_ticks(ticks, ENABLE);
        g.report("wrong", wrong);
    });
    let report = report(&guest, &[]);
    assert_no_tick_too_many(&report);
    assert_eq!(report.get("wrong"), 0);
}

/// To the vCPU that halts and to the one that is busy.
///
/// Red when: `Outputs::msi` goes nowhere, or address and value are mixed up.
#[test]
fn messages_go_to_the_processor_they_name() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        for target in [0_u32, 1] {
            let guest = Guest::image_with_apic(mode, |g| {
                let (ticks, strays) = (g.cell(), g.cell());
                g.handler(VECTOR, |g| {
                    let mut right = g.label();
                    asm!(g; inc ticks.q(); cmp r13, target as i32; je right; inc strays.q(););
                    g.place(&mut right);
                    g.eoi();
                });
                let online = g.application_processors(|g| {
                    let top = g.here();
                    asm!(g; sti; pause; jmp top;);
                });
                g.start_all(2, online);
                g.hpet_periodic(3, FSB);
                g.hpet(timer(3) + 0x10, VECTOR.into());
                g.hpet(timer(3) + 0x14, platform::MSI_BASE as u32 | target << 12);
                let watch = g.cell();
                g.start_watch(watch);
                g.hpet(CONFIGURATION, ENABLE);
                if target == 0 {
                    g.halt_until(ticks, TICKS);
                } else {
                    g.spin_until(ticks, TICKS);
                }
                asm!(g; cli;);
                g.stop_watch(watch);
                g.report("ticks", ticks);
                g.report("elapsed", watch);
                g.report("strays", strays);
            });
            let report = report(&guest, &["--cpus", "2"]);
            assert_no_tick_too_many(&report);
            assert_eq!(report.get("strays"), 0, "{mode:?}, to {target}");
        }
    }
}

/// The PIT runs at its fastest all the time: were it not off the wire, its ticks would be counted. At the end it is put
/// back.
///
/// Red when: the switch stays closed; an edge is over before the 8259A is asked (nothing would come); the PIT does not
/// come back.
#[test]
fn legacy_replacement_takes_irq_0_from_the_pit_and_gives_it_back() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let (ticks, before) = (g.cell(), g.cell());
        g.handler(PIC_VECTOR, |g| {
            asm!(g; inc ticks.q(););
            g.pic_eoi();
        });
        g.pit(2, 100);
        g.hpet_periodic(0, 0);
        g.hpet(CONFIGURATION, LEGACY);
        g.pic(0xfe, 0xff);
        g.count_hpet_ticks(ticks, ENABLE | LEGACY);
        g.hpet(CONFIGURATION, 0);
        asm!(g; mov rax, ticks.q(); mov before.q(), rax;);
        g.pit(2, 1193);
        g.halt_until(ticks, 3 * TICKS);
        asm!(g; mov rax, ticks.q(); sub rax, before.q(););
        g.report_rax("of the PIT");
    });
    let report = report(&guest, &[]);
    assert_no_tick_too_many(&report);
    assert!(report.get("of the PIT") > 0);
}

/// The same by the I/O APIC, both of the interrupts, with the RTC at its fastest. The RTC's register C is never read: one
/// flag of it would be all that there ever is.
///
/// Red when: the legacy lines are swapped or go to the wrong pins.
#[test]
fn legacy_replacement_works_through_the_io_apic() {
    if !can_run() {
        return;
    }
    for (index, pin) in [(0, 2), (1, platform::IRQ_RTC)] {
        let guest = Guest::image_with_apic(Mode::XApic, |g| {
            let ticks = g.cell();
            g.counting_handler(ticks);
            g.pic(0xff, 0xff);
            g.pit(2, 100);
            for (register, value) in [(0xa, 0x23), (0xb, 0x42)] {
                g.out8(platform::RTC, register);
                g.out8(platform::RTC + 1, value);
            }
            g.hpet_periodic(index, 0);
            g.hpet(CONFIGURATION, LEGACY);
            g.ioapic_entry(pin, VECTOR.into(), 0);
            g.count_hpet_ticks(ticks, ENABLE | LEGACY);
        });
        assert_no_tick_too_many(&report(&guest, &[]));
    }
}

/// As a kernel programs it: counter plus some, then a look whether the counter has passed it already.
///
/// Red when: the alarm is not armed anew by a write of the comparator; a match is seen a tick late (the kernel would
/// think it is ahead, and wait for the counter's next turn).
#[test]
fn no_one_shot_is_lost() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (shots, comparator) = (g.cell(), g.cell());
        let arm = g.aside(|g| {
            let again = g.here();
            g.hpet_read(COUNTER);
            asm!(g;
                add rax, 5_000;
                mov comparator.q(), rax;
                mov edx, platform::HPET_BASE as u32 + timer(1) + 8;
                mov qword_ptr(rdx), rax;
            );
            g.hpet_read(COUNTER);
            // Passed, and without an interrupt perhaps: a later one then.
            let mut ahead = g.label();
            asm!(g; cmp comparator.q(), rax; ja ahead;);
            g.hpet(timer(1) + 8, 0);
            asm!(g; jmp again;);
            g.place(&mut ahead);
            asm!(g; ret;);
        });
        g.handler(VECTOR, |g| {
            let mut last = g.label();
            asm!(g; inc shots.q(); cmp shots.q(), SHOTS as i32; jae last; call arm;);
            g.place(&mut last);
            g.eoi();
        });
        g.ioapic_entry(platform::GSI_HPET, VECTOR.into(), 0);
        g.hpet(timer(1), INTERRUPTS | u32::from(platform::GSI_HPET) << ROUTE_SHIFT);
        g.hpet(CONFIGURATION, ENABLE);
        asm!(g; cli; call arm;);
        g.halt_until(shots, SHOTS);
        g.wait_pm_ticks(3000);
        g.report("shots", shots);
    });
    assert!(report(&guest, &[]).get("shots") >= u64::from(SHOTS));
}

/// A one-shot whose message is an NMI ends a halt with interrupts disabled; the halt after it is for good, since nothing more will
/// match. A fixed interrupt, a timer without its interrupt and a counter that stands end nothing.
///
/// Red when: the end is declared without a look at the HPET, or not declared though nothing comes from it any more.
#[test]
fn a_message_in_nmi_mode_ends_a_halt_with_interrupts_off() {
    if !can_run() {
        return;
    }
    for (interrupts, data, counter, said) in [
        (INTERRUPTS, NMI, ENABLE, "up, woken"),
        (INTERRUPTS, u32::from(VECTOR), ENABLE, "up"),
        (0, NMI, ENABLE, "up"),
        (INTERRUPTS, NMI, 0, "up"),
    ] {
        let guest = Guest::image_with_apic(Mode::XApic, |g| {
            g.handler(2, |g| g.print(", woken"));
            g.hpet(timer(3) + 0x10, data);
            g.hpet(timer(3) + 0x14, platform::MSI_BASE as u32);
            g.hpet(timer(3) + 8, 50 * PERIOD);
            g.hpet(timer(3) + 12, 0);
            g.hpet(timer(3), FSB | interrupts);
            g.print("up");
            g.hpet(CONFIGURATION, counter);
            let top = g.here();
            asm!(g; cli; hlt; jmp top;);
        });
        let finished = run(&guest, &[]);
        let output = String::from_utf8_lossy(&finished.stdout);
        assert_eq!((finished.code, &*output), (Some(38), said), "{data:#x} {finished:?}");
    }
}
