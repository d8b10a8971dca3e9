//! What an interrupt costs in the controllers alone, without KVM: `cargo bench -p irqchip`. docs/benchmarks.md has a run.
//!
//! Each with 1, 16, 256 and 4,096 local APICs on the bus: flat for one target, linear in the targets for many. Where an
//! operation leaves something behind (a request), the loop takes it away again, and its name says so. Times are CPU times of
//! the thread: waiting for a processor that others use does not count.

#[path = "cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cpu_time::CpuTime;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use irqchip::bus::{ApicBus, Kicks};
use irqchip::ioapic::IoApic;
use irqchip::lapic::{Config, Effect, LocalApic, Now};
use irqchip::pic::{PicPair, PicPort};
use irqchip::{Destination, Message};
use x86::apic::{DeliveryMode, TriggerMode};
use x86::msr::{ApicBase, IA32_TSC_DEADLINE};

const SIZES: [usize; 4] = [1, 16, 256, 4096];
const VECTOR: u8 = 0x51;
const PIN: u8 = 10;
const ICR: u32 = 0x830;
const TPR: u32 = 0x808;

/// `count` local APICs in x2APIC mode, software-enabled, and their bus.
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

fn fixed(id: usize) -> Message {
    let destination = Destination::Physical(id as u32);
    Message { destination, mode: DeliveryMode::Fixed, vector: VECTOR, trigger: TriggerMode::Edge }
}

/// What a vCPU does with one interrupt: look, accept, deliver, end.
fn serve(bus: &ApicBus, apic: &mut LocalApic, index: usize) -> Effect {
    let _ = apic.collect(&bus.mailboxes()[index]);
    black_box(apic.acknowledge());
    apic.eoi()
}

fn pay(bus: &ApicBus, kicks: &mut Kicks) {
    kicks.pay(bus.mailboxes(), |index, wake| {
        let _ = black_box((index, wake));
    });
}

fn one_target(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("one");
    for size in SIZES {
        let (bus, mut apics) = machine(size);
        let target = size - 1;
        let (mailbox, mut kicks) = (&bus.mailboxes()[target], Kicks::new());
        let mut bench = |name: &str, run: &mut dyn FnMut()| {
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter(&mut *run));
        };
        let _ = mailbox.post(VECTOR, TriggerMode::Edge);
        bench("post to one already kicked", &mut || {
            let _ = black_box(bus.send(&fixed(target), &mut kicks));
        });
        bench("post to a mailbox already kicked", &mut || {
            let _ = black_box(black_box(mailbox).post(VECTOR, TriggerMode::Edge));
        });
        bench("look at a mailbox with nothing in it", &mut || {
            let _ = black_box(apics[target].collect(mailbox));
        });
        let _ = serve(&bus, &mut apics[target], target);
        bench("post, look, accept, EOI", &mut || {
            let _ = bus.send(&fixed(target), &mut kicks);
            pay(&bus, &mut kicks);
            let _ = black_box(serve(&bus, &mut apics[target], target));
        });
        bench("accept, deliver, EOI of an edge", &mut || {
            apics[target].accept(VECTOR, TriggerMode::Edge);
            black_box(apics[target].acknowledge());
            let _ = black_box(apics[target].eoi());
        });
        bench("TPR write", &mut || {
            let _ = black_box(apics[target].write_msr(0, TPR, 0x20)).map(|_| apics[target].deliverable());
        });
        bench("timer: arm, expire, deliver, EOI", &mut || {
            let apic = &mut apics[target];
            let _ = apic.write_msr(0, 0x832, 1 << 18 | u64::from(VECTOR));
            let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 10);
            let _ = black_box(apic.next_deadline());
            apic.expire(Now { ns: 10, tsc: 10 });
            let _ = apic.write_msr(0, TPR, 0);
            black_box(apic.acknowledge());
            let _ = black_box(apic.eoi());
        });
        let icr = (target as u64) << 32 | u64::from(VECTOR);
        bench("ICR to one, look, accept, EOI", &mut || {
            if let Ok(Effect::Ipi(ipi)) = apics[0].write_msr(0, ICR, icr) {
                bus.send_ipi(&mut apics[0], 0, &ipi, &mut kicks);
            }
            pay(&bus, &mut kicks);
            let _ = black_box(serve(&bus, &mut apics[target], target));
        });
    }
    group.finish();
}

