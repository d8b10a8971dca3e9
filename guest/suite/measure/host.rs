//! Interrupts from outside: an open loop. The host raises events at times that it has drawn; each is counted from the time at which it
//! was meant to come. This CPU spins meanwhile.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::agent::{self, Stream, Target};
use kernel::arch::frame::Frame;
use kernel::arch::nmi;
use kernel::arch::percpu::this_cpu;
use kernel::arch::stamp::Stamping;
use kernel::arch::vectors::Handler;
use kernel::boot::info::boot_info;
use kernel::chips::{apic, i8259, ioapic};
use kernel::irq::chip;
use kernel::measure::{Events, LATENCY, between, events, hand_over, spin_until, watched};
use kernel::random::Random;
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult};
use kernel::time::tsc;
use kernel::{check_eq, measurement, test};
use x86::agent::{Op, Slot, Status};
use x86::ioapic::RedirectionEntry;
use x86::test_record::Needs;

use super::{VECTOR, with_stamping};

measurement!("device_edge", edge; .needs(Needs::AGENT));
measurement!("device_level", level; .needs(Needs::AGENT));
measurement!("pic_extint", extint; .needs(Needs::AGENT));
measurement!("msi", msi; .needs(Needs::AGENT));
measurement!("nmi", non_maskable; .needs(Needs::AGENT));

test!("measure.events_are_served_by_number", [], by_number);

/// A pin that no device of the machine has.
const PIN: u8 = 21;
/// An input of the 8259A pair that no device of the machine has.
const INPUT: u8 = 5;

static EVENTS: Events = Events::new();
/// Entries of the handler.
static ENTRIES: AtomicU64 = AtomicU64::new(0);
/// The level stream's handle.
static HANDLE: AtomicU64 = AtomicU64::new(u64::MAX);

/// What came as this interrupt was counted before it was accepted, so by the time of its gate.
fn serve_at_gate() {
    ENTRIES.fetch_add(1, Ordering::SeqCst);
    let (stamp, count) = (this_cpu().take_stamp(), this_cpu().counted());
    EVENTS.serve(count, stamp, tsc::read());
}

/// Lowers the level stream's line; gives the number of its last event. That and what came before has found the line up, or has raised it;
/// what comes later raises it anew.
fn lower() -> u64 {
    ENTRIES.fetch_add(1, Ordering::SeqCst);
    // A stream that can't be acknowledged is missed at the end: nothing more is served.
    agent::call(Op::Acknowledge, [HANDLE.load(Ordering::SeqCst), 0, 0, 0, 0]).map_or(0, |[sent, _]| sent)
}

fn at_gate(_: &mut Frame) {
    serve_at_gate();
    apic::eoi();
}

fn edge() -> TestResult {
    with_events(VECTOR, at_gate, || with_pin(false, || run(Target::Pulse(PIN.into()), 1)))
}

/// The handler lowers the line and ends the interrupt; that belongs to it, so it counts.
fn level() -> TestResult {
    fn at_end(_: &mut Frame) {
        let count = lower();
        apic::eoi();
        let end = tsc::read();
        EVENTS.serve(count, end, end);
    }
    with_events(VECTOR, at_end, || with_pin(true, || run(Target::Level(PIN.into()), 2)))
}

/// Through the 8259A pair and LINT0: the vector comes from the pair, not from the local APIC. The line stays up until the handler
/// lowers it: an edge that is gone before it is acknowledged is a spurious interrupt (Intel 8259A datasheet, "Interrupt Sequence").
fn extint() -> TestResult {
    fn at_gate(_: &mut Frame) {
        let stamp = this_cpu().take_stamp();
        let count = lower();
        EVENTS.serve(count, stamp, tsc::read());
        i8259::eoi(INPUT);
    }
    with_events(i8259::VECTOR_BASE + INPUT, at_gate, || {
        i8259::init();
        i8259::unmask(INPUT);
        apic::connect_pic(true);
        let result = run(Target::Level(INPUT.into()), 3);
        apic::connect_pic(false);
        i8259::init();
        result
    })
}

fn msi() -> TestResult {
    let (address, data) = chip::message(VECTOR, 1);
    with_events(VECTOR, at_gate, || run(Target::Msi { address, data }, 4))
}

fn non_maskable() -> TestResult {
    fn at_gate(_: &Frame) {
        serve_at_gate();
    }
    let old = nmi::set_handler(Some(at_gate));
    let result = {
        let _stamping = Stamping::counting(x86::vector::NMI, EVENTS.counter());
        run(Target::Nmi(apic::id()), 5)
    };
    nmi::set_handler(old);
    result
}

/// With the vector stamped and handled, and events counted at its gate.
fn with_events(vector: u8, handler: Handler, body: impl FnOnce() -> TestResult) -> TestResult {
    with_stamping(vector, || Stamping::counting(vector, EVENTS.counter()), handler, body)
}

