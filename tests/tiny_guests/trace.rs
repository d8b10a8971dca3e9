//! The life-cycle trace of real guests: each interrupt that they say they had is in it, with all its steps in order.

use std::path::Path;
use std::process::Command;

use iced_x86::code_asm::*;
use vmm::trace::event::Event;
use vmm::trace::{End, Interrupt, Recording, Source, Story};
use x86::platform::{COM1, TRACE_MARK, TRACE_MARK_ON};

use crate::chips::{LEVEL, Mode};
use crate::common::{self, Finished, Scratch, tophalf};
use crate::guest::{DONE, Guest, asm};
use crate::program::{Report, can_run, exit_code, report, run};

static IMAGE: &[u8] = include_bytes!(env!("TOPHALF_GUEST"));

const PING: u8 = 0x61;
const PONG: u8 = 0x62;
const VECTOR: u8 = 0x50;
const SERIAL_PIN: u8 = 4;
const ROUNDS: u32 = 40;

/// Marks the entry of a handler.
fn mark(g: &mut Guest, vector: u8) {
    g.out8(TRACE_MARK, vector);
}

/// Two CPUs that answer each other's IPIs, each round after the other.
fn ping_pong(mode: Mode, rounds: u32) -> Vec<u8> {
    Guest::image_with_apic(mode, |g| {
        let (pings, pongs, mark_port) = (g.cell(), g.cell(), g.cell());
        g.handler(PING, |g| {
            mark(g, PING);
            asm!(g; inc pings.q(););
            g.eoi();
            g.ipi(0, PONG.into());
        });
        g.handler(PONG, |g| {
            let mut last = g.label();
            mark(g, PONG);
            asm!(g; inc pongs.q(););
            g.eoi();
            asm!(g; cmp pongs.q(), rounds as i32; jae last;);
            g.ipi(1, PING.into());
            g.place(&mut last);
        });
        let online = g.application_processors(|_| {});
        g.start_all(2, online);
        g.in8(TRACE_MARK);
        asm!(g; movzx eax, al; mov mark_port.q(), rax;);
        g.ipi(1, PING.into());
        g.halt_until(pongs, rounds);
        g.report("pings", pings);
        g.report("mark", mark_port);
    })
}

fn story(trace: &Scratch) -> Story {
    Story::of(&Recording::read(trace.path()).unwrap_or_else(|e| panic!("{e}")))
}

fn name(trace: &Scratch) -> &str {
    trace.path().to_str().expect("a name in UTF-8")
}

/// Where the first step of this kind is.
fn place(interrupt: &Interrupt, is: impl Fn(&Event) -> bool) -> usize {
    let at = interrupt.steps.iter().position(|step| is(&step.event));
    at.unwrap_or_else(|| panic!("a step is missing: {interrupt:#?}"))
}

/// Each IPI of a guest: sent by the one, posted to the other, taken into IRR, injected, marked by its handler, ended; in this
/// order, and with the registers that this makes.
///
/// Red when: a hook is gone; a post is joined with another's request; the registers before an event are not those after the
/// one before.
#[test]
fn each_ipi_has_its_whole_life_in_the_trace() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let trace = Scratch::name();
        let report = report(&ping_pong(mode, ROUNDS), &["--cpus", "2", "--trace", name(&trace)]);
        assert_eq!(report.get("pings"), u64::from(ROUNDS));
        assert_eq!(report.get("mark"), u64::from(TRACE_MARK_ON), "a traced machine has the port");
        let story = story(&trace);
        assert_eq!((story.mode, story.lost, story.ended_early.as_deref()), ("user", 0, None));
        for (vector, from, to) in [(PING, 0, 1), (PONG, 1, 0)] {
            let all: Vec<_> = story.interrupts.iter().filter(|i| i.vector == Some(vector)).collect();
            assert_eq!(all.len(), ROUNDS as usize, "{mode:?}, vector {vector:#x}");
            for interrupt in all {
                assert_eq!((interrupt.source, interrupt.vcpu), (Source::Ipi(from), Some(to)));
                assert_eq!(interrupt.end, End::Done, "{interrupt:#?}");
                let at = [
                    place(interrupt, |e| matches!(e, Event::Ipi { .. })),
                    place(interrupt, |e| matches!(e, Event::Posted { .. })),
                    place(interrupt, |e| matches!(e, Event::Requested { .. })),
                    place(interrupt, |e| matches!(e, Event::Injected { .. })),
                    place(interrupt, |e| matches!(e, Event::Marked { .. })),
                    place(interrupt, |e| matches!(e, Event::Ended { .. })),
                ];
                assert!(at.is_sorted(), "{mode:?}: {interrupt:#?}");
                let injected = &interrupt.steps[at[3]];
                let Event::Injected { apic, .. } = injected.event else { panic!("{injected:?}") };
                let before = injected.before.expect("a request came before it");
                let bit = |set: [u64; 4]| set[usize::from(vector / 64)] >> (vector % 64) & 1;
                assert_eq!((bit(before.irr), bit(before.isr), before.ppr), (1, 0, 0), "{interrupt:#?}");
                assert_eq!((bit(apic.irr), bit(apic.isr), apic.ppr), (0, 1, vector & 0xf0), "{interrupt:#?}");
            }
        }
    }
}