fn chips(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("chips");
    for size in SIZES {
        let (bus, mut apics) = machine(size);
        let mut kicks = Kicks::new();
        let mut ioapic = IoApic::new(0);
        let program = |ioapic: &mut IoApic, bits: u32, kicks: &mut Kicks| {
            let sink = &mut |message: &Message| bus.send(message, kicks);
            ioapic.write(0, 0, &[0x10 + 2 * PIN], sink);
            ioapic.write(0, 0x10, &(bits | u32::from(VECTOR)).to_le_bytes(), sink);
        };
        program(&mut ioapic, 0, &mut kicks);
        group.bench_function(BenchmarkId::new("I/O APIC edge: raise, look, accept, EOI, lower", size), |b| {
            b.iter(|| {
                ioapic.set_line(PIN, true, &mut |message: &Message| bus.send(message, &mut kicks));
                pay(&bus, &mut kicks);
                let _ = black_box(serve(&bus, &mut apics[0], 0));
                ioapic.set_line(PIN, false, &mut |message: &Message| bus.send(message, &mut kicks));
            });
        });
        program(&mut ioapic, 1 << 15, &mut kicks);
        group.bench_function(BenchmarkId::new("I/O APIC level: raise, look, accept, lower, EOI", size), |b| {
            b.iter(|| {
                ioapic.set_line(PIN, true, &mut |message: &Message| bus.send(message, &mut kicks));
                pay(&bus, &mut kicks);
                let _ = apics[0].collect(&bus.mailboxes()[0]);
                black_box(apics[0].acknowledge());
                ioapic.set_line(PIN, false, &mut |message: &Message| bus.send(message, &mut kicks));
                if let Effect::Eoi(vector) = apics[0].eoi() {
                    ioapic.eoi(0, vector, &mut |message: &Message| bus.send(message, &mut kicks));
                }
            });
        });
    }
    let mut pics = PicPair::new();
    for (port, values) in [(PicPort::MasterData, [0x30, 4, 1]), (PicPort::SlaveData, [0x38, 2, 1])] {
        let command = if port == PicPort::MasterData { PicPort::MasterCommand } else { PicPort::SlaveCommand };
        pics.write(command, 0x11);
        values.into_iter().for_each(|value| pics.write(port, value));
    }
    group.bench_function("PIC: raise, acknowledge, EOI, lower", |b| {
        b.iter(|| {
            pics.set_line(12, true);
            black_box(pics.acknowledge());
            pics.write(PicPort::SlaveCommand, 0x20);
            pics.write(PicPort::MasterCommand, 0x20);
            pics.set_line(12, false);
        });
    });
    group.finish();
}

/// How many machines take turns, so that the clock is read once for all of them.
const MACHINES: usize = 64;

/// The time of sending and kicking alone; between two rounds, everybody looks and ends.
fn many_targets(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("many");
    for size in SIZES {
        let mut machines: Vec<_> = (0..(MACHINES / size).max(1)).map(|_| machine(size)).collect();
        for (name, icr) in [
            ("ICR to all but self, kicks included", 3 << 18 | u64::from(VECTOR)),
            ("ICR to a cluster of 16, kicks included", 0xffff << 32 | 1 << 11 | u64::from(VECTOR)),
        ] {
            let mut kicks = Kicks::new();
            let mut batch = |rounds: u64| {
                let mut sum = 0;
                for _ in 0..rounds.div_ceil(machines.len() as u64) {
                    let start = sys::clock::thread_cpu_ns();
                    for (bus, apics) in &mut machines {
                        if let Ok(Effect::Ipi(ipi)) = apics[0].write_msr(0, ICR, icr) {
                            bus.send_ipi(&mut apics[0], 0, &ipi, &mut kicks);
                        }
                        pay(bus, &mut kicks);
                    }
                    sum += sys::clock::thread_cpu_ns() - start;
                    for (bus, apics) in &mut machines {
                        for (index, apic) in apics.iter_mut().enumerate() {
                            let _ = serve(bus, apic, index);
                        }
                    }
                }
                // The last round may be more than was asked for.
                let done = rounds.div_ceil(machines.len() as u64) * machines.len() as u64;
                (u128::from(sum) * u128::from(rounds) / u128::from(done)) as u64
            };
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter_custom(&mut batch));
        }
    }
    group.finish();
}

/// Another thread takes what this one posts.
fn two_threads(c: &mut Criterion<CpuTime>) {
    let (bus, mut apics) = machine(1);
    let (bus, stop) = (&bus, &AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = black_box(serve(bus, &mut apics[0], 0));
            }
        });
        let mut kicks = Kicks::new();
        c.bench_function("post from another thread, its owner looking all the time", |b| {
            b.iter(|| {
                let _ = bus.send(&fixed(0), &mut kicks);
                pay(bus, &mut kicks);
            });
        });
        stop.store(true, Ordering::Relaxed);
    });
}

fn configured() -> Criterion<CpuTime> {
    Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
}

criterion_group! {
    name = benches;
    config = configured();
    targets = one_target, chips, many_targets, two_threads
}
criterion_main!(benches);
