//! Commands and their answers; a vCPU that does not answer.

use bottom_half::{ThreadPort, Vector};
use devices::{Alarm, Pm};
use irqchip::ioapic::IoApic;
use irqchip::lapic::{Config, LocalApic};
use irqchip::line::LineTarget;
use irqchip::message::{Accepted, Message};
use irqchip::pic::{PicPair, PicPort};
use parking_lot::Mutex;
use x86::Nanos;
use x86::apic::{TriggerMode, reg};
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};

use super::*;
use crate::clock::Clock;
use crate::main_loop::Doorbell;

struct Nobody;

impl LineTarget for Nobody {
    fn set_level(&self, _gsi: u8, _level: bool) {}
}

impl Alarm for Nobody {
    fn arm(&self, _at: Option<Nanos>) {}
}

struct Pair(PicState, IoApicState);

impl Chips for Pair {
    fn pic(&self) -> PicState {
        self.0.clone()
    }

    fn ioapic(&self) -> IoApicState {
        self.1.clone()
    }

    fn ledger(&self) -> ChipLedger {
        let pin = |(number, pin): (usize, &irqchip::ioapic::PinState)| (number as u8, (pin.counters.account, false));
        ChipLedger { pins: self.1.pins.iter().enumerate().map(pin).collect(), ..ChipLedger::default() }
    }
}

fn local_apic() -> LocalApic {
    let mut apic =
        LocalApic::new(Config { id: 3, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 });
    let _ = apic.enter_virtual_wire_mode();
    let _ = apic.write_mmio(0, u64::from(reg::LVT_TIMER), &(0x400ec_u32).to_le_bytes());
    let _ = apic.write_mmio(0, u64::from(reg::TIMER_DIVIDE), &3_u32.to_le_bytes());
    apic.accept(0x31, TriggerMode::Edge);
    apic.accept(0x62, TriggerMode::Level);
    apic.acknowledge();
    apic
}

fn answer() -> Answer {
    let apic = local_apic();
    let registers = ApicRegisters { base: apic.base(), page: apic.page(0), tsc_deadline: 0x1234 };
    Answer { summary: "vCPU 0: here".to_owned(), apic: Some(registers) }
}