/// The serial port asks until its IIR is read, which the handler does the third time: two of the EOIs find the line up.
///
/// Red when: `Trace::after_pins` does not see that an EOI has made a pin fire again.
#[test]
fn a_level_interrupt_shows_its_line_looked_at_again() {
    if !can_run() {
        return;
    }
    let trace = Scratch::name();
    let guest = Guest::image_with_apic(Mode::all()[0], |g| {
        let fires = g.cell();
        g.handler(VECTOR, |g| {
            let mut quiet = g.label();
            asm!(g; cmp fires.q(), 2; jb quiet;);
            g.in8(COM1 + 2);
            g.place(&mut quiet);
            g.eoi();
            asm!(g; inc fires.q(););
        });
        g.ioapic_entry(SERIAL_PIN, LEVEL | u32::from(VECTOR), 0);
        g.out8(COM1 + 4, 0x08);
        g.out8(COM1 + 1, 2);
        g.halt_until(fires, 3);
        g.report("fires", fires);
    });
    let report = report(&guest, &["--trace", name(&trace)]);
    assert_eq!(report.get("fires"), 3);
    let story = story(&trace);
    let all: Vec<_> = story.interrupts.iter().filter(|i| i.vector == Some(VECTOR)).collect();
    let looks: Vec<_> = all
        .iter()
        .flat_map(|interrupt| &interrupt.steps)
        .filter_map(|step| match step.event {
            Event::PinEnded { pin, asserted, .. } => Some((pin, asserted)),
            _ => None,
        })
        .collect();
    // What comes after is the report's, by the same port.
    assert_eq!(looks[..3], [(SERIAL_PIN, true), (SERIAL_PIN, true), (SERIAL_PIN, false)]);
    for interrupt in &all[..3] {
        assert_eq!((interrupt.source, interrupt.end, interrupt.level), (Source::Pin(SERIAL_PIN), End::Done, true));
    }
    place(all[0], |event| matches!(event, Event::Line { level: true, .. }));
}

fn explain(arguments: &[&str]) -> Finished {
    let mut command = tophalf();
    command.arg("explain").args(arguments);
    common::run(command, b"")
}

/// Red when: an answer of `explain` loses what its words here say.
#[test]
fn explain_tells_an_interrupts_story() {
    if !can_run() {
        return;
    }
    let (trace, export) = (Scratch::name(), Scratch::name());
    report(&ping_pong(Mode::all()[0], 3), &["--cpus", "2", "--trace", name(&trace)]);
    let answer = |arguments: &[&str]| {
        let finished = explain(&[&[name(&trace)], arguments].concat());
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        String::from_utf8(finished.stdout).expect("text")
    };
    let summary = answer(&[]);
    assert!(summary.contains("interrupts in ") && summary.contains("ICR of vCPU 1"), "{summary}");
    let first = story(&trace).interrupts.iter().find(|i| i.vector == Some(PING)).expect("a ping").id;
    let told = answer(&["--id", &first.to_string()]);
    for words in [
        "vector 0x61 for vCPU 1 from ICR of vCPU 0",
        "asserted: vCPU 0 writes its ICR",
        "posted to vCPU 1",
        "in IRR of vCPU 1, from its mailbox",
        "before: TPR 00 PPR 00 IRR {} ISR {}",
        "after:  TPR 00 PPR 00 IRR {61} ISR {}",
        "injected into vCPU 1: from IRR to ISR",
        "after:  TPR 00 PPR 60 IRR {} ISR {61}",
        "handler entered",
        "EOI by vCPU 1",
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    assert_eq!(answer(&["--slowest", "2"]).matches("\ninterrupt ").count(), 2);
    assert!(answer(&["--lost"]).contains("did not come to their end"));
    let path = format!("{}.json", name(&export));
    assert_eq!(answer(&["--export", &path]), "");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("it is JSON");
    let _ = std::fs::remove_file(path);
    let handler = |event: &&serde_json::Value| event["ph"] == "X" && event["name"] == "vector 0x61";
    assert_eq!(json["traceEvents"].as_array().expect("a list").iter().filter(handler).count(), 3);
    for (arguments, words) in [
        (&["--id", "0"][..], "there is no interrupt 0"),
        (&["--id", "99999"], "give --id 1 to "),
        (&["--id", "seven"], "give --id such as 17"),
        (&["--export", "x.txt"], "give --export a name with .json"),
    ] {
        let finished = explain(&[&[name(&trace)], arguments].concat());
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(words) && finished.stderr.lines().count() == 1, "{finished:?}");
    }
}

