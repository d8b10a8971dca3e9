//! C10, C11 and C22: storms. A device raises lines and messages at a set rate ([`kernel::storm`]), as fast as the host can if it is told to:
//! nothing is lost or made up, programs go on, and so do the other CPUs.

mod books;
mod damper;
mod loops;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::percpu::{self, this_cpu};
use kernel::arch::vectors;
use kernel::chips::{apic, ioapic};
use kernel::irq::chip;
use kernel::sched::Task;
use kernel::storm::{self, Channel, Source};
use kernel::testing::{Failure, TestResult};
use kernel::user::signal::{self, Signal};
use kernel::user::{self, programs};
use kernel::wait;
use x86::ioapic::RedirectionEntry;

use crate::conservation::quiesce;

/// A pin that no device of the machine has.
const PIN: u8 = 10;
const SOURCES: [Source; 3] = [Source::Pulse, Source::Level, Source::Msi];

/// The channel that handlers serve, and whether it has to be acknowledged.
static CHANNEL: AtomicUsize = AtomicUsize::new(0);
static ACKNOWLEDGE: AtomicBool = AtomicBool::new(false);
/// Handlers that have run.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Events that the device had raised when the last one ran.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// CPUs that they ran on, a bit each.
static CPUS: AtomicU32 = AtomicU32::new(0);

fn count() -> u64 {
    COUNT.load(Ordering::SeqCst)
}

fn seen() -> u64 {
    SEEN.load(Ordering::SeqCst)
}

/// What a storm's interrupts lead to: they are served, counted, and it is noted what they have interrupted.
fn serve(frame: &mut Frame) {
    PROGRAM.look(frame);
    let channel = CHANNEL.load(Ordering::SeqCst);
    if ACKNOWLEDGE.load(Ordering::SeqCst) {
        storm::acknowledge(channel);
    }
    // What is raised after this look finds the vector in service, and comes once more.
    SEEN.store(storm::sent(channel), Ordering::SeqCst);
    CPUS.fetch_or(1 << this_cpu().number(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    apic::eoi();
}

/// A storm that is made ready; over when dropped.
struct Storm {
    channel: Channel,
    source: Source,
    vector: u8,
}

impl Storm {
    /// Of this source, to this CPU.
    fn new(source: Source, cpu: usize, handler: vectors::Handler) -> Result<Self, Failure> {
        let Some(channel) = Channel::claim() else { return Err(Failure::skip(format_args!("no storm device"))) };
        let Some(vector) = vectors::allocate(handler) else { return Err(Failure::new(format_args!("no vector"))) };
        CHANNEL.store(channel.number(), Ordering::SeqCst);
        ACKNOWLEDGE.store(source == Source::Level, Ordering::SeqCst);
        let apic_id = percpu::cpu(cpu).map_or(0, |cpu| cpu.apic_id.load(Ordering::Relaxed));
        if source == Source::Msi {
            channel.aim_message(chip::message(vector, 1 << cpu));
        } else {
            let entry = RedirectionEntry::new().with_vector(vector).with_level(source == Source::Level);
            ioapic::set_entry(PIN, entry.with_destination(apic_id as u8));
            channel.aim_line(PIN.into());
        }
        Ok(Self { channel, source, vector })
    }

    /// With all counts 0.
    fn start(&self, period: u64, events: u64) {
        [&COUNT, &SEEN].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
        CPUS.store(0, Ordering::SeqCst);
        PROGRAM.reset();
        self.channel.load(period, events);
        self.channel.start(self.source);
    }

    /// Waits until the device has raised all events and they have arrived.
    fn ends(&self) -> TestResult {
        while self.channel.is_running() {
            let before = self.channel.counts();
            wait::for_condition(|| self.channel.counts() != before || !self.channel.is_running())?;
        }
        let sent = self.channel.counts().sent;
        wait::for_condition(|| seen() == sent)?;
        quiesce();
        Ok(())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.channel.stop();
        ioapic::set_masked(PIN, true);
        // What was on its way still finds its handler.
        quiesce();
        vectors::release(self.vector);
    }
}

/// A program on the second CPU that does nothing but count; ended when dropped.
struct Program(Arc<Task>);

impl Program {
    fn new() -> Result<Self, Failure> {
        let task = user::exec("count", 1, programs::count(), [0; 2]);
        let program = task.map(Self).ok_or_else(|| Failure::new(format_args!("no memory for a program")))?;
        wait::for_condition(|| program.0.cpu_time() > 0)?;
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        signal::send(&self.0, Signal::Kill as u8);
        self.0.join();
    }
}

/// What handlers have seen of the program that they interrupt.
struct Looks {
    place: AtomicU64,
    still: AtomicU64,
    longest: AtomicU64,
}

static PROGRAM: Looks = Looks { place: AtomicU64::new(0), still: AtomicU64::new(0), longest: AtomicU64::new(0) };

impl Looks {
    /// Whether the program has gone on since the last look. Its counter is in RBX.
    fn look(&self, frame: &Frame) -> bool {
        if !frame.from_user() {
            return false;
        }
        let goes_on = self.place.swap(frame.rbx, Ordering::SeqCst) != frame.rbx;
        if goes_on {
            self.still.store(0, Ordering::SeqCst);
        } else {
            self.longest.fetch_max(self.still.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        goes_on
    }

    fn reset(&self) {
        [&self.still, &self.longest].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    }

    /// The most looks in a row that have found it where it was.
    fn longest_stop(&self) -> u64 {
        self.longest.load(Ordering::SeqCst)
    }
}
