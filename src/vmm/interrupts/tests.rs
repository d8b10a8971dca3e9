//! The locks' shell: alarms, wires between the chips, and what is tried again. tests/flows.rs has the whole paths.

use std::sync::atomic::Ordering;

use irqchip::lapic::Config;
use irqchip::mailbox::{Events, Lint0};
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE, RedirectionEntry};

use super::*;
use crate::io_bus::Handler;

const VECTOR: u8 = 0x51;

fn apic(id: u32) -> LocalApic {
    let mut apic =
        LocalApic::new(Config { id, bsp: id == 0, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 });
    let _ = apic.enter_virtual_wire_mode();
    apic
}

fn interrupts(cpus: u32) -> Arc<Interrupts> {
    let addresses = (0..cpus).map(|id| apic(id).address()).collect();
    Arc::new(Interrupts::new(Clock::start(), 0, addresses))
}

fn route(interrupts: &Arc<Interrupts>, pin: u8, entry: RedirectionEntry) {
    let window = IoApicWindow(Arc::clone(interrupts));
    for (register, half) in [(1, entry.into_bits() >> 32), (0, entry.into_bits())] {
        window.write(0, IOREGSEL, &[REG_TABLE + 2 * pin + register]);
        window.write(0, IOWIN, &(half as u32).to_le_bytes());
    }
}

fn level(vector: u8, destination: u8) -> RedirectionEntry {
    RedirectionEntry::new().with_vector(vector).with_level(true).with_destination(destination)
}

/// Both PICs initialised, everything unmasked.
fn start_pics(interrupts: &Arc<Interrupts>) {
    for (base, vectors, cascade) in [(platform::PIC_MASTER, 0x30, 4), (platform::PIC_SLAVE, 0x38, 2)] {
        let ports = PicPorts::new(Arc::clone(interrupts), base);
        ports.write(0, 0, &[0x11]);
        for word in [vectors, cascade, 0x01, 0x00] {
            ports.write(0, 1, &[word]);
        }
    }
}

/// Vectors and events that vCPU `index` finds.
fn taken(interrupts: &Interrupts, index: usize) -> (Vec<u8>, Events) {
    let mut vectors = Vec::new();
    let events = interrupts.mailbox(index).take(|word, edge, level| {
        vectors.extend((0..64u8).filter(|bit| (edge | level) & 1 << bit != 0).map(|bit| word as u8 * 64 + bit));
    });
    (vectors, events)
}

/// What the alarm was last set to; [`Recorder::ring`] is the main loop.
#[derive(Default)]
struct Recorder(Mutex<Option<Nanos>>);

impl Alarm for Recorder {
    fn arm(&self, at: Option<Nanos>) {
        *self.0.lock() = at;
    }
}

impl Recorder {
    fn armed(&self) -> Option<Nanos> {
        *self.0.lock()
    }

    fn ring(&self, interrupts: &Interrupts) {
        let at = self.0.lock().take().expect("the alarm is set");
        interrupts.expire(at);
    }
}

fn with_alarm(cpus: u32) -> (Arc<Interrupts>, Arc<Recorder>) {
    let interrupts = interrupts(cpus);
    let recorder = Arc::new(Recorder::default());
    interrupts.set_alarm(Arc::clone(&recorder) as _);
    (interrupts, recorder)
}

/// Ends `vector` again and again, its line high, until the damper holds its pin back; when it lets go.
fn damp(interrupts: &Interrupts, recorder: &Recorder, vector: u8) -> Nanos {
    let before = recorder.armed();
    for _ in 0..20_000 {
        interrupts.eoi(vector);
        if let Some(deadline) = recorder.armed().filter(|_| recorder.armed() != before) {
            return deadline;
        }
    }
    panic!("not damped");
}

#[test]
fn the_damper_sets_the_alarm_and_the_alarm_ends_the_damping() {
    let (interrupts, recorder) = with_alarm(1);
    route(&interrupts, 10, level(VECTOR, 0));
    interrupts.set_level(10, true);
    assert_eq!(taken(&interrupts, 0).0, [VECTOR]);
    assert_eq!(recorder.armed(), None);
    let deadline = damp(&interrupts, &recorder, VECTOR);
    assert!(deadline >= 10_000_000, "10 ms after the last EOI");
    taken(&interrupts, 0);
    interrupts.eoi(VECTOR);
    assert!(taken(&interrupts, 0).0.is_empty(), "held back");
    recorder.ring(&interrupts);
    assert_eq!(taken(&interrupts, 0).0, [VECTOR]);
    assert_eq!(recorder.armed(), None);
    assert!(damp(&interrupts, &recorder, VECTOR) >= deadline, "and can be set again");
    interrupts.set_level(10, false);
    assert_eq!(recorder.armed(), None, "a fall ends it");
}

#[test]
fn an_alarm_that_comes_early_is_set_again() {
    let (interrupts, recorder) = with_alarm(1);
    route(&interrupts, 10, level(VECTOR, 0));
    interrupts.set_level(10, true);
    let deadline = damp(&interrupts, &recorder, VECTOR);
    recorder.0.lock().take();
    interrupts.expire(deadline - 1);
    assert_eq!(recorder.armed(), Some(deadline));
}