fn with_pin(level: bool, body: impl FnOnce() -> TestResult) -> TestResult {
    let entry = RedirectionEntry::new().with_vector(VECTOR).with_level(level).with_destination(apic::id() as u8);
    ioapic::set_entry(PIN, entry);
    let result = body();
    // Whole: KVM's local APICs report the EOIs of a level entry's vector, masked or not.
    ioapic::set_entry(PIN, RedirectionEntry::new().with_masked(true));
    result
}

/// Has the events raised, waits for them, and hands over what they took. `stream` gives other times to each measurement.
fn run(target: Target, stream: u64) -> TestResult {
    let count = events();
    EVENTS.reset();
    ENTRIES.store(0, Ordering::SeqCst);
    HANDLE.store(u64::MAX, Ordering::SeqCst);
    // Much longer than a handler takes: what is measured is one interrupt, not a queue of them.
    let mean = if boot_info().software_host() { 5_000_000 } else { 400_000 };
    let seed = Random::from_seed(0x100 + stream).next() as u32;
    watched(|| {
        // A handler that can't lower the line yet would leave it up: an edge input then never sees another edge.
        let stream = without_interrupts(|| -> Result<_, Failure> {
            let stream = Stream::start_drawn(target, mean, seed, count, &EVENTS).map_err(refused)?;
            HANDLE.store(stream.handle(), Ordering::SeqCst);
            Ok(stream)
        })?;
        let result = spin_until_served(count).map_err(|failure| explain(&failure, &stream));
        stream.stop().map_err(refused)?;
        result
    })?;
    let slots = (0..count).filter_map(|n| Some((EVENTS.get(n)?, EVENTS.served_at(n)?)));
    let (mut whole, mut before, mut after) = (alloc::vec::Vec::new(), alloc::vec::Vec::new(), alloc::vec::Vec::new());
    for (slot, served) in slots {
        whole.push(between(slot.due, served));
        before.push(between(slot.due, slot.raised));
        after.push(between(slot.raised, served));
    }
    hand_over(LATENCY, &whole);
    hand_over("due to raised", &before);
    hand_over("raised to served", &after);
    Ok(())
}

/// As long as there is progress.
fn spin_until_served(count: usize) -> TestResult {
    let served = || EVENTS.served();
    while served() < count {
        let before = served();
        spin_until(|| served() > before)?;
    }
    Ok(())
}

/// All that can be seen of a wait in vain: who has lost the event? What is asked of the host leaves the guest, so an interrupt that
/// only nobody had injected comes now.
fn explain(failure: &Failure, stream: &Stream) -> Failure {
    let (entries, served) = (ENTRIES.load(Ordering::SeqCst), EVENTS.served());
    let chips = i8259::Chip::Master;
    let progress = stream.progress();
    let (irr, isr, mask) = (chips.irr(), chips.isr(), chips.mask());
    let (requested, in_service) = (apic::requested(VECTOR), apic::in_service(VECTOR));
    let pin = ioapic::entry(PIN);
    let now = tsc::read();
    let ago = |n: usize| EVENTS.get(n).map(|slot| now.wrapping_sub(slot.raised).cast_signed());
    let since_stamp = now.wrapping_sub(served.checked_sub(1).and_then(|last| EVENTS.served_at(last)).unwrap_or(now));
    Failure::new(format_args!(
        "{failure}: {served} events served by {entries} entries, the last of them {since_stamp} ticks ago; the host says {progress:?}, the next \
         event was raised {:?} ticks ago; 8259A IRR {irr:#x} ISR {isr:#x} IMR {mask:#x}; local APIC: requested {requested}, in service \
         {in_service}; pin {pin:?}; by now {} events served by {} entries",
        ago(served),
        EVENTS.served(),
        ENTRIES.load(Ordering::SeqCst),
    ))
}

/// Two clocks that disagree make no event wait for an interrupt that has been: what is counted is served, and the time says what is wrong.
fn by_number() -> TestResult {
    static MADE_UP: Events = Events::new();
    let write = |count: u64, raised: u64| {
        MADE_UP.write(count, Slot { due: raised, raised });
    };
    write(1, 100);
    // Merged with the first, by a clock that is ahead.
    write(2, 5_000);
    // Not merged: raised after the gate had counted.
    write(3, 150);
    MADE_UP.serve(2, 200, 300);
    check_eq!(MADE_UP.served(), 2, "events served");
    check_eq!(MADE_UP.served_at(0), Some(200), "the first");
    check_eq!(MADE_UP.served_at(1), Some(300), "one that seems to come later");
    check_eq!(MADE_UP.served_at(2), None, "one with an interrupt of its own");
    MADE_UP.serve(3, 400, 500);
    check_eq!(MADE_UP.served_at(2), Some(400), "by its own interrupt");
    check_eq!(MADE_UP.served_at(1), Some(300), "served once");
    Ok(())
}

fn refused(status: Status) -> Failure {
    match status {
        Status::Unsupported => {
            Failure::skip(format_args!("the guest's TSC can't be joined with the host's: its offset is not known here"))
        }
        status => Failure::new(format_args!("the agent says {status:?}")),
    }
}
