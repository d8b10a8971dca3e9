//! What an interrupt costs its vCPU's thread, counted: exits, ioctls, kicks and system calls for each one delivered, by kind.
//!
//! `cargo test --test tiny_guests counts -- --nocapture` prints the table that is in docs/benchmarks.md.
//!
//! CPU 0 takes the interrupts, CPU 1 (or CPU 0 itself) causes them, one by one: the next when CPU 0 has said, with interrupts
//! on again, that it has seen the last. The program logs the counts of each vCPU at the end; a short and a long run of the same
//! guest differ by what the interrupts cost, and nothing else.

use std::collections::HashMap;

use iced_x86::code_asm::*;
use x86::apic::reg;
use x86::{agent, platform};

use crate::chips::{LEVEL, Mode};
use crate::common;
use crate::guest::{Cell, DONE, Guest, asm};
use crate::program::{can_run, command, exit_code};
use crate::pv_eoi::{PvEoi, offered};
use crate::smp::MYSELF;

const VECTOR: u8 = 0x51;
/// A line that no device of the machine holds.
const LINE: u8 = 16;
/// The rounds of the two runs.
const SHORT: u32 = 50;
const LONG: u32 = 350;
/// By how much two starts of a guest may differ in any count.
const START: u32 = 4;
/// Measurements of one kind until one of them is as it should be.
const TRIES: u32 = 4;
/// Where the requests to the agent are.
const REQUEST: u64 = 0x30_0000;

/// Where the interrupts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Edge,
    Level,
    Msi,
    SelfIpi,
    IpiRunning,
    IpiHalted,
    Timer,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Edge, Self::Level, Self::Msi, Self::SelfIpi, Self::IpiRunning, Self::IpiHalted, Self::Timer];

    fn name(self) -> &'static str {
        match self {
            Self::Edge => "device, edge",
            Self::Level => "device, level",
            Self::Msi => "MSI",
            Self::SelfIpi => "self-IPI",
            Self::IpiRunning => "IPI to a running vCPU",
            Self::IpiHalted => "IPI to a halted vCPU",
            Self::Timer => "timer",
        }
    }

    /// Another CPU causes it.
    fn has_sender(self) -> bool {
        !matches!(self, Self::SelfIpi | Self::Timer)
    }

    /// Its vCPU's thread makes a call to wait for it: sets the timer, or sleeps.
    fn waits(self) -> bool {
        matches!(self, Self::IpiHalted | Self::Timer)
    }
}

/// A guest that takes `rounds` interrupts.
fn guest(kind: Kind, mode: Mode, pv_eoi: bool, rounds: u32) -> Vec<u8> {
    Guest::image_with_apic(mode, |g| {
        let (count, seen, pv) = (g.cell(), g.cell(), PvEoi::new(g));
        if pv_eoi {
            pv.enable(g);
        }
        g.handler(VECTOR, |g| {
            asm!(g; inc count.q(););
            if kind == Kind::Level {
                g.out8(platform::TEST_IRQ_LINES + u16::from(LINE), 0);
            }
            if pv_eoi {
                pv.eoi(g);
            } else {
                g.eoi();
            }
        });
        let online = g.application_processors(|g| {
            if kind.has_sender() {
                send(g, kind, rounds, seen);
            }
        });
        if matches!(kind, Kind::Edge | Kind::Level) {
            let level = if kind == Kind::Level { LEVEL } else { 0 };
            g.ioapic_entry(LINE, level | u32::from(VECTOR), 0);
        }
        g.start_all(2, online);
        if kind == Kind::Timer {
            g.apic_write(reg::TIMER_DIVIDE, 0b1011);
            g.apic_write(reg::LVT_TIMER, VECTOR.into());
        }
        asm!(g; sti;);
        let top = g.here();
        if !kind.has_sender() {
            asm!(g; mov rbx, count.q(); inc rbx;);
            match kind {
                Kind::Timer => g.apic_write(reg::TIMER_INITIAL, 1_000_000),
                _ => g.ipi(0, MYSELF | u32::from(VECTOR)),
            }
            g.spin_until(count, None);
        } else if kind == Kind::IpiHalted {
            asm!(g; cli; mov rax, count.q(); inc rax; mov seen.q(), rax; cmp rax, rounds as i32;);
            let mut done = g.label();
            asm!(g; ja done; sti; hlt;);
            g.place(&mut done);
        } else {
            asm!(g; pause; mov rax, count.q(); inc rax; mov seen.q(), rax;);
        }
        asm!(g; cmp count.q(), rounds as i32; jb top;);
    })
}

