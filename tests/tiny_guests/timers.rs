//! Timers, and every way their interrupt can take: 8259A pair, I/O APIC, local APIC.

use iced_x86::code_asm::*;
use x86::apic::reg;
use x86::{msr, platform};

use crate::chips::{EXTINT, MASKED, Mode, NMI, PERIODIC, PIC_VECTOR, TSC_DEADLINE};
use crate::guest::{Cell, Guest, asm};
use crate::program::{Report, can_run, report};

const TICKS: u32 = 200;
/// One-shots, each armed by the handler of the one before. The handler may take longer than the timer: it stops by
/// itself, or nothing but handlers would run.
const SHOTS: u32 = 500;
/// The PIT's count for about a millisecond.
const PIT_COUNT: u16 = 1193;
/// The PM timer runs three times as fast as the PIT.
const PM_PER_PIT: u64 = 3;
const VECTOR: u8 = 0x40;
const PIT_PIN: u8 = 2;

/// Starts the PIT, halts until [`TICKS`] have been counted, and reports.
fn count_pit_ticks(g: &mut Guest, ticks: Cell) {
    let watch = g.cell();
    g.start_watch(watch);
    g.pit(2, PIT_COUNT);
    g.halt_until(ticks, TICKS);
    asm!(g; cli;);
    g.stop_watch(watch);
    g.report("ticks", ticks);
    g.report("elapsed", watch);
}

/// No tick was counted before its time: one interrupt for each, not two.
fn assert_no_tick_too_many(report: &Report, pm_ticks_each: f64) {
    let (ticks, elapsed) = (report.get("ticks"), report.get("elapsed"));
    assert!(ticks >= u64::from(TICKS));
    // The watch is read a little after the moments it measures between, and cuts off fractions.
    assert!(elapsed as f64 >= ticks as f64 * pm_ticks_each - 6.0, "{ticks} ticks in {elapsed} ticks of the PM timer");
}

/// The PIT's output falls for a clock before each tick. A tick that was not acknowledged by then is withdrawn, and a cycle that is
/// under way finds nobody: the default IR7, which takes no EOI (8259A, "Interrupt Sequence"). The host need only be busy for it.
fn handler_with_pic_eoi(g: &mut Guest, ticks: Cell) {
    g.handler(PIC_VECTOR + 7, |_| {});
    g.handler(PIC_VECTOR, |g| {
        asm!(g; inc ticks.q(););
        g.pic_eoi();
    });
}

/// Red when: `enter_virtual_wire_mode` leaves LINT0 masked; `drive_pic_output` does not post LINT0; the pair's output
/// does not fall with the acknowledge; a masked input still asks.
#[test]
fn pit_ticks_arrive_through_the_pic_in_virtual_wire_mode() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let (ticks, after) = (g.cell(), g.cell());
        handler_with_pic_eoi(g, ticks);
        g.pic(0xfe, 0xff);
        count_pit_ticks(g, ticks);
        asm!(g; sti;);
        g.out8(platform::PIC_MASTER + 1, 0xff);
        asm!(g; nop; mov rax, ticks.q(); mov after.q(), rax;);
        g.wait_pm_ticks(10 * PM_PER_PIT as u32 * u32::from(PIT_COUNT));
        asm!(g; cli; mov rax, ticks.q(); sub rax, after.q(););
        g.report_rax("after masking");
    });
    let report = report(&guest, &[]);
    assert_no_tick_too_many(&report, (PM_PER_PIT * u64::from(PIT_COUNT)) as f64);
    assert_eq!(report.get("after masking"), 0);
}

/// Red when: the slave's output is not the master's input 2, or `PicPorts` mixes up the two.
#[test]
fn rtc_ticks_arrive_through_the_slave_pic() {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        let ticks = g.cell();
        g.handler(PIC_VECTOR + 8, |g| {
            asm!(g; inc ticks.q(););
            read_rtc_flags(g);
            g.out8(platform::PIC_SLAVE, 0x20);
            g.pic_eoi();
        });
        g.pic(0xfb, 0xfe);
        start_rtc(g);
        g.halt_until(ticks, TICKS);
        g.report("ticks", ticks);
    });
    assert!(report(&guest, &[]).get("ticks") >= u64::from(TICKS));
}