/// The machine goes on when the trace can't, says so in one line, and the trace says it too.
///
/// Red when: SIGXFSZ is not ignored; an error of the drain is not told in the header.
#[test]
fn a_full_disk_ends_the_trace_and_not_the_machine() {
    if !can_run() {
        return;
    }
    let (trace, kernel) = (Scratch::name(), Scratch::file(&ping_pong(Mode::all()[0], ROUNDS)));
    let mut command = Command::new("sh");
    // Blocks of 512 or 1024 bytes, by the shell: far less than the trace has.
    let script = "ulimit -f 16; exec \"$0\" run --memory 64M --cpus 2 --trace \"$1\" \"$2\"";
    let program = tophalf();
    command.args(["-c", script]).arg(program.get_program()).args([trace.path(), kernel.path()]).env_remove("RUST_LOG");
    let finished = common::run(command, b"");
    assert_eq!(finished.code, exit_code(DONE), "{finished:?}");
    assert_eq!(Report::new(&finished).get("pings"), u64::from(ROUNDS), "the guest has had all it wanted");
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert!(
        matches!(lines[..], [line] if line.contains("ends here") && line.contains("the machine goes on")),
        "{lines:?}"
    );
    let told = explain(&[name(&trace)]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(text.contains("note: the trace ended before the machine did: File too large"), "{text}");
}

/// Killed, it leaves a trace that says so.
#[test]
fn a_trace_that_nobody_ended_is_refused() {
    let trace = Scratch::file(b"TOPHALFT\x01\0\0\0\x20\0\0\0");
    let finished = explain(&[name(&trace)]);
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(2), &b""[..]));
    assert!(finished.stderr.contains("is cut short") && finished.stderr.lines().count() == 1, "{finished:?}");
    let finished = run(b"", &["--trace", "/nowhere/trace"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
}

/// The guest kernel marks each of its handlers when its machine is traced.
///
/// Red when: the guest kernel does not find the port, or marks late.
#[test]
fn the_guest_kernels_handlers_are_marked() {
    if !can_run() {
        return;
    }
    let (trace, image) = (Scratch::name(), Scratch::file(IMAGE));
    let mut program = tophalf();
    program.args(["run", "--memory", "64M", "--cpus", "2", "--cmdline"]);
    let host = if Path::new("/sys/module/kvm_pvm").exists() { " host=software" } else { "" };
    program.arg(format!("test=conservation.ipis_between_cpus count=20{host}"));
    program.args(["--trace", name(&trace)]).arg(image.path());
    let finished = common::run(program, b"");
    assert_eq!(finished.code, Some(1), "nothing failed: {finished:?}");
    let story = story(&trace);
    let is_marked = |i: &&Interrupt| i.steps.iter().any(|step| matches!(step.event, Event::Marked { .. }));
    let ipis = story.interrupts.iter().filter(|i| matches!(i.source, Source::Ipi(_)) && i.vector.is_some());
    let injected: Vec<_> =
        ipis.filter(|i| i.steps.iter().any(|step| matches!(step.event, Event::Injected { .. }))).collect();
    assert!(injected.len() >= 20, "{}", injected.len());
    if let Some(unmarked) = injected.iter().find(|interrupt| !is_marked(interrupt)) {
        panic!("its handler did not say so: {unmarked:#?}");
    }
}