/// Runs a line on a machine of two vCPUs, of which the second is stuck; gives the reply, and the NMIs that were sent.
fn run(line: &str) -> (Reply, Vec<usize>, bool) {
    let doorbell = Doorbell::new().expect("an eventfd");
    let stopper = Stopper::new(doorbell);
    let pm = Pm::new(Wire::new(9, Arc::new(Nobody)).holder(), Arc::new(Nobody), stopper.clone());
    let wire = Wire::new(4, Arc::new(Nobody));
    let mut holder = wire.holder();
    holder.pulse();
    holder.set(true);
    let nmis = Mutex::new(Vec::new());
    let questions = Questions::new(2);
    let attention = |index: usize| {
        if index == 0 {
            questions.take(0).expect("a question").answer(answer());
        }
    };
    let (bottom_halves, owners) =
        System::new(bottom_half::Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    owners[0].top_half(|top| top.raise(Vector::Block));
    let chips: Arc<dyn Chips> = Arc::new(Pair(pics().save(), ioapic().save()));
    let processors = crate::interrupts::Processors::new((0..2).map(|_| Default::default()).collect());
    processors.counts(1).interrupt(0x51);
    let monitor = Monitor {
        books: Books::of_parts(&processors, Some(Arc::clone(&chips)), &bottom_halves),
        stopper: Arc::clone(&stopper),
        power_button: PowerButton::new(Clock::start(), Arc::new(Mutex::new(pm))),
        wires: vec![wire, Wire::new(5, Arc::new(Nobody))],
        chips: Some(chips),
        questions: &questions,
        attention: &attention,
        nmi: &|index| nmis.lock().push(index),
        bottom_halves: bottom_halves.clone(),
        patience: Duration::from_millis(10),
    };
    let reply = monitor.execute(line);
    let sent = nmis.lock().clone();
    bottom_halves.shutdown(None).expect("nothing of it is stuck");
    (reply, sent, stopper.is_stopped())
}

fn text(line: &str) -> String {
    let (reply, nmis, stopped) = run(line);
    assert_eq!((reply.then, nmis, stopped), (Then::Stay, vec![], false), "{line}");
    assert!(reply.text.is_empty() || reply.text.ends_with('\n'), "{line}");
    reply.text
}

/// Pin 4: level, logical, in service.
fn ioapic() -> IoApic {
    let mut ioapic = IoApic::new(0);
    let sink = &mut |_: &Message| Accepted::Yes;
    for (register, value) in [(9_u8, 0x0300_0000_u32), (8, 0xa951)] {
        ioapic.write(0, IOREGSEL, &[REG_TABLE + register], sink);
        ioapic.write(0, IOWIN, &value.to_le_bytes(), sink);
    }
    ioapic.set_line(4, true, sink);
    ioapic
}

fn pics() -> PicPair {
    let mut pics = PicPair::new();
    for (port, value) in [
        (PicPort::MasterCommand, 0x11),
        (PicPort::MasterData, 0x30),
        (PicPort::MasterData, 4),
        (PicPort::MasterData, 3),
        (PicPort::MasterData, 0xfa),
    ] {
        pics.write(port, value);
    }
    pics.set_line(0, true);
    pics
}

#[test]
fn softirq_shows_what_has_run() {
    let text = text("softirq");
    assert!(text.starts_with("           CPU0\n"), "{text}");
    assert!(text.lines().any(|line| line == "    BLOCK:          1"), "{text}");
    assert!(text.contains("HANDOVER") && text.contains("QUEUE "), "{text}");
}

#[test]
fn what_is_asked_of_a_vcpu_that_is_stuck_is_answered_for_it() {
    assert!(text("lapic 1").contains("vCPU 1 does not answer"));
    let both = text("vcpu");
    assert_eq!(both.lines().collect::<Vec<_>>(), ["vCPU 0: here", no_answer(1).trim_end()]);
}

#[test]
fn an_answer_that_comes_too_late_is_lost() {
    let questions = Questions::new(1);
    let late = questions.ask(&[0], Duration::ZERO, &|_| {});
    assert!(late[0].is_none());
    questions.take(0).expect("still there").answer(answer());
    assert!(questions.take(0).is_none());
    let quick = questions.ask(&[0], PATIENCE, &|_| questions.take(0).expect("the new one").answer(answer()));
    assert!(quick[0].is_some());
}

#[test]
fn a_local_apic_in_words() {
    let shown = text("lapic 0");
    for words in [
        "xAPIC, bootstrap processor; IA32_APIC_BASE 0xfee00900",
        "ID      03000000   version 0x14, 6 LVT entries",
        "PPR 60",
        "SVR     000001ff   enabled, spurious vector 0xff",
        "LVT Timer   000400ec vector 0xec, TSC-deadline\n",
        "LVT LINT0   00000700 vector 0x00, ExtINT, edge, active high\n",
        "LVT Thermal 00010000 vector 0x00, Fixed, masked\n",
        "divide by 16; IA32_TSC_DEADLINE 0x1234",
        "IRR     0x31\n",
        "ISR     0x62\n",
        "TMR     0x62\n",
    ] {
        assert!(shown.contains(words), "no {words:?} in\n{shown}");
    }
}

#[test]
fn chips_in_words() {
    let shown = text("ioapic");
    let pin: Vec<&str> = shown.lines().nth(2 + 4).expect("24 lines").split_whitespace().collect();
    assert_eq!(pin[..8], ["4", "high", "0x51", "LowestPri", "logical", "0x3", "level", "low"], "{shown}");
    assert_eq!(pin[8..], ["1", "remote", "IRR", "(vector", "0x51)"], "{shown}");
    assert_eq!(shown.lines().count(), 2 + 24);
    let shown = text("pic");
    for words in ["8259A master: vectors 0x30 to 0x37", "automatic EOI", "IRR  01  IRQ 0", "IMR  fa  IRQ 1 3 4 5 6 7"] {
        assert!(shown.contains(words), "no {words:?} in\n{shown}");
    }
    assert!(shown.contains("8259A slave: vectors 0x00 to 0x07, lowest priority 15, not initialised"), "{shown}");
}

#[test]
fn lines_in_words() {
    let shown = text("irq");
    // The tables of vCPUs and of the ledger come behind an empty line.
    let lines = shown.lines().take_while(|line| !line.is_empty());
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "only what somebody holds: {shown}");
    assert_eq!(lines[1], ["4", "2", "high", "1", "of", "1", "vector", "0x51,", "1", "sent"], "{shown}");
}

#[test]
fn what_is_no_command_is_answered() {
    for (line, words) in [
        ("lapic", "of which vCPU"),
        ("lapic x", "no vCPU \"x\"; give 0 to 1"),
        ("nmi 2", "no vCPU \"2\"; give 0 to 1"),
        ("nmi -1", "give 0 to 1"),
        ("irq 4", "irq takes no \"4\""),
        ("frobnicate", "no command \"frobnicate\"; see 'help'"),
    ] {
        assert!(text(line).contains(words), "{line}: {}", text(line));
    }
    assert_eq!(text("  "), "");
    assert_eq!(text("help"), HELP);
}

#[test]
fn commands_that_do_something() {
    assert_eq!(run("nmi 1").1, [1]);
    assert!(run("reset").2);
    assert_eq!(run("quit").0.then, Then::Quit);
    assert_eq!(run("cont").0, Reply { text: String::new(), then: Then::Close });
    assert!(text("powerdown").contains("pressed"));
}