/// Red when: `LineTarget::set_level` does not reach the I/O APIC, or the RTC's line stays up after a read of register C
/// (one tick only).
#[test]
fn rtc_ticks_arrive_through_the_io_apic() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let ticks = g.cell();
        g.handler(VECTOR, |g| {
            asm!(g; inc ticks.q(););
            read_rtc_flags(g);
            g.eoi();
        });
        g.ioapic_entry(platform::IRQ_RTC, VECTOR.into(), 0);
        start_rtc(g);
        g.halt_until(ticks, TICKS);
        g.report("ticks", ticks);
    });
    assert!(report(&guest, &[]).get("ticks") >= u64::from(TICKS));
}

/// Once a second: two of them, the second a whole one after the first.
///
/// Red when: `Rtc::next_event` leaves the update out, or the flag does not raise the line.
#[test]
fn the_rtc_interrupts_after_each_update() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (updates, flags, second) = (g.cell(), g.cell(), g.cells(3));
        g.handler(VECTOR, |g| {
            read_rtc_flags(g);
            asm!(g; or flags.q(), rax;);
            g.cmos(0);
            asm!(g; mov rcx, updates.q(); mov qword_ptr(rcx * 8 + second.address()), rax; inc updates.q(););
            let mut more = g.label();
            asm!(g; cmp updates.q(), 2; jb more;);
            g.set_cmos(0xb, 0x06);
            g.place(&mut more);
            g.eoi();
        });
        g.ioapic_entry(platform::IRQ_RTC, VECTOR.into(), 0);
        g.set_cmos(0xb, 0x16);
        read_rtc_flags(g);
        g.halt_until(updates, 2);
        g.report("flags", flags);
        g.report("first", second);
        g.report("second", second.at(1));
    });
    let report = report(&guest, &[]);
    assert_eq!(report.get("flags") & 0x90, 0x90, "{report:?}");
    // The interrupt may be late, never early: seconds are whole ones.
    assert_ne!(report.get("first"), report.get("second"), "{report:?}");
}

/// Two seconds ahead.
///
/// Red when: `next_alarm` is off by one, or the alarm byte's "any" is not understood.
#[test]
fn the_rtc_interrupts_at_its_alarm() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (alarms, at, alarm) = (g.cell(), g.cell(), g.cell());
        g.handler(VECTOR, |g| {
            asm!(g; inc alarms.q(););
            g.cmos(0);
            asm!(g; mov at.q(), rax;);
            read_rtc_flags(g);
            asm!(g; movzx eax, al;);
            g.report_rax("flags");
            g.eoi();
        });
        g.ioapic_entry(platform::IRQ_RTC, VECTOR.into(), 0);
        // Binary.
        g.set_cmos(0xb, 0x06);
        for any in [3, 5] {
            g.set_cmos(any, 0xff);
        }
        g.cmos(0);
        asm!(g; add eax, 2; xor edx, edx; mov ecx, 60; div ecx; mov alarm.q(), rdx; mov ebx, edx;);
        g.out8(platform::RTC, 1);
        asm!(g; mov eax, ebx; mov dx, u32::from(platform::RTC + 1); out dx, al;);
        g.set_cmos(0xb, 0x26);
        read_rtc_flags(g);
        g.halt_until(alarms, 1);
        g.report("alarm", alarm);
        g.report("at", at);
    });
    let report = report(&guest, &[]);
    assert_eq!(report.get("flags") & 0xa0, 0xa0, "{report:?}");
    // A loaded machine may be seconds late, but not early.
    assert!((report.get("at") + 60 - report.get("alarm")) % 60 < 30, "{report:?}");
}

impl Guest {
    /// RAX: a register of the RTC. Changes RDX.
    fn cmos(&mut self, register: u8) {
        self.out8(platform::RTC, register);
        self.in8(platform::RTC + 1);
        asm!(self; movzx eax, al;);
    }

    fn set_cmos(&mut self, register: u8, value: u8) {
        self.out8(platform::RTC, register);
        self.out8(platform::RTC + 1, value);
    }
}

/// Periodic interrupts at 1024 Hz.
fn start_rtc(g: &mut Guest) {
    for (register, value) in [(0xa, 0x26), (0xb, 0x42)] {
        g.out8(platform::RTC, register);
        g.out8(platform::RTC + 1, value);
    }
    read_rtc_flags(g);
}

/// Lowers the clock's line.
fn read_rtc_flags(g: &mut Guest) {
    g.out8(platform::RTC, 0xc);
    g.in8(platform::RTC + 1);
}

