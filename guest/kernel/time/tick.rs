//! The tick and the clock event device: each CPU's local APIC timer.
//!
//! The timer is set to fire once, at the nearest of two moments: the next **tick** ([`HZ`] times a second), which counts jiffies,
//! takes from the thread's time slice and lets the timer wheel turn; and the first **high-resolution timer**. Jiffies follow the
//! monotonic clock, so when interrupts were off for a long time they jump, and the ticks that were missed are not replayed.
//!
//! Tests measure the same hardware, so here the tick runs only while somebody holds a [`Ticking`].
//!
//! To read more: Linux, kernel/time/tick-common.c, kernel/time/clockevents.c.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use spin::Once;
use x86::apic::{Lvt, TimerMode, reg};

use super::{calibrate, clock, hrtimer, timer, tsc};
use crate::arch::frame::Frame;
use crate::arch::percpu::{self, MAX_CPUS, this_cpu};
use crate::arch::vectors::{self, LOCAL_TIMER};
use crate::chips::apic;
use crate::sched;
use crate::smp::call;
use crate::softirq::{self, Kind};
use crate::sync::without_interrupts;

/// Ticks a second.
pub const HZ: u64 = 100;
/// Nanoseconds from tick to tick.
pub const TICK: u64 = clock::SECOND / HZ;
/// Never.
const NEVER: u64 = u64::MAX;

static JIFFIES: AtomicU64 = AtomicU64::new(0);

/// Ticks since the start, those without an interrupt too. They stand still while no tick runs.
pub fn jiffies() -> u64 {
    JIFFIES.load(Ordering::SeqCst)
}

/// A CPU's part.
struct Device {
    runs: AtomicBool,
    next_tick: AtomicU64,
    next_hrtimer: AtomicU64,
    ticks: AtomicU64,
}

static DEVICES: [Device; MAX_CPUS] = [const {
    let [next_tick, next_hrtimer] = [const { AtomicU64::new(NEVER) }; 2];
    Device { runs: AtomicBool::new(false), next_tick, next_hrtimer, ticks: AtomicU64::new(0) }
}; MAX_CPUS];

/// Ticks that a CPU has handled.
pub fn ticks_on(cpu: usize) -> u64 {
    DEVICES[cpu].ticks.load(Ordering::Relaxed)
}

/// The tick runs on all CPUs while one of these lives.
pub struct Ticking(());

static USERS: AtomicU32 = AtomicU32::new(0);

/// Starts the tick on all CPUs. Interrupts are on.
pub fn start() -> Ticking {
    if USERS.fetch_add(1, Ordering::SeqCst) == 0 {
        apic_ticks_per_second();
        vectors::set_handler(LOCAL_TIMER, Some(interrupt));
        percpu::cpus().for_each(|cpu| call::call_on(cpu, start_here, 0, true));
    }
    Ticking(())
}

impl Drop for Ticking {
    fn drop(&mut self) {
        if USERS.fetch_sub(1, Ordering::SeqCst) == 1 {
            percpu::cpus().for_each(|cpu| call::call_on(cpu, stop_here, 0, true));
            vectors::set_handler(LOCAL_TIMER, None);
        }
    }
}

/// Rate of the local APIC timer, measured once; 0 where it is not needed, because deadlines are given by the TSC.
fn apic_ticks_per_second() -> u64 {
    static RATE: Once<u64> = Once::new();
    *RATE.call_once(|| {
        if apic::has_tsc_deadline() {
            return 0;
        }
        calibrate::start_apic_timer(DIVIDE_SHIFT);
        let measured = calibrate::measure(calibrate::TSC, calibrate::APIC_TIMER, tsc::hz() / HZ);
        apic::write(reg::TIMER_INITIAL, 0);
        (u128::from(measured.second) * u128::from(tsc::hz()) / u128::from(measured.first.max(1))) as u64
    })
}

/// The timer counts every sixteenth tick of its clock.
const DIVIDE_SHIFT: u8 = 4;

fn start_here(_: usize) {
    let device = &DEVICES[this_cpu().number()];
    let lvt = Lvt::new().with_vector(LOCAL_TIMER);
    if apic::has_tsc_deadline() {
        apic::write(reg::LVT_TIMER, lvt.with_timer_mode_bits(TimerMode::TscDeadline as u8).into_bits());
    } else {
        calibrate::start_apic_timer(DIVIDE_SHIFT);
        apic::write(reg::LVT_TIMER, lvt.into_bits());
    }
    device.runs.store(true, Ordering::SeqCst);
    let now = clock::monotonic();
    update_jiffies(now);
    set_next_tick(device, now);
    program(device, now);
}

fn stop_here(_: usize) {
    DEVICES[this_cpu().number()].runs.store(false, Ordering::SeqCst);
    if apic::has_tsc_deadline() {
        apic::set_tsc_deadline(0);
    }
    apic::write(reg::TIMER_INITIAL, 0);
    apic::write(reg::LVT_TIMER, Lvt::new().with_vector(LOCAL_TIMER).with_masked(true).into_bits());
}

/// The local timer's interrupt.
fn interrupt(_: &mut Frame) {
    apic::eoi();
    let device = &DEVICES[this_cpu().number()];
    let now = clock::monotonic();
    if now >= device.next_tick.load(Ordering::Relaxed) {
        device.ticks.fetch_add(1, Ordering::Relaxed);
        update_jiffies(now);
        sched::tick();
        if timer::anything_here() {
            softirq::raise(Kind::Timer);
        }
        // From the end of the handler: on a CPU that is slow there must be time for more than ticks.
        set_next_tick(device, clock::monotonic());
    }
    if now >= device.next_hrtimer.load(Ordering::Relaxed) {
        // The softirq says when the next one is due.
        device.next_hrtimer.store(NEVER, Ordering::Relaxed);
        softirq::raise(Kind::HrTimer);
    }
    program(device, now);
}

fn update_jiffies(now: u64) {
    JIFFIES.fetch_max(now / TICK, Ordering::SeqCst);
}

/// The next tick, unless it is nearer than half of one: then the one after it.
fn set_next_tick(device: &Device, now: u64) {
    device.next_tick.store(((now + TICK / 2) / TICK + 1) * TICK, Ordering::Relaxed);
}

/// Sets the timer to the nearest moment. Interrupts are off.
fn program(device: &Device, now: u64) {
    if !device.runs.load(Ordering::Relaxed) {
        return;
    }
    let next = device.next_tick.load(Ordering::Relaxed).min(device.next_hrtimer.load(Ordering::Relaxed));
    if apic::has_tsc_deadline() {
        apic::set_tsc_deadline(clock::tsc_at(next));
    } else {
        let wait = next.saturating_sub(now).min(2 * TICK);
        apic::write(reg::TIMER_INITIAL, (wait * apic_ticks_per_second() / clock::SECOND) as u32 + 1);
    }
}

/// This CPU's first high-resolution timer is due at this time.
pub(super) fn set_next_hrtimer(expires: Option<u64>) {
    without_interrupts(|| {
        let device = &DEVICES[this_cpu().number()];
        device.next_hrtimer.store(expires.unwrap_or(NEVER), Ordering::Relaxed);
        program(device, clock::monotonic());
    });
}

/// Has a CPU look for its first high-resolution timer.
pub(super) fn look_again(cpu: usize) {
    if let Some(cpu) = percpu::cpu(cpu) {
        call::call_on(cpu, |_| hrtimer::set_device(), 0, false);
    }
}