/// CPU 1: causes one interrupt after the other, each when CPU 0 is ready for it, which it says by its number.
fn send(g: &mut Guest, kind: Kind, rounds: u32, seen: Cell) {
    asm!(g; xor ebx, ebx;);
    let top = g.here();
    asm!(g; inc rbx;);
    g.spin_until(seen, None);
    match kind {
        Kind::Edge | Kind::Level => g.out8(platform::TEST_IRQ_LINES + u16::from(LINE), 1),
        Kind::Msi => {
            let message = platform::MSI_BASE << 32 | u64::from(VECTOR);
            let what = agent::Source::Msi as i32;
            ask_agent(g, agent::Op::Raise, |g| {
                asm!(g; mov qword_ptr(REQUEST + 8), what; mov rax, message; mov qword_ptr(REQUEST + 16), rax;
                    mov qword_ptr(REQUEST + 32), 1; mov qword_ptr(REQUEST + 40), 0;);
            });
            ask_agent(g, agent::Op::Stop, |g| {
                asm!(g; mov rax, qword_ptr(REQUEST + 48); mov qword_ptr(REQUEST + 8), rax;);
            });
        }
        _ => {
            if kind == Kind::IpiHalted {
                // Long enough for it to have halted, and to have given up polling.
                g.wait_pm_ticks(1_500);
            }
            g.ipi(0, VECTOR.into());
        }
    }
    if kind == Kind::Edge {
        // It has been told: the message is gone.
        g.out8(platform::TEST_IRQ_LINES + u16::from(LINE), 0);
    }
    asm!(g; cmp ebx, rounds; jb top;);
}

/// A request to the test agent, whose arguments `fill` writes.
fn ask_agent(g: &mut Guest, op: agent::Op, fill: impl FnOnce(&mut Guest)) {
    asm!(g; mov dword_ptr(REQUEST), op as u32;);
    fill(g);
    asm!(g; mov dx, u32::from(agent::PORT); mov eax, REQUEST as u32; out dx, eax;);
}

/// The counts of vCPU 0, by name, as the program logs them at the end.
fn counts(image: &[u8], kind: Kind) -> HashMap<String, f64> {
    let mut options = vec!["--cpus", "2", "--testdev", "-vv"];
    if kind == Kind::Msi {
        options.extend(["--agent", "/dev/null"]);
    }
    let (_file, command) = command(image, &options);
    let finished = common::run(command, b"");
    assert_eq!(finished.code, exit_code(DONE), "{kind:?}: {}", finished.stderr);
    let line = finished.stderr.lines().find_map(|line| line.split_once("vCPU 0 counts: "));
    let (_, line) = line.unwrap_or_else(|| panic!("no counts in {}", finished.stderr));
    line.split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, number)| (name.to_owned(), number.parse().expect("a number")))
        .collect()
}

/// What one interrupt costs vCPU 0, by name.
#[derive(Debug)]
struct Cost(HashMap<String, f64>);

impl Cost {
    fn of(kind: Kind, mode: Mode, pv_eoi: bool) -> Self {
        let run = |rounds: u32| counts(&guest(kind, mode, pv_eoi, rounds), kind);
        let (short, long) = (run(SHORT), run(LONG));
        let delivered = long["interrupts"] - short["interrupts"];
        assert_eq!(delivered, f64::from(LONG - SHORT), "{kind:?}, {mode:?}: each one was delivered by itself");
        Self(long.iter().map(|(name, count)| (name.clone(), (count - short[name]) / delivered)).collect())
    }

    fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("nobody counts {name:?}: {self:?}"))
    }

    /// The sum of all whose names begin so.
    fn sum(&self, prefix: &str) -> f64 {
        self.0.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    /// System calls but those that every interrupt of a running guest may cost: KVM_RUN, the end of the kick, one injection.
    fn other_calls(&self) -> f64 {
        let necessary = ["KVM_RUN", "rt_sigreturn", "KVM_INTERRUPT"];
        self.sum("call:") - necessary.iter().map(|name| self.get(&format!("call:{name}"))).sum::<f64>()
    }
}