/// Red when: `isa_irq_to_gsi(0)` is not 2; an edge is sent twice; the local APIC's ISR is not cleared by EOI in one of
/// the modes.
#[test]
fn pit_ticks_arrive_through_io_apic_pin_2() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let ticks = g.cell();
            g.handler(VECTOR, |g| {
                asm!(g; inc ticks.q(););
                g.eoi();
            });
            g.pic(0xff, 0xff);
            g.ioapic_entry(PIT_PIN, VECTOR.into(), 0);
            count_pit_ticks(g, ticks);
        });
        assert_no_tick_too_many(&report(&guest, &[]), (PM_PER_PIT * u64::from(PIT_COUNT)) as f64);
    }
}

/// Red when: `PIC_PIN` is not driven, or `Core::acknowledge` asks only LINT0 for an ExtINT.
#[test]
fn pit_ticks_arrive_as_extint_through_io_apic_pin_0() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let ticks = g.cell();
        handler_with_pic_eoi(g, ticks);
        g.apic_write(reg::LVT_LINT0, MASKED);
        g.ioapic_entry(0, EXTINT, 0);
        g.pic(0xfe, 0xff);
        count_pit_ticks(g, ticks);
    });
    assert_no_tick_too_many(&report(&guest, &[]), (PM_PER_PIT * u64::from(PIT_COUNT)) as f64);
}

/// Red when: an NMI waits for IF, or does not end a halt with interrupts off.
#[test]
fn pit_ticks_arrive_as_nmi_with_interrupts_off() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (ticks, watch) = (g.cell(), g.cell());
        g.handler(2, |g| asm!(g; inc ticks.q();));
        g.pic(0xff, 0xff);
        g.ioapic_entry(PIT_PIN, NMI, 0);
        g.start_watch(watch);
        g.pit(2, PIT_COUNT);
        let top = g.here();
        asm!(g; hlt; cmp ticks.q(), TICKS as i32; jb top;);
        g.ioapic_entry(PIT_PIN, MASKED, 0);
        g.stop_watch(watch);
        g.report("ticks", ticks);
        g.report("elapsed", watch);
    });
    assert_no_tick_too_many(&report(&guest, &[]), (PM_PER_PIT * u64::from(PIT_COUNT)) as f64);
}

/// A PIT in mode 0 and a handler that starts it anew: one lost, and there is no next.
///
/// Red when: an edge that comes while the pin's last interrupt is in service is lost.
#[test]
fn no_pit_one_shot_is_lost() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let ticks = g.cell();
        g.handler(VECTOR, |g| {
            let mut last = g.label();
            asm!(g; inc ticks.q(); cmp ticks.q(), SHOTS as i32; jae last;);
            // The next edge may come before the EOI.
            g.pit(0, 20);
            g.place(&mut last);
            g.eoi();
        });
        g.pic(0xff, 0xff);
        g.ioapic_entry(PIT_PIN, VECTOR.into(), 0);
        g.pit(0, 20);
        g.halt_until(ticks, SHOTS);
        g.wait_pm_ticks(3000);
        g.report("ticks", ticks);
    });
    assert_eq!(report(&guest, &[]).get("ticks"), u64::from(SHOTS));
}

/// One nanosecond a tick with the divide configuration 1.
const DIVIDE_BY_1: u32 = 0b1011;
const APIC_COUNT: u32 = 1_000_000;

/// Red when: `LocalApic::expire` forgets a period, or catches up on missed ones in a burst.
#[test]
fn periodic_local_apic_timer_ticks() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (ticks, watch) = (g.cell(), g.cell());
            g.handler(VECTOR, |g| {
                asm!(g; inc ticks.q(););
                g.eoi();
            });
            g.apic_write(reg::TIMER_DIVIDE, DIVIDE_BY_1);
            g.apic_write(reg::LVT_TIMER, PERIODIC | u32::from(VECTOR));
            g.start_watch(watch);
            g.apic_write(reg::TIMER_INITIAL, APIC_COUNT);
            g.halt_until(ticks, TICKS);
            asm!(g; cli;);
            g.stop_watch(watch);
            g.report("ticks", ticks);
            g.report("elapsed", watch);
        });
        let pm_ticks_each = f64::from(APIC_COUNT) * platform::PM_TIMER_HZ as f64 / platform::APIC_TIMER_HZ as f64;
        assert_no_tick_too_many(&report(&guest, &[]), pm_ticks_each);
    }
}

