//! The controllers allocate nothing while a machine runs: an allocator that counts for each thread watches every operation of the
//! interrupt path, with 1 to 4,096 local APICs, and the bottom halves that a device leaves things to. Changing an address, which builds
//! a new destination table, is the exception.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use allocation_counter::measure;
use bottom_half::{Clock, CpuOwner, Scheduled, Stepped, Tasklet, ThreadPort, Timer, Vector};
use irqchip::bus::{ApicBus, Kicks};
use irqchip::ioapic::IoApic;
use irqchip::lapic::{Config, Effect, LocalApic, Now};
use irqchip::pic::{PicPair, PicPort};
use irqchip::{Destination, Message};
use x86::apic::{DeliveryMode, TriggerMode};
use x86::msr::{ApicBase, IA32_TSC_DEADLINE};

const VECTOR: u8 = 0x51;
const PIN: u8 = 10;

fn machine(count: usize) -> (ApicBus, Vec<LocalApic>) {
    let apics: Vec<_> = (0..count as u32)
        .map(|id| {
            let config = Config { id, bsp: id == 0, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 46 };
            let mut apic = LocalApic::new(config);
            let _ = apic.write_base(apic.base() | ApicBase::X2APIC.bits()).expect("offered");
            let _ = apic.write_msr(0, 0x80f, 0x1ff).expect("SVR");
            apic
        })
        .collect();
    (ApicBus::new(apics.iter().map(LocalApic::address).collect()), apics)
}

/// One of everything; how many interrupts were delivered.
fn everything(bus: &ApicBus, apics: &mut [LocalApic], ioapic: &mut IoApic, pics: &mut PicPair) -> usize {
    let last = apics.len() - 1;
    let mut kicks = Kicks::new();
    let mode = |mode, destination| Message { destination, mode, vector: VECTOR, trigger: TriggerMode::Edge };
    let _ = bus.send(&mode(DeliveryMode::Fixed, Destination::Physical(last as u32)), &mut kicks);
    let _ = bus.send(&mode(DeliveryMode::LowestPriority, Destination::Broadcast), &mut kicks);
    let _ = bus.send(&mode(DeliveryMode::Nmi, Destination::Logical(0xffff)), &mut kicks);
    for icr in [
        (last as u64) << 32 | 0x61,
        3 << 18 | 0x62,
        2 << 18 | 0x63,
        1 << 18 | 0x64,
        0xffff << 32 | 1 << 11 | 0x65,
        u64::from(u32::MAX) << 32 | 0x66,
    ] {
        let sender = &mut apics[0];
        if let Ok(Effect::Ipi(ipi)) = sender.write_msr(0, 0x830, icr) {
            bus.send_ipi(sender, 0, &ipi, &mut kicks);
        }
    }
    for level in [true, false] {
        ioapic.set_line(PIN, level, &mut |message: &Message| bus.send(message, &mut kicks));
        pics.set_line(4, level);
        if level {
            let _ = pics.acknowledge();
            pics.write(PicPort::MasterCommand, 0x20);
        }
    }
    kicks.pay(bus.mailboxes(), |_, _| {});
    let mut delivered = 0;
    for (apic, mailbox) in apics.iter_mut().zip(bus.mailboxes().iter()) {
        let _ = apic.write_msr(0, 0x832, 1 << 18 | 0x41);
        let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 10);
        apic.expire(Now { ns: 10, tsc: 10 });
        let _ = apic.collect(mailbox);
        while apic.acknowledge().is_some() {
            delivered += 1;
            if let Effect::Eoi(vector) = apic.eoi() {
                ioapic.eoi(0, vector, &mut |message: &Message| bus.send(message, &mut Kicks::new()));
            }
        }
        let _ = apic.take_nmi();
    }
    delivered
}

/// What a device hands over in a top half, and the top half's end; once everything has been made.
fn a_top_half(owner: &CpuOwner, tasklet: &Tasklet, timer: &Timer, clock: &Stepped) {
    let at = clock.now() + 10;
    owner.top_half(|top| {
        top.raise(Vector::Block);
        assert_eq!(tasklet.schedule(), Scheduled::Yes);
        timer.start(at);
    });
    clock.advance(20);
    owner.top_half(|top| owner.expire(top));
}

#[test]
fn an_interrupt_allocates_nothing() {
    for count in [1, 16, 256, 4096] {
        let (bus, mut apics) = machine(count);
        let mut ioapic = IoApic::new(0);
        let sink = &mut |_: &Message| irqchip::Accepted::Yes;
        ioapic.write(0, 0, &[0x10 + 2 * PIN], sink);
        ioapic.write(0, 0x10, &(1_u32 << 15 | 0x71).to_le_bytes(), sink);
        let mut pics = PicPair::new();
        for (port, value) in [(PicPort::MasterCommand, 0x13), (PicPort::MasterData, 0x30), (PicPort::MasterData, 1)] {
            pics.write(port, value);
        }
        // The first use of the table in a thread sets up that thread's place in it.
        let warm = everything(&bus, &mut apics, &mut ioapic, &mut pics);
        let mut delivered = 0;
        let seen = measure(|| delivered = everything(&bus, &mut apics, &mut ioapic, &mut pics));
        assert_eq!(seen.count_total, 0, "{count} local APICs: {seen:?}");
        assert!(delivered == warm && delivered > count, "{delivered} interrupts");
    }

    // Its top half neither, and what runs on leaving it.
    let clock = Arc::new(Stepped::default());
    let config = bottom_half::Config { clock: Arc::clone(&clock) as _, ..bottom_half::Config::default() };
    let (system, owners) = bottom_half::System::new(config, vec![Arc::new(ThreadPort::default())]).expect("threads");
    let cpu = owners[0].cpu();
    let runs = Arc::new(AtomicU32::new(0));
    let (in_tasklet, in_timer, in_handler) = (Arc::clone(&runs), Arc::clone(&runs), Arc::clone(&runs));
    let tasklet = Tasklet::new(&system, cpu, move |_| _ = in_tasklet.fetch_add(1, Ordering::Relaxed));
    let timer = Timer::precise(cpu, move |_| {
        in_timer.fetch_add(1, Ordering::Relaxed);
        None
    });
    assert!(system.set_handler(Vector::Block, move |_| _ = in_handler.fetch_add(1, Ordering::Relaxed)));
    // Some are measured, the first among them.
    (0..64).for_each(|_| a_top_half(&owners[0], &tasklet, &timer, &clock));
    let seen = measure(|| (0..64).for_each(|_| a_top_half(&owners[0], &tasklet, &timer, &clock)));
    assert_eq!(seen.count_total, 0, "{seen:?}");
    assert_eq!(runs.load(Ordering::Relaxed), 3 * 128, "each time the vector, the tasklet and the timer");
    system.shutdown(None).expect("nothing is stuck");

    // The counter counts: a new destination table is made of new memory.
    let (bus, mut apics) = machine(2);
    let _ = apics[0].write_msr(0, 0x80f, 0xff).expect("SVR");
    assert_ne!(measure(|| bus.readdress(0, apics[0].address())).count_total, 0);
}
