//! The storm device: its doorbell, its levels, and a machine under more interrupts than it can take.

use iced_x86::code_asm::*;
use x86::storm::{self, Source};

use crate::bottom_halves::Tables;
use crate::chips::{LEVEL, Mode};
use crate::common::Scratch;
use crate::guest::{Cell, Guest, asm};
use crate::program::{can_run, report};
use crate::terminal::{CTRL_A, PROMPT, User};

/// A pin that no other device drives.
const GSI: u8 = 10;
const VECTOR: u8 = 0x60;
const CHANNEL: usize = 0;

/// Writes a 32-bit register. Changes RAX.
fn write32(g: &mut Guest, address: u64, value: u32) {
    asm!(g; mov rax, address; mov dword_ptr(rax), value;);
}

/// Writes a 64-bit register. Changes RAX and RCX.
fn write64(g: &mut Guest, address: u64, value: u64) {
    asm!(g; mov rcx, value; mov rax, address; mov qword_ptr(rax), rcx;);
}

/// RAX: a 64-bit register.
fn read64(g: &mut Guest, address: u64) {
    asm!(g; mov rax, address; mov rax, qword_ptr(rax););
}

/// Starts the channel on the pin.
fn start(g: &mut Guest, source: Source, period: u64, events: u64) {
    let at = |register| storm::channel(CHANNEL, register);
    write32(g, at(storm::GSI), GSI.into());
    write64(g, at(storm::PERIOD), period);
    write64(g, at(storm::LEFT), events);
    write32(g, at(storm::CONTROL), source.start());
}

/// Counts in `count`, after what `acknowledge` emits.
fn handler(g: &mut Guest, count: Cell, acknowledge: impl FnOnce(&mut Guest)) {
    g.handler(VECTOR, |g| {
        asm!(g; inc count.q(););
        acknowledge(g);
        g.eoi();
    });
}

/// Memory that the program holds.
fn resident_kib(user: &User) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", user.child.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Red when: a device of the tests is there without them.
#[test]
fn there_is_no_storm_device_without_testdev() {
    if !can_run() {
        return;
    }
    for (options, expected) in [(&[][..], u32::MAX), (&["--testdev"], storm::SIGNATURE_VALUE)] {
        let guest = Guest::image(|g| {
            asm!(g; mov rax, storm::BASE + storm::SIGNATURE; mov eax, dword_ptr(rax););
            g.report_rax("signature");
        });
        assert_eq!(report(&guest, options).get("signature"), u64::from(expected), "{options:?}");
    }
}

/// Each ring raises one interrupt, from a tasklet of the main loop's CPU: it was no exit.
///
/// Red when: `GuestDoorbells` is not watched by the main loop, or loses a ring; the ring register's writes are exits.
#[test]
fn a_rung_doorbell_raises_one_interrupt() {
    if !can_run() {
        return;
    }
    const RINGS: u32 = 100;
    let image = Guest::image_with_apic(Mode::XApic, |g| {
        let count = g.cell();
        handler(g, count, |_| {});
        g.ioapic_entry(GSI, VECTOR.into(), 0);
        start(g, Source::Pulse, 0, storm::NO_END);
        asm!(g; sti; xor ebx, ebx;);
        let top = g.here();
        asm!(g; inc rbx;);
        write32(g, storm::BASE + storm::RING, 1);
        g.spin_until(count, None);
        asm!(g; cmp ebx, RINGS; jb top; cli;);
        read64(g, storm::channel(CHANNEL, storm::SENT));
        g.report_rax("sent");
        g.report("count", count);
        g.print("rung\n");
        let top = g.here();
        asm!(g; pause; jmp top;);
    });
    let image = Scratch::file(&image);
    let mut user = User::run(&image, &["--testdev", "--bottom-half", "serial=inline"]);
    let said = user.sees("rung\r\n");
    for name in ["sent", "count"] {
        assert!(said.contains(&format!("{name}={:016x}\r\n", RINGS)), "{said}");
    }
    user.types(&format!("{CTRL_A}c"));
    user.sees(PROMPT);
    let tables = Tables::ask(&mut user);
    assert_eq!(tables.softirqs["TASKLET"], [0, RINGS.into()], "one ring, one run: nothing else has tasklets here");
    user.types(&format!("{CTRL_A}x"));
    assert_eq!(user.ends(), Some(0));
}

/// Every event of a level storm is an interrupt, or found the line still up.
///
/// Red when: a level that rises between acknowledge and EOI is lost; an event is counted twice.
#[test]
fn a_level_storm_loses_nothing() {
    if !can_run() {
        return;
    }
    const EVENTS: u64 = 2000;
    for period in [1_000, 100_000] {
        let guest = Guest::image_with_apic(Mode::XApic, |g| {
            let count = g.cell();
            handler(g, count, |g| write32(g, storm::channel(CHANNEL, storm::ACKNOWLEDGE), 1));
            g.ioapic_entry(GSI, LEVEL | u32::from(VECTOR), 0);
            start(g, Source::Level, period, EVENTS);
            asm!(g; sti;);
            // Until all are raised, and the last is acknowledged.
            let top = g.here();
            read64(g, storm::channel(CHANNEL, storm::LEFT));
            asm!(g; test rax, rax; jnz top;);
            let top = g.here();
            asm!(g; mov rax, storm::channel(CHANNEL, storm::ACKNOWLEDGE); mov eax, dword_ptr(rax); test eax, eax; jnz top;);
            g.wait_pm_ticks(3000);
            asm!(g; cli;);
            for (name, register) in [("sent", storm::SENT), ("merged", storm::MERGED), ("skipped", storm::SKIPPED)] {
                read64(g, storm::channel(CHANNEL, register));
                g.report_rax(name);
            }
            g.report("count", count);
        });
        let report = report(&guest, &["--testdev"]);
        let [sent, merged, skipped, count] = ["sent", "merged", "skipped", "count"].map(|name| report.get(name));
        assert_eq!(sent + skipped, EVENTS, "{report:?}");
        assert_eq!(count, sent - merged, "{report:?}");
        assert!(count > 0, "{report:?}");
    }
}