/// Two flavours, since the timer has two ways to wake a vCPU: the futex of a halted one, the signal of one that runs.
///
/// Red when: `VcpuThread::arm` leaves the thread's timer at an old deadline; `sleep` does not pass the deadline on.
#[test]
fn no_one_shot_of_the_local_apic_timer_is_lost() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        for halting in [true, false] {
            let guest = Guest::image_with_apic(mode, |g| {
                let ticks = g.cell();
                g.handler(VECTOR, |g| {
                    let mut last = g.label();
                    asm!(g; inc ticks.q(); cmp ticks.q(), SHOTS as i32; jae last;);
                    g.apic_write(reg::TIMER_INITIAL, 100_000);
                    g.place(&mut last);
                    g.eoi();
                });
                g.apic_write(reg::TIMER_DIVIDE, DIVIDE_BY_1);
                g.apic_write(reg::LVT_TIMER, VECTOR.into());
                g.apic_write(reg::TIMER_INITIAL, 100_000);
                if halting {
                    g.halt_until(ticks, SHOTS);
                } else {
                    asm!(g; sti;);
                    g.spin_until(ticks, SHOTS);
                }
                g.wait_pm_ticks(3000);
                g.report("ticks", ticks);
            });
            let ticks = report(&guest, &[]).get("ticks");
            assert_eq!(ticks, u64::from(SHOTS), "{mode:?}, halting: {halting}");
        }
    }
}

fn has_tsc_deadline() -> bool {
    let features = kvm::Kvm::open().and_then(|kvm| kvm::probe::HostFeatures::probe(&kvm));
    let has = features.is_ok_and(|features| features.tsc_deadline);
    if !has {
        println!("SKIPPED: TSC deadline, which this host does not offer");
    }
    has
}

/// Red when: `GuestTsc::time_of` comes out early and `is_due` is not asked again; IA32_TSC_DEADLINE does not read 0
/// after it has fired.
#[test]
fn tsc_deadlines_come_when_they_are_due() {
    if !can_run() || !has_tsc_deadline() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (ticks, early, deadline, left) = (g.cell(), g.cell(), g.cell(), g.cell());
            let arm = g.aside(|g| {
                // Some tens of microseconds ahead.
                asm!(g;
                    rdtsc;
                    shl rdx, 32;
                    or rax, rdx;
                    add rax, 100_000;
                    mov deadline.q(), rax;
                    mov rdx, rax;
                    shr rdx, 32;
                    mov ecx, msr::IA32_TSC_DEADLINE;
                    wrmsr;
                    ret;
                );
            });
            g.handler(VECTOR, |g| {
                let mut in_time = g.label();
                asm!(g;
                    rdtsc;
                    shl rdx, 32;
                    or rax, rdx;
                    cmp rax, deadline.q();
                    jae in_time;
                    inc early.q();
                );
                g.place(&mut in_time);
                asm!(g; mov ecx, msr::IA32_TSC_DEADLINE; rdmsr; or left.q(), rax; or left.q(), rdx; inc ticks.q(););
                let mut last = g.label();
                asm!(g; cmp ticks.q(), SHOTS as i32; jae last; call arm;);
                g.place(&mut last);
                g.eoi();
            });
            g.apic_write(reg::LVT_TIMER, TSC_DEADLINE | u32::from(VECTOR));
            asm!(g; call arm;);
            g.halt_until(ticks, SHOTS);
            g.report("early", early);
            g.report("left", left);
        });
        let report = report(&guest, &[]);
        assert_eq!((report.get("early"), report.get("left")), (0, 0), "{mode:?}");
    }
}

/// Red when: `Deadline::is_due` wants the TSC to be the deadline or `arm` sleeps without a look.
#[test]
fn a_tsc_deadline_in_the_past_fires_at_once() {
    if !can_run() || !has_tsc_deadline() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let ticks = g.cell();
            g.handler(VECTOR, |g| {
                asm!(g; inc ticks.q(););
                g.eoi();
            });
            g.apic_write(reg::LVT_TIMER, TSC_DEADLINE | u32::from(VECTOR));
            for count in 1..=20 {
                asm!(g; mov ecx, msr::IA32_TSC_DEADLINE; xor edx, edx; mov eax, 1; wrmsr;);
                g.halt_until(ticks, count);
            }
            g.wait_pm_ticks(3000);
            g.report("ticks", ticks);
        });
        assert_eq!(report(&guest, &[]).get("ticks"), 20, "{mode:?}");
    }
}