/// The PIC's output drives pin 0 behind the back of everything else that sets the alarm. When its fall ended the damping
/// with the earliest deadline, the alarm went off for that one and was never set for the next.
#[test]
fn a_fall_of_the_pics_output_leaves_the_other_pins_their_alarm() {
    let (interrupts, recorder) = with_alarm(1);
    start_pics(&interrupts);
    route(&interrupts, 0, level(0x41, 0));
    route(&interrupts, 20, level(VECTOR, 0));
    interrupts.set_level(4, true);
    interrupts.set_level(20, true);
    let first = damp(&interrupts, &recorder, 0x41);
    for _ in 0..10_001 {
        interrupts.eoi(VECTOR);
    }
    assert_eq!(recorder.armed(), Some(first));
    PicPorts::new(Arc::clone(&interrupts), platform::PIC_MASTER).write(0, 1, &[0xff]);
    let later = recorder.armed().expect("pin 20 is still held back");
    taken(&interrupts, 0);
    interrupts.expire(later);
    assert_eq!(taken(&interrupts, 0).0, [VECTOR]);
}

#[test]
fn the_pics_output_drives_lint0_of_the_bsp_as_edges_and_levels() {
    let interrupts = interrupts(2);
    let lint0 = |level, rose| Some(Lint0 { level, rose });
    start_pics(&interrupts);
    assert_eq!(taken(&interrupts, 0).1.lint0, None);
    interrupts.set_level(4, true);
    assert_eq!(taken(&interrupts, 0).1.lint0, lint0(true, true));
    interrupts.set_level(5, true);
    assert_eq!(taken(&interrupts, 0).1.lint0, None, "it is high already");
    assert_eq!(interrupts.acknowledge_pic(false), Some(0x34));
    assert_eq!(taken(&interrupts, 0).1.lint0, lint0(false, false), "IRQ 5 waits behind IRQ 4");
    PicPorts::new(Arc::clone(&interrupts), platform::PIC_MASTER).write(0, 0, &[0x20]);
    assert_eq!(taken(&interrupts, 0).1.lint0, lint0(true, true), "an EOI is a write that moves the output");
    interrupts.set_level(3, true);
    assert_eq!(interrupts.acknowledge_pic(false), Some(0x33));
    assert_eq!(taken(&interrupts, 0).1.lint0, lint0(false, false));
    interrupts.set_level(0, true);
    interrupts.set_level(2, true);
    interrupts.set_level(1, true);
    assert_eq!(taken(&interrupts, 0).1.lint0, lint0(true, true));
    assert_eq!(interrupts.acknowledge_pic(false), Some(0x30), "GSI 2 is IRQ 0, GSI 0 no IRQ at all");
    assert_eq!(interrupts.acknowledge_pic(false), None);
    assert_eq!(taken(&interrupts, 1).1, Events::default(), "nobody else has the wire");
}

/// Rotation in automatic EOI mode leaves more to ask for as soon as one is acknowledged.
#[test]
fn more_behind_an_acknowledge_is_a_new_rise() {
    let interrupts = interrupts(1);
    start_pics(&interrupts);
    let master = PicPorts::new(Arc::clone(&interrupts), platform::PIC_MASTER);
    master.write(0, 0, &[0x11]);
    for word in [0x30, 4, 0x03, 0x00] {
        master.write(0, 1, &[word]);
    }
    interrupts.set_level(4, true);
    interrupts.set_level(5, true);
    taken(&interrupts, 0);
    assert_eq!(interrupts.acknowledge_pic(false), Some(0x34));
    assert_eq!(taken(&interrupts, 0).1.lint0, Some(Lint0 { level: true, rose: true }));
    assert_eq!(interrupts.acknowledge_pic(false), Some(0x35));
    assert_eq!(taken(&interrupts, 0).1.lint0, Some(Lint0 { level: false, rose: false }));
}

#[test]
fn a_new_address_has_the_io_apic_try_again() {
    let interrupts = interrupts(1);
    route(&interrupts, 10, level(VECTOR, 3));
    interrupts.set_level(10, true);
    assert!(taken(&interrupts, 0).0.is_empty());
    interrupts.readdress(0, Address { id: 3, ..apic(0).address() });
    assert_eq!(taken(&interrupts, 0).0, [VECTOR]);
}

#[test]
fn a_sleeper_is_woken_and_who_has_no_thread_yet_is_left_alone() {
    let interrupts = interrupts(2);
    route(&interrupts, 10, level(VECTOR, 0));
    route(&interrupts, 11, level(VECTOR, 1));
    let (word, halted) = interrupts.mailbox(0).futex();
    assert!(interrupts.mailbox(0).halt() && interrupts.mailbox(1).enter_guest());
    interrupts.set_level(10, true);
    assert_ne!(word.load(Ordering::Acquire), halted);
    interrupts.set_level(11, true);
    assert_eq!((taken(&interrupts, 0).0, taken(&interrupts, 1).0), (vec![VECTOR], vec![VECTOR]));
}
