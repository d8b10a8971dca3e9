//! How late timers of the local APIC are: from the time that was asked for to the gate.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::percpu::this_cpu;
use kernel::boot::info::boot_info;
use kernel::chips::apic;
use kernel::measure::{LATENCY, between, closed_loop, events, hand_over, spin_until, watched};
use kernel::random::Random;
use kernel::sync::{IrqLock, disable_interrupts, enable_and_halt, enable_interrupts};
use kernel::testing::{Failure, TestResult};
use kernel::time::tsc;
use kernel::{agent, measurement};
use x86::agent::{Op, Sample};
use x86::apic::{Lvt, TimerMode, reg};
use x86::platform::APIC_TIMER_HZ;
use x86::test_record::Needs;

use super::{VECTOR, done, handler, stamp, with_stamps};

measurement!("timer_oneshot", one_shot);
measurement!("timer_periodic", periodic; .needs(Needs::AGENT));
measurement!("timer_deadline", deadline; .needs(Needs::TSC_DEADLINE));
measurement!("hlt_wakeup", wake_up);

/// Nanoseconds of a tick, undivided.
const TICK_NS: u64 = 1_000_000_000 / APIC_TIMER_HZ;

/// With the timer in this mode, and off afterwards.
fn with_timer(mode: TimerMode, handler: fn(&mut Frame), body: impl FnOnce() -> TestResult) -> TestResult {
    with_stamps(VECTOR, handler, || {
        apic::write(reg::TIMER_DIVIDE, 0b1011);
        let lvt = Lvt::new().with_vector(VECTOR).with_timer_mode_bits(mode as u8);
        apic::write(reg::LVT_TIMER, lvt.into_bits());
        let result = body();
        apic::write(reg::LVT_TIMER, lvt.with_masked(true).into_bits());
        apic::write(reg::TIMER_INITIAL, 0);
        result
    })
}

/// A time that is never the same: half a millisecond, and up to a whole one more.
fn some_time(random: &mut Random) -> u64 {
    500_000 + random.below(1_000_000)
}

fn one_shot() -> TestResult {
    let (cpu, mut random) = (this_cpu(), Random::from_seed(20));
    with_timer(TimerMode::OneShot, handler, || {
        closed_loop(|| {
            let nanos = some_time(&mut random);
            let from = tsc::read();
            apic::write(reg::TIMER_INITIAL, (nanos / TICK_NS) as u32);
            Ok(Sample { nanos, ..between(from, stamp(cpu)?) })
        })
    })
}

/// The same, but the CPU is in HLT when the time comes.
fn wake_up() -> TestResult {
    let (cpu, mut random) = (this_cpu(), Random::from_seed(21));
    with_timer(TimerMode::OneShot, handler, || {
        closed_loop(|| {
            let (nanos, before) = (some_time(&mut random), done());
            disable_interrupts();
            let from = tsc::read();
            apic::write(reg::TIMER_INITIAL, (nanos / TICK_NS) as u32);
            while done() == before {
                enable_and_halt();
                disable_interrupts();
            }
            enable_interrupts();
            Ok(Sample { nanos, ..between(from, stamp(cpu)?) })
        })
    })
}

fn deadline() -> TestResult {
    let (cpu, mut random) = (this_cpu(), Random::from_seed(22));
    with_timer(TimerMode::TscDeadline, handler, || {
        closed_loop(|| {
            let nanos = some_time(&mut random);
            let deadline = tsc::read() + (u128::from(nanos) * u128::from(tsc::hz()) / 1_000_000_000) as u64;
            apic::set_tsc_deadline(deadline);
            Ok(between(deadline, stamp(cpu)?))
        })
    })
}

/// The gates of one run, in order.
static GATES: IrqLock<Vec<u64>> = IrqLock::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Each expiry counts from its own time. Two that came as one interrupt are both served by that one.
fn periodic() -> TestResult {
    fn note(_: &mut Frame) {
        let stamp = this_cpu().take_stamp();
        let mut gates = GATES.lock();
        // Never beyond what was reserved: a handler does not allocate.
        if gates.len() < gates.capacity() {
            gates.push(stamp);
        }
        COUNT.store(gates.len(), Ordering::SeqCst);
        apic::eoi();
    }
    let (count, period) = (events(), if boot_info().software_host() { 5_000_000 } else { 500_000 });
    *GATES.lock() = Vec::with_capacity(count);
    COUNT.store(0, Ordering::SeqCst);
    let mut from = 0;
    let mut clocks = [[0; 2]; 2];
    with_timer(TimerMode::Periodic, note, || {
        watched(|| {
            clocks[0] = moment()?;
            from = tsc::read();
            apic::write(reg::TIMER_INITIAL, (period / TICK_NS) as u32);
            let gates = || COUNT.load(Ordering::SeqCst);
            while gates() < count {
                let before = gates();
                spin_until(|| gates() > before)?;
            }
            apic::write(reg::TIMER_INITIAL, 0);
            clocks[1] = moment()?;
            Ok(())
        })
    })?;
    let [ticks, nanos] = [clocks[1][0] - clocks[0][0], clocks[1][1] - clocks[0][1]];
    let elapsed = |gate: u64| (u128::from(gate - from) * u128::from(nanos) / u128::from(ticks.max(1))) as u64;
    let (mut samples, mut served) = (Vec::with_capacity(count), 0);
    for &gate in GATES.lock().iter() {
        while samples.len() < count && (served + 1) * period <= elapsed(gate) {
            served += 1;
            // At the rate by which it was counted: at another, a little slower, one that is not late at all would be early.
            let due = (u128::from(served * period) * u128::from(ticks) / u128::from(nanos.max(1))) as u64;
            samples.push(between(from + due, gate));
        }
    }
    hand_over(LATENCY, &samples);
    Ok(())
}

/// TSC and clock of the host at one moment.
fn moment() -> Result<[u64; 2], Failure> {
    agent::call(Op::Clock, [0; 5])
        .map_err(|_| Failure::skip(format_args!("the TSC's rate is not known: its offset may change on this host")))
}