/// Takes the cost of an interrupt until each of `costs` of it is as expected, to the last interrupt. (Starting the other CPU takes a
/// wake-up more or less, once a run.) On a busy host the interrupt may come before its vCPU halts, or while its thread is not on a
/// processor, and then costs a window or a kick more; so a measurement has [`TRIES`].
#[track_caller]
fn assert_costs(
    what: &str,
    measure: impl Fn() -> Cost,
    costs: impl Fn(&Cost) -> Vec<(&'static str, f64, f64)>,
) -> Cost {
    let mut wrong = Vec::new();
    for _ in 0..TRIES {
        let cost = measure();
        let off = |is: f64, expected: f64| ((is - expected) * f64::from(LONG - SHORT)).abs();
        match costs(&cost).into_iter().find(|&(_, is, expected)| off(is, expected) >= f64::from(START)) {
            None => return cost,
            Some((name, is, expected)) => wrong.push(format!("{name} is {is}, not {expected}: {cost:?}")),
        }
    }
    panic!("{what}: {}", wrong.join("\n"));
}

/// An edge interrupt to a running vCPU, from a device, an MSI or another vCPU, with paravirtual EOI: no EOI exit, and no
/// system call on its thread but KVM_RUN, the return from the kick, and one injection.
///
/// Red when: `arm_pv_eoi` does nothing (an EOI exit each); `arm` sets the timer although nothing waits; `inject` comes after
/// a call that looks whether it may.
#[test]
fn an_edge_interrupt_with_pv_eoi_costs_its_kick_and_its_injection() {
    if !can_run() || !offered() {
        return;
    }
    for &mode in Mode::all() {
        for kind in [Kind::Edge, Kind::Msi, Kind::IpiRunning] {
            let costs = |cost: &Cost| {
                vec![
                    ("EOI exits", cost.get("eois"), 0.0),
                    ("exits", cost.sum("exit:"), 1.0),
                    ("spared EOIs", cost.get("spared-eois"), 1.0),
                    ("injections", cost.get("call:KVM_INTERRUPT"), 1.0),
                    ("entries", cost.get("call:KVM_RUN"), 1.0),
                    ("returns from a kick", cost.get("call:rt_sigreturn"), 1.0),
                    ("other system calls", cost.other_calls(), 0.0),
                    ("signals", cost.get("kick:signal"), 1.0),
                ]
            };
            assert_costs(&format!("{kind:?}, {mode:?}"), || Cost::of(kind, mode, true), costs);
        }
    }
}

/// All kinds, with and without paravirtual EOI and x2APIC: the table, and what must hold of every row.
///
/// Red when: `eoi_can_wait` does not look at TMR; a self-IPI or the timer's interrupt kicks; a one-shot that has gone off is
/// switched off all the same.
#[test]
fn counts_of_all_kinds() {
    if !can_run() {
        return;
    }
    let pv_eois: &[bool] = if offered() { &[false, true] } else { &[false] };
    println!("{HEAD}\n{RULE}");
    for kind in Kind::ALL {
        for &mode in Mode::all() {
            for &pv_eoi in pv_eois {
                // A level's EOI is the I/O APIC's business; an edge's is spared where it may be.
                let written = if pv_eoi && kind != Kind::Level { 0.0 } else { 1.0 };
                let costs = |cost: &Cost| {
                    // Who waits may find, on a busy host, that it need not any more: then a call or a kick is saved.
                    let at_most = |is: f64, most: f64| if kind.waits() { is.max(most) } else { is };
                    let (kicks, calls) = (f64::from(kind.has_sender()), f64::from(kind.waits()));
                    vec![
                        ("EOI exits", cost.get("eois"), written),
                        ("spared EOIs", cost.get("spared-eois"), 1.0 - written),
                        ("injections", cost.get("call:KVM_INTERRUPT"), 1.0),
                        ("kicks", at_most(cost.get("kick:signal") + cost.get("kick:futex"), kicks), kicks),
                        ("other system calls", at_most(cost.other_calls(), calls), calls),
                    ]
                };
                let what = format!("{kind:?}, {mode:?}, PV EOI: {pv_eoi}");
                let cost = assert_costs(&what, || Cost::of(kind, mode, pv_eoi), costs);
                row(kind, mode, pv_eoi, &cost);
            }
        }
    }
}

const HEAD: &str = "| interrupt | APIC | PV EOI | exits | of them EOI | signals | futex wakes | KVM_RUN | KVM_INTERRUPT | \
    rt_sigreturn | other calls |";
const RULE: &str = "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|";

fn row(kind: Kind, mode: Mode, pv_eoi: bool, cost: &Cost) {
    let pv = if pv_eoi { "yes" } else { "no" };
    let columns = [
        cost.sum("exit:"),
        cost.get("eois"),
        cost.get("kick:signal"),
        cost.get("kick:futex"),
        cost.get("call:KVM_RUN"),
        cost.get("call:KVM_INTERRUPT"),
        cost.get("call:rt_sigreturn"),
        cost.other_calls(),
    ];
    // No minus in front of what rounds to nothing.
    let columns = columns.map(|count| format!("{:.2}", (count * 100.0).round() / 100.0 + 0.0)).join(" | ");
    println!("| {} | {mode:?} | {pv} | {columns} |", kind.name());
}
