//! The NMI watchdog: notices a CPU that is stuck with interrupts off.
//!
//! Such a CPU has no tick any more, but it still takes non-maskable interrupts. So the PIT's line is made to give NMIs to all CPUs, and
//! each CPU's NMI handler looks whether its tick has moved on. If it has not for many NMIs, the CPU is stuck: the log says where.
//!
//! To read more: Linux, Documentation/admin-guide/lockup-watchdogs.rst, kernel/watchdog.c; the I/O APIC's delivery modes in the Intel
//! 82093AA datasheet, "I/O Redirection Table Registers".

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use x86::apic::DeliveryMode;
use x86::ioapic::RedirectionEntry;
use x86::platform::IRQ_PIT;

use crate::arch::frame::Frame;
use crate::arch::nmi::{self, NmiHandler};
use crate::arch::percpu::{self, MAX_CPUS, this_cpu};
use crate::chips::ioapic;
use crate::irq::chip;
use crate::time::pit::{self, Channel0};
use crate::time::tick::{self, Ticking};
use crate::{log, machine};

/// Microseconds from NMI to NMI: five ticks'.
const PERIOD: u64 = 50_000;

/// What the handler knows of a CPU.
struct Watched {
    /// Ticks at the last NMI.
    ticks: AtomicU64,
    /// NMIs since the last tick.
    silent: AtomicU32,
    /// Times that it was found stuck, and where it last was.
    lockups: AtomicU32,
    place: AtomicU64,
}

static WATCHED: [Watched; MAX_CPUS] = [const {
    let [ticks, place] = [const { AtomicU64::new(0) }; 2];
    let [silent, lockups] = [const { AtomicU32::new(0) }; 2];
    Watched { ticks, silent, lockups, place }
}; MAX_CPUS];
/// So many NMIs without a tick are too many.
static LIMIT: AtomicU32 = AtomicU32::new(0);

/// How often a CPU was found stuck, and where the last time.
pub fn lockups_on(cpu: usize) -> (u32, u64) {
    let watched = &WATCHED[cpu];
    (watched.lockups.load(Ordering::SeqCst), watched.place.load(Ordering::SeqCst))
}

/// How many NMIs a CPU has had since its last tick.
pub fn silent_on(cpu: usize) -> u32 {
    WATCHED[cpu].silent.load(Ordering::SeqCst)
}

/// CPUs are watched while this lives.
pub struct Watchdog {
    old: Option<NmiHandler>,
    pin: u8,
    _tick: Ticking,
}

/// Starts watching: a CPU is stuck when so many NMIs come without a tick.
pub fn start(limit: u32) -> Watchdog {
    let tick = tick::start();
    LIMIT.store(limit, Ordering::SeqCst);
    for (cpu, watched) in WATCHED.iter().enumerate() {
        watched.ticks.store(tick::ticks_on(cpu), Ordering::SeqCst);
        [&watched.silent, &watched.lockups].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    }
    let old = nmi::set_handler(Some(handler));
    let pin = machine::isa_pin(IRQ_PIT);
    let cpus = percpu::cpus().fold(0, |mask, cpu| mask | 1 << cpu.number());
    let entry = RedirectionEntry::new().with_delivery_mode(DeliveryMode::Nmi as u8);
    ioapic::set_entry(pin, entry.with_logical(true).with_destination(chip::logical(cpus)));
    Channel0::periodic(pit::ticks(PERIOD));
    Watchdog { old, pin, _tick: tick }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        Channel0::stop();
        ioapic::set_entry(self.pin, RedirectionEntry::new().with_masked(true));
        // One that is under way still finds this handler, or the old one: both take any NMI.
        nmi::set_handler(self.old);
    }
}

/// The NMI. It takes no lock: the log's own gives up after a while, and the test agent has none.
fn handler(frame: &Frame) {
    let cpu = this_cpu().number();
    let watched = &WATCHED[cpu];
    let ticks = tick::ticks_on(cpu);
    if watched.ticks.swap(ticks, Ordering::Relaxed) != ticks {
        watched.silent.store(0, Ordering::Relaxed);
        return;
    }
    // Once for each time that it gets stuck.
    if watched.silent.fetch_add(1, Ordering::Relaxed) + 1 == LIMIT.load(Ordering::Relaxed) {
        watched.place.store(frame.rip, Ordering::SeqCst);
        watched.lockups.fetch_add(1, Ordering::SeqCst);
        log!("NMI watchdog: CPU {cpu} is stuck with interrupts off at {:#x}", frame.rip);
    }
}
