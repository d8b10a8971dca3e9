//! The whole pipeline under a random scheduler: devices on a shared level line and an edge line, the I/O APIC in its lock,
//! the bus, mailboxes, IPIs, and vCPUs that sleep and run guests. A wake-up that gets lost leaves everybody blocked, which
//! shuttle reports with the schedule to replay.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --release -p irqchip --lib shuttle`; `TOPHALF_SCHEDULES` is the number of
//! schedules (100,000 in `cargo xtask test`). Everything atomic is sequentially consistent here: orderings are loom's
//! business, shuttle's are the long flows that loom cannot get to the end of.

use ::shuttle::sync::atomic::{AtomicBool, Ordering};
use ::shuttle::sync::{Arc, Condvar, Mutex};
use ::shuttle::thread;
use x86::apic::TriggerMode;

use crate::bus::{ApicBus, Kicks};
use crate::ioapic::IoApic;
use crate::lapic::{Config, Effect, LocalApic};
use crate::mailbox::Wake;
use crate::{Destination, Message};

const VCPUS: usize = 2;
const LEVEL: u8 = 0x51;
const EDGE: u8 = 0x61;
const IPI: u8 = 0x71;
const LEVEL_PIN: u8 = 10;
const EDGE_PIN: u8 = 11;
/// Interrupts that each source makes, one after the other.
const EACH: u32 = 2;

/// A device: asks until its register is read.
#[derive(Default)]
struct Device {
    asks: bool,
    served: u32,
}

/// What is outside the controllers.
#[derive(Default)]
struct World {
    /// Two devices on one level line.
    devices: [Device; 2],
    edges: u32,
    ipis: u32,
}

struct Machine {
    bus: ApicBus,
    ioapic: Mutex<IoApic>,
    /// The lock of line and devices in one.
    world: Mutex<World>,
    /// A handler has changed it.
    changed: Condvar,
    threads: Mutex<Vec<Option<thread::Thread>>>,
    done: AtomicBool,
}

impl Machine {
    fn kick(&self, mut kicks: Kicks) {
        kicks.pay(self.bus.mailboxes(), |index, wake| match wake {
            Wake::Nobody => {}
            // A signal and a futex wake-up alike: the thread goes on.
            Wake::Signal | Wake::Futex => {
                if let Some(thread) = &self.threads.lock().unwrap()[index] {
                    thread.unpark();
                }
            }
        });
    }

    fn with_ioapic(&self, kicks: &mut Kicks, change: impl FnOnce(&mut IoApic, &mut dyn crate::MessageSink)) {
        change(&mut self.ioapic.lock().unwrap(), &mut |message: &Message| self.bus.send(message, kicks));
    }

    /// One of the devices changes; the line is the OR of both, and the chip is told under the line's lock.
    fn drive(&self, change: impl FnOnce(&mut World)) {
        let mut kicks = Kicks::new();
        let mut world = self.world.lock().unwrap();
        change(&mut world);
        let level = world.devices.iter().any(|device| device.asks);
        self.with_ioapic(&mut kicks, |ioapic, sink| ioapic.set_line(LEVEL_PIN, level, sink));
        drop(world);
        self.changed.notify_all();
        self.kick(kicks);
    }

    fn wait_until(&self, so: impl Fn(&World) -> bool) {
        let mut world = self.world.lock().unwrap();
        while !so(&world) {
            world = self.changed.wait(world).unwrap();
        }
    }

    fn pulse(&self) {
        let mut kicks = Kicks::new();
        for level in [true, false] {
            self.with_ioapic(&mut kicks, |ioapic, sink| ioapic.set_line(EDGE_PIN, level, sink));
        }
        self.kick(kicks);
    }

    fn finish(&self) {
        self.done.store(true, Ordering::SeqCst);
        let mut kicks = Kicks::new();
        for (index, mailbox) in self.bus.mailboxes().iter().enumerate() {
            if mailbox.post_attention() {
                kicks.add(index);
            }
        }
        self.kick(kicks);
    }
}

