//! Interrupts from one CPU to another, and to itself: a closed loop, from before the ICR is written to the gate of the target.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kernel::arch::percpu::{self, PerCpu, this_cpu};
use kernel::chips::apic;
use kernel::measure::{between, closed_loop, pause, spin_until};
use kernel::measurement;
use kernel::random::Random;
use kernel::sched::task::{Priority, kthread_run};
use kernel::sync::{disable_interrupts, enable_and_halt, enable_interrupts};
use kernel::testing::{Failure, TestResult};
use kernel::time::tsc;
use x86::apic::Shorthand;

use super::{VECTOR, done, handler, stamp, with_stamps};

measurement!("self_ipi", to_self);
measurement!("ipi_running", to_running; .cpus(2));
measurement!("ipi_halted", to_halted; .cpus(2));
measurement!("ipi_all", to_all; .cpus(2));

/// The target has come back from so many handlers, and waits for the next.
static READY: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

fn to_self() -> TestResult {
    let (cpu, id) = (this_cpu(), apic::id());
    with_stamps(VECTOR, handler, || {
        closed_loop(|| {
            let from = tsc::read();
            apic::send_to(id, VECTOR);
            Ok(between(from, stamp(cpu)?))
        })
    })
}

fn to_running() -> TestResult {
    to_other(false)
}

fn to_halted() -> TestResult {
    to_other(true)
}

/// A thread of the other CPU waits in a loop, or in HLT.
fn to_other(halts: bool) -> TestResult {
    let mut random = Random::from_seed(u64::from(halts) + 1);
    with_target(halts, |target, id| {
        closed_loop(|| {
            ready(&mut random)?;
            let from = tsc::read();
            apic::send_to(id, VECTOR);
            Ok(between(from, stamp(target)?))
        })
    })
}

/// To this CPU and the other one, by a shorthand: to the later of the two gates.
fn to_all() -> TestResult {
    let mut random = Random::from_seed(3);
    with_target(false, |target, _| {
        let others = percpu::cpus().count() as u32;
        closed_loop(|| {
            // Everybody has had everything.
            spin_until(|| done().is_multiple_of(others))?;
            ready(&mut random)?;
            percpu::cpus().for_each(|cpu| _ = cpu.take_stamp());
            let from = tsc::read();
            apic::send_shorthand(Shorthand::All, VECTOR);
            let mut last = stamp(target)?;
            for cpu in percpu::cpus().filter(|cpu| !core::ptr::eq(*cpu, target)) {
                last = last.max(stamp(cpu)?);
            }
            Ok(between(from, last))
        })
    })
}

/// Waits until the target waits, and then some time that is never the same, so that no rhythm of the host's is met.
fn ready(random: &mut Random) -> TestResult {
    spin_until(|| READY.load(Ordering::SeqCst) == done())?;
    pause(20_000 + random.below(80_000));
    Ok(())
}

/// With a thread on CPU 1 that waits for interrupts, which `body` sends to this APIC ID.
fn with_target(halts: bool, body: impl FnOnce(&'static PerCpu, u32) -> TestResult) -> TestResult {
    let target = percpu::cpu(1).ok_or_else(|| Failure::new(format_args!("no second CPU")))?;
    let id = target.apic_id.load(Ordering::Relaxed);
    STOP.store(false, Ordering::SeqCst);
    READY.store(u32::MAX, Ordering::SeqCst);
    with_stamps(VECTOR, handler, || {
        let thread = kthread_run("target", 1, Priority::Normal, move || {
            while !STOP.load(Ordering::SeqCst) {
                if halts {
                    disable_interrupts();
                    READY.store(done(), Ordering::SeqCst);
                    enable_and_halt();
                } else {
                    READY.store(done(), Ordering::SeqCst);
                    core::hint::spin_loop();
                }
            }
            enable_interrupts();
            0
        });
        let result = body(target, id);
        STOP.store(true, Ordering::SeqCst);
        // Out of HLT, if it is there.
        apic::send_to(id, VECTOR);
        thread.join();
        target.take_stamp();
        result
    })
}
