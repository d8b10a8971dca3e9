//! A vCPU that sleeps shows when it is kicked: its whereabouts change then.

use std::sync::atomic::Ordering;

use devices::BusDevice;
use irqchip::lapic::{Config, LocalApic};
use irqchip::line::{Line, Wire};
use parking_lot::Mutex;
use x86::Nanos;
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};

use super::*;
use crate::clock::Clock;
use crate::interrupts::{Interrupts, IoApicWindow};
use crate::io_bus::Handler;

const PIN: u8 = 10;

fn machine() -> Arc<Interrupts> {
    let config = Config { id: 0, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
    let mut apic = LocalApic::new(config);
    let _ = apic.enter_virtual_wire_mode();
    let interrupts = Arc::new(Interrupts::new(Clock::start(), 0, vec![apic.address()]));
    let window = IoApicWindow(Arc::clone(&interrupts));
    window.write(0, IOREGSEL, &[REG_TABLE + 2 * PIN]);
    window.write(0, IOWIN, &0x51_u32.to_le_bytes());
    interrupts
}

fn asleep(interrupts: &Interrupts) -> bool {
    let (word, halted) = interrupts.mailbox(0).futex();
    word.load(Ordering::Relaxed) == halted
}

/// Pulses its line at every write, and notes whether the vCPU still slept at the end of it.
struct Ringer {
    line: Line,
    interrupts: Arc<Interrupts>,
    asleep_under_the_lock: Option<bool>,
}

impl BusDevice for Ringer {
    fn read(&mut self, _: Nanos, _: u64, _: &mut [u8]) {}

    fn write(&mut self, _: Nanos, _: u64, _: &[u8]) {
        self.line.pulse();
        self.line.pulse();
        self.asleep_under_the_lock = Some(asleep(&self.interrupts));
    }
}

fn ringer(interrupts: &Arc<Interrupts>) -> Mutex<Ringer> {
    let line = Wire::new(PIN, Arc::clone(interrupts) as _).holder();
    Mutex::new(Ringer { line, interrupts: Arc::clone(interrupts), asleep_under_the_lock: None })
}

#[test]
fn a_kick_is_sent_when_the_devices_lock_is_dropped() {
    let interrupts = machine();
    let device = ringer(&interrupts);
    assert!(interrupts.mailbox(0).halt());
    let held = interrupts.processors().hold_kicks();
    device.write(0, 0, &[0]);
    assert_eq!(device.lock().asleep_under_the_lock, Some(true));
    {
        let _inner = interrupts.processors().hold_kicks();
    }
    assert!(asleep(&interrupts), "an inner guard sends nothing");
    drop(held);
    assert!(!asleep(&interrupts));
    assert!(interrupts.mailbox(0).is_pending());
}

#[test]
fn without_a_guard_a_kick_is_late_for_nothing() {
    let interrupts = machine();
    let device = ringer(&interrupts);
    assert!(interrupts.mailbox(0).halt());
    device.write(0, 0, &[0]);
    assert_eq!(device.lock().asleep_under_the_lock, Some(false), "at once");
}

#[test]
fn a_guard_holds_the_kicks_of_its_own_machine_only() {
    let (interrupts, other) = (machine(), machine());
    assert!(interrupts.mailbox(0).halt() && other.mailbox(0).halt());
    let held = interrupts.processors().hold_kicks();
    let inner = other.processors().hold_kicks();
    other.processors().attention(0);
    assert!(!asleep(&other), "nobody holds these");
    interrupts.processors().attention(0);
    assert!(asleep(&interrupts));
    drop((inner, held));
    assert!(!asleep(&interrupts));
}