fn new_apic(index: usize) -> LocalApic {
    let config =
        Config { id: index as u32, bsp: index == 0, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
    let mut apic = LocalApic::new(config);
    let _ = apic.enter_virtual_wire_mode();
    apic
}

/// A vCPU's loop. One of them sleeps, the other runs a guest that does nothing.
fn vcpu(machine: &Machine, mut apic: LocalApic, index: usize) {
    let mailbox = &machine.bus.mailboxes()[index];
    loop {
        let _ = apic.collect(mailbox);
        if machine.done.load(Ordering::SeqCst) {
            return;
        }
        if let Some(vector) = apic.acknowledge() {
            machine.drive(|world| match vector {
                LEVEL => {
                    for device in world.devices.iter_mut().filter(|device| device.asks) {
                        device.asks = false;
                        device.served += 1;
                    }
                }
                EDGE => world.edges += 1,
                _ => world.ipis += 1,
            });
            if let Effect::Eoi(vector) = apic.eoi() {
                let mut kicks = Kicks::new();
                machine.with_ioapic(&mut kicks, |ioapic, sink| ioapic.eoi(0, vector, sink));
                machine.kick(kicks);
            }
            mailbox.publish_priority(apic.ppr());
            continue;
        }
        let gone = if index == 0 { mailbox.halt() } else { mailbox.enter_guest() };
        if gone {
            thread::park();
            mailbox.leave();
        }
    }
}

fn pipeline() {
    let apics: Vec<_> = (0..VCPUS).map(new_apic).collect();
    let machine = Arc::new(Machine {
        bus: ApicBus::new(apics.iter().map(LocalApic::address).collect()),
        ioapic: Mutex::new(IoApic::new(0)),
        world: Mutex::default(),
        changed: Condvar::new(),
        threads: Mutex::new(vec![None; VCPUS]),
        done: AtomicBool::new(false),
    });
    let mut kicks = Kicks::new();
    for (pin, low, destination) in [
        // Lowest priority of both, and the second alone.
        (LEVEL_PIN, 1 << 15 | 1 << 8 | u32::from(LEVEL), 0xff_u32),
        (EDGE_PIN, EDGE.into(), 1),
    ] {
        machine.with_ioapic(&mut kicks, |ioapic, sink| {
            ioapic.write(0, 0, &[0x11 + 2 * pin], sink);
            ioapic.write(0, 0x10, &(destination << 24).to_le_bytes(), sink);
            ioapic.write(0, 0, &[0x10 + 2 * pin], sink);
            ioapic.write(0, 0x10, &low.to_le_bytes(), sink);
        });
    }
    let mut threads = Vec::new();
    for (index, apic) in apics.into_iter().enumerate() {
        let running = thread::spawn({
            let machine = machine.clone();
            move || vcpu(&machine, apic, index)
        });
        machine.threads.lock().unwrap()[index] = Some(running.thread().clone());
        // What came before it could be kicked: it looks again.
        running.thread().unpark();
        threads.push(running);
    }
    let sources: Vec<_> = (0..2)
        .map(|number| {
            let machine = machine.clone();
            thread::spawn(move || {
                for round in 0..EACH {
                    machine.drive(|world| world.devices[number].asks = true);
                    machine.wait_until(|world| world.devices[number].served > round);
                }
            })
        })
        .collect();
    let edges = thread::spawn({
        let machine = machine.clone();
        move || {
            for round in 0..EACH {
                machine.pulse();
                machine.wait_until(|world| world.edges > round);
            }
        }
    });
    for round in 0..EACH {
        let mut kicks = Kicks::new();
        let message = Message {
            destination: Destination::Physical(0),
            mode: x86::apic::DeliveryMode::Fixed,
            vector: IPI,
            trigger: TriggerMode::Edge,
        };
        let _ = machine.bus.send(&message, &mut kicks);
        machine.kick(kicks);
        machine.wait_until(|world| world.ipis > round);
    }
    sources.into_iter().for_each(|source| source.join().unwrap());
    edges.join().unwrap();
    machine.finish();
    threads.into_iter().for_each(|vcpu| vcpu.join().unwrap());
    let world = machine.world.lock().unwrap();
    assert!(world.devices.iter().all(|device| device.served == EACH && !device.asks));
    assert_eq!((world.edges, world.ipis), (EACH, EACH), "none lost, none doubled");
    assert!(!machine.ioapic.lock().unwrap().line(LEVEL_PIN).unwrap());
}

fn schedules() -> usize {
    std::env::var("TOPHALF_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

#[test]
fn nothing_is_lost_under_any_schedule() {
    ::shuttle::check_random(pipeline, schedules());
}

/// The driver sees a lost wake-up: a device whose kick is not paid blocks everybody.
#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_that_nobody_pays_is_found() {
    ::shuttle::check_random(
        || {
            let machine = Arc::new(ApicBus::new(vec![new_apic(0).address()]));
            let owner = thread::spawn({
                let bus = machine.clone();
                move || {
                    let mailbox = &bus.mailboxes()[0];
                    let mut apic = new_apic(0);
                    while apic.acknowledge().is_none() {
                        let _ = apic.collect(mailbox);
                        if apic.deliverable().is_none() && mailbox.halt() {
                            thread::park();
                            mailbox.leave();
                        }
                    }
                }
            });
            let _owed = machine.mailboxes()[0].post(EDGE, TriggerMode::Edge);
            owner.join().unwrap();
        },
        schedules(),
    );
}
