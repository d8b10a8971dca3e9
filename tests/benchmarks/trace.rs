//! What the life-cycle trace costs where it is called, off and on: `cargo bench -p vmm --bench trace`. docs/tracing.md has a run.
//!
//! A hook that is off stands next to an empty call, and an interrupt's way through all of the program's part (line, I/O APIC, mailbox, local
//! APIC, EOI) with its hooks next to the same chips without a hook. Times are CPU times of the thread. Where the trace is on, what
//! another thread does with the records (taking them out and writing them to the file) is not in them.

#[path = "cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use cpu_time::CpuTime;
use criterion::{Criterion, criterion_group, criterion_main};
use irqchip::bus::{ApicBus, Kicks};
use irqchip::ioapic::IoApic;
use irqchip::lapic::{Config, LocalApic};
use irqchip::line::LineTarget;
use irqchip::message::Message;
use sys::clock::thread_cpu_ns;
use vmm::clock::Clock;
use vmm::interrupts::{Interrupts, IoApicWindow};
use vmm::io_bus::Handler;
use vmm::trace::event::{Apic, Cause, Eoi, Event};
use vmm::trace::{Recorder, Trace, Watch};
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};
use x86::msr::ApicBase;

const VECTOR: u8 = 0x51;
const PIN: u8 = 10;
/// Turns between two looks at the clock; their records have room in a ring.
const TURNS: u64 = 512;

fn recorder(folder: &Path) -> Arc<Recorder> {
    Recorder::create(&folder.join("trace")).expect("a file in a new folder")
}

fn apic() -> LocalApic {
    let config = Config { id: 0, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 46 };
    let mut apic = LocalApic::new(config);
    let _ = apic.write_base(apic.base() | ApicBase::X2APIC.bits()).expect("offered");
    let _ = apic.write_msr(0, 0x80f, 0x1ff).expect("SVR");
    apic
}

/// Writes the pin's entry: its vector, to local APIC 0.
fn program(mut write: impl FnMut(u64, &[u8])) {
    write(IOREGSEL, &[REG_TABLE + 2 * PIN]);
    write(IOWIN, &u32::from(VECTOR).to_le_bytes());
}

/// The way of an edge to its EOI, through the program.
struct Way {
    interrupts: Arc<Interrupts>,
    apic: LocalApic,
    watch: Watch,
}

impl Way {
    fn new(trace: &Trace) -> Self {
        let apic = apic();
        let interrupts = Arc::new(Interrupts::traced(Clock::start(), 0, vec![apic.address()], trace.clone()));
        let window = IoApicWindow(Arc::clone(&interrupts));
        program(|offset, data| window.write(0, offset, data));
        Self { interrupts, apic, watch: Watch::default() }
    }

    fn look(&mut self, cause: Cause) {
        if self.interrupts.trace().is_on() {
            self.watch.look(self.interrupts.trace(), 0, &self.apic, cause, Eoi::Register);
        }
    }

    fn go(&mut self) {
        self.interrupts.set_level(PIN, true);
        let _ = self.apic.collect(self.interrupts.mailbox(0));
        self.look(Cause::Mailbox);
        black_box(self.apic.acknowledge());
        self.look(Cause::Other);
        let _ = black_box(self.apic.eoi());
        self.look(Cause::Register);
        self.interrupts.set_level(PIN, false);
    }
}

fn off(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("off");
    group.bench_function("an empty call", |b| b.iter(|| black_box(0_u32)));
    let trace = Trace::default();
    group.bench_function("a hook", |b| b.iter(|| black_box(&trace).record(|| Event::Entered { vcpu: black_box(0) })));
    let mut way = Way::new(&trace);
    group.bench_function("an edge to its EOI", |b| b.iter(|| way.go()));
    group.finish();
    alone(c);
}

/// The same way with nothing of the program round the chips: no locks of theirs, no wires to the 8259A pair, no hooks.
fn alone(c: &mut Criterion<CpuTime>) {
    let mut apic = apic();
    let (bus, mut kicks, mut ioapic) = (ApicBus::new(vec![apic.address()]), Kicks::new(), IoApic::new(0));
    program(|offset, data| ioapic.write(0, offset, data, &mut |message: &Message| bus.send(message, &mut kicks)));
    c.bench_function("an edge to its EOI, chips alone", |b| {
        b.iter(|| {
            ioapic.set_line(PIN, true, &mut |message: &Message| bus.send(message, &mut kicks));
            kicks.pay(bus.mailboxes(), |index, wake| _ = black_box((index, wake)));
            let _ = apic.collect(&bus.mailboxes()[0]);
            black_box(apic.acknowledge());
            let _ = black_box(apic.eoi());
            ioapic.set_line(PIN, false, &mut |message: &Message| bus.send(message, &mut kicks));
        });
    });
}

/// Times `run`, with the rings emptied in between, untimed: what finds no room costs less.
fn timed(recorder: &Recorder, turns: u64, mut run: impl FnMut()) -> u64 {
    let (mut left, mut spent) = (turns, 0);
    while left > 0 {
        let now = left.min(TURNS);
        let start = thread_cpu_ns();
        (0..now).for_each(|_| run());
        spent += thread_cpu_ns() - start;
        recorder.drain();
        left -= now;
    }
    spent
}

fn on(c: &mut Criterion<CpuTime>) {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = recorder(folder.path());
    let trace = Trace::to(Arc::clone(&recorder));
    let mut group = c.benchmark_group("on");
    let mut bench = |name: &str, run: &mut dyn FnMut()| {
        group.bench_function(name, |b| b.iter_custom(|turns| timed(&recorder, turns, &mut *run)));
    };
    bench("reading the clock", &mut || _ = black_box(sys::clock::monotonic_ns()));
    bench("a record", &mut || trace.record(|| Event::Entered { vcpu: black_box(0) }));
    let registers = Apic::of(&apic());
    bench("a record with registers", &mut || {
        trace.record(|| Event::Injected { vcpu: 0, vector: VECTOR, apic: black_box(registers) });
    });
    let (mut watch, unchanged) = (Watch::default(), apic());
    bench("a look that finds nothing", &mut || {
        watch.look(black_box(&trace), 0, black_box(&unchanged), Cause::Other, Eoi::Register);
    });
    let mut way = Way::new(&trace);
    bench("an edge to its EOI", &mut || way.go());
    group.finish();
}

criterion_group! {
    name = trace;
    config = Criterion::default().with_measurement(CpuTime).without_plots();
    targets = off, on
}
criterion_main!(trace);