/// A level that is never acknowledged: its handler runs over and over, until the I/O APIC's damper holds the pin back for a
/// while.
///
/// Red when: the storm device's line is not the I/O APIC's; the damper's time does not run from HRTIMER (it never fires again).
#[test]
fn a_level_that_nobody_quiets_meets_the_damper() {
    if !can_run() {
        return;
    }
    /// EOIs in a row after which the damper engages, and a few more for which it has to let go.
    const FIRES: u32 = 10_010;
    let image = Guest::image_with_apic(Mode::XApic, |g| {
        let count = g.cell();
        handler(g, count, |_| {});
        g.ioapic_entry(GSI, LEVEL | u32::from(VECTOR), 0);
        start(g, Source::Level, 1_000, 1);
        asm!(g; sti;);
        g.halt_until(count, FIRES);
        asm!(g; cli;);
        g.print("storm\n");
        let top = g.here();
        asm!(g; pause; jmp top;);
    });
    let image = Scratch::file(&image);
    let mut user = User::run(&image, &["--testdev"]);
    user.sees("storm\r\n");
    user.types(&format!("{CTRL_A}c"));
    user.sees(PROMPT);
    let text = user.command("ioapic");
    let times = text.lines().find_map(|line| line.split_once(" times damped")?.0.rsplit(' ').next());
    assert!(times.and_then(|times| times.parse::<u32>().ok()).is_some_and(|times| times > 0), "{text}");
    user.types(&format!("{CTRL_A}x"));
    assert_eq!(user.ends(), Some(0));
}

/// Messages without pause to the second processor: the first one goes on, the monitor answers, the storm is moved to the
/// softirq thread when its rounds are used up, and nothing of it is kept.
///
/// Red when: the storm keeps the main loop from its other events; the rounds have no limit; something grows with each event.
#[test]
fn a_storm_at_saturation_leaves_the_other_processor_and_the_monitor_alone() {
    if !can_run() {
        return;
    }
    let image = Guest::image_with_apic(Mode::XApic, |g| {
        let count = g.cell();
        g.handler(VECTOR, |g| {
            g.lock_inc(count);
            g.eoi();
        });
        let online = g.application_processors(|g| {
            asm!(g; sti;);
            let top = g.here();
            asm!(g; pause; jmp top;);
        });
        g.start_all(2, online);
        let at = |register| storm::channel(CHANNEL, register);
        write64(g, at(storm::ADDRESS), 0xfee0_1000);
        write32(g, at(storm::DATA), VECTOR.into());
        write64(g, at(storm::PERIOD), 1);
        write64(g, at(storm::LEFT), storm::NO_END);
        write32(g, at(storm::CONTROL), Source::Msi.start());
        g.spin_until(count, 100);
        g.print("storm\n");
        // A key ends it.
        let top = g.here();
        g.in8(x86::platform::COM1 + 5);
        asm!(g; test al, 1; jz top;);
        write32(g, at(storm::CONTROL), 0);
        read64(g, at(storm::SENT));
        g.report_rax("sent");
        g.print("over\n");
        g.exit(crate::guest::DONE);
    });
    let image = Scratch::file(&image);
    let mut user = User::run(&image, &["--cpus", "2", "--testdev"]);
    user.sees("storm\r\n");
    user.types(&format!("{CTRL_A}c"));
    user.sees(PROMPT);
    // Whatever the storm leaves behind somewhere, so many runs of it would show.
    const RUNS: u64 = 2_000;
    let runs = |tables: &Tables| tables.softirqs["HRTIMER"][2];
    let first = Tables::ask(&mut user);
    let resident = resident_kib(&user);
    // The softirq thread has a lower priority: the monitor may answer a few times before it runs again.
    const ASKED_AT_MOST: u32 = 100;
    let (mut last, mut in_vain) = (runs(&first), 0);
    while last < runs(&first) + RUNS {
        let tables = Tables::ask(&mut user);
        in_vain = if runs(&tables) > last { 0 } else { in_vain + 1 };
        assert!(in_vain < ASKED_AT_MOST, "it goes on: {last}, {}", runs(&tables));
        last = runs(&tables);
        assert!(tables.handed_over[2] > 0, "{:?}", tables.handed_over);
        assert_eq!(tables.handed_over[..2], [0, 0], "that is the main loop's CPU alone");
    }
    let grown = resident_kib(&user).saturating_sub(resident);
    assert!(grown < 4096, "{grown} KiB more after {RUNS} runs");
    user.types(&format!("{CTRL_A}cx"));
    user.sees("over\r\n");
    assert_eq!(user.ends(), crate::program::exit_code(crate::guest::DONE));
}
