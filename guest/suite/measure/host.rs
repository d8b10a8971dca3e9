//! Interrupts from outside: an open loop. The host raises events at times that it has drawn; each is counted from the time at which it
//! was meant to come. This CPU spins meanwhile.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kernel::agent::{self, Stream, Target};
use kernel::arch::frame::Frame;
use kernel::arch::nmi;
use kernel::arch::percpu::this_cpu;
use kernel::arch::stamp::Stamping;
use kernel::boot::info::boot_info;
use kernel::chips::{apic, i8259, ioapic};
use kernel::irq::chip;
use kernel::measure::{EVENTS_MAX, LATENCY, Slots, between, events, hand_over, spin_until, watched};
use kernel::measurement;
use kernel::random::Random;
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult};
use kernel::time::tsc;
use x86::agent::{Op, Status};
use x86::ioapic::RedirectionEntry;
use x86::test_record::Needs;

use super::{VECTOR, with_stamps};

measurement!("device_edge", edge; .needs(Needs::AGENT));
measurement!("device_level", level; .needs(Needs::AGENT));
measurement!("pic_extint", extint; .needs(Needs::AGENT));
measurement!("msi", msi; .needs(Needs::AGENT));
measurement!("nmi", non_maskable; .needs(Needs::AGENT));

/// A pin that no device of the machine has.
const PIN: u8 = 21;
/// An input of the 8259A pair that no device of the machine has.
const INPUT: u8 = 5;

static SLOTS: Slots = Slots::new();
/// When the event was served: at the gate, or at the end of its EOI.
static SERVED: [AtomicU64; EVENTS_MAX] = [const { AtomicU64::new(0) }; EVENTS_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The level stream's handle.
static HANDLE: AtomicU64 = AtomicU64::new(u64::MAX);

/// All events that were raised by `until` and are not served yet have been served at `at`; but not before they were raised. One that
/// came later has an interrupt of its own.
fn serve(until: u64, at: u64) {
    let mut next = NEXT.load(Ordering::SeqCst);
    while let Some(slot) = SLOTS.get(next).filter(|slot| slot.raised <= until) {
        SERVED[next].store(if slot.raised <= at { at } else { until }, Ordering::SeqCst);
        next += 1;
    }
    NEXT.store(next, Ordering::SeqCst);
}

fn serve_at_gate() {
    let stamp = this_cpu().take_stamp();
    serve(stamp, stamp);
}

/// Lowers the level stream's line; gives the time. What was raised before has found it up, or has raised it.
fn lower() -> u64 {
    let _ = agent::call(Op::Acknowledge, [HANDLE.load(Ordering::SeqCst), 0, 0, 0, 0]);
    tsc::read()
}

fn at_gate(_: &mut Frame) {
    serve_at_gate();
    apic::eoi();
}

fn edge() -> TestResult {
    with_stamps(VECTOR, at_gate, || with_pin(false, || run(Target::Pulse(PIN.into()), 1)))
}

/// The handler lowers the line and ends the interrupt; that belongs to it, so it counts.
fn level() -> TestResult {
    fn at_end(_: &mut Frame) {
        let down = lower();
        apic::eoi();
        serve(down, tsc::read());
    }
    with_stamps(VECTOR, at_end, || with_pin(true, || run(Target::Level(PIN.into()), 2)))
}

/// Through the 8259A pair and LINT0: the vector comes from the pair, not from the local APIC. The line stays up until the handler
/// lowers it: an edge that is gone before it is acknowledged is a spurious interrupt (Intel 8259A datasheet, "Interrupt Sequence").
fn extint() -> TestResult {
    fn at_gate(_: &mut Frame) {
        let stamp = this_cpu().take_stamp();
        serve(lower(), stamp);
        i8259::eoi(INPUT);
    }
    with_stamps(i8259::VECTOR_BASE + INPUT, at_gate, || {
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
    with_stamps(VECTOR, at_gate, || run(Target::Msi { address, data }, 4))
}

fn non_maskable() -> TestResult {
    fn at_gate(_: &Frame) {
        serve_at_gate();
    }
    let old = nmi::set_handler(Some(at_gate));
    let result = {
        let _stamping = Stamping::new(x86::vector::NMI);
        run(Target::Nmi(apic::id()), 5)
    };
    nmi::set_handler(old);
    result
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
    NEXT.store(0, Ordering::SeqCst);
    HANDLE.store(u64::MAX, Ordering::SeqCst);
    // Much longer than a handler takes: what is measured is one interrupt, not a queue of them.
    let mean = if boot_info().software_host() { 5_000_000 } else { 400_000 };
    let seed = Random::from_seed(0x100 + stream).next() as u32;
    watched(|| {
        // A handler that can't lower the line yet would leave it up: an edge input then never sees another edge.
        let stream = without_interrupts(|| -> Result<_, Failure> {
            let stream = Stream::start_drawn(target, mean, seed, count, &SLOTS).map_err(refused)?;
            HANDLE.store(stream.handle(), Ordering::SeqCst);
            Ok(stream)
        })?;
        let result = spin_until_served(count);
        stream.stop().map_err(refused)?;
        result
    })?;
    let slots = (0..count).filter_map(|n| Some((SLOTS.get(n)?, SERVED[n].load(Ordering::SeqCst))));
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
    let served = || NEXT.load(Ordering::SeqCst);
    while served() < count {
        let before = served();
        spin_until(|| served() > before)?;
    }
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
