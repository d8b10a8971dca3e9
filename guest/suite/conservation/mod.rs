//! Conservation: storms of interrupts of all kinds, and then the books are balanced. What was sent has been delivered, or merged where
//! the architecture merges; none is lost, none made up.
//!
//! In the **exact** tests each source has one event under way at a time, and all sources are at work at once, so every event must
//! arrive by itself. In the **floods** events come faster than they are handled: they may merge, but the last one must be seen, and
//! a line's own merging is known to the host to the event. Masks, destinations, trigger modes, task priorities and sleep change
//! meanwhile, from the seed.
//!
//! Where the local APICs keep nothing in service ([`Needs::IN_SERVICE`]), a line interrupts again for as long as it is up. There a driver asks its
//! device first whether it wants something, and what comes when it does not is nobody's: such a line may not be lost, but may be made up.

mod devices;
mod flood;
mod tally;

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::percpu::{self, PerCpu, this_cpu};
use kernel::arch::{nmi, vectors};
use kernel::boot::info::boot_info;
use kernel::chips::apic;
use kernel::random::Random;
use kernel::smp::call;
use kernel::sync::{disable_interrupts, enable_and_halt, enable_interrupts, without_interrupts};
use kernel::testing::TestResult;
use kernel::{check_eq, machine, test, wait};
use x86::apic::{Lvt, reg};
use x86::test_record::Needs;

use devices::Devices;
pub use flood::quiesce;
use tally::{IPIS, NMIS, TIMERS, Tally};

test!("conservation.all_kinds_on_one_cpu", [10, 11, 14], exact::<1, ALL>;
    .needs(Needs::AGENT).limit_ms(LIMIT));
test!("conservation.all_kinds_on_two_cpus", [10, 11, 12, 13, 14], exact::<2, ALL>;
    .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));
test!("conservation.all_kinds_on_four_cpus", [10, 11, 12, 13, 14], exact::<4, ALL>;
    .needs(Needs::AGENT).cpus(4).limit_ms(LIMIT));
test!("conservation.lines_and_messages", [10, 12, 14], exact::<2, DEVICES>;
    .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));
test!("conservation.ipis_to_oneself", [11, 13], exact::<1, IPI>; .limit_ms(LIMIT));
test!("conservation.ipis_between_cpus", [11, 13], exact::<4, IPI>; .cpus(2).limit_ms(LIMIT));
test!("conservation.timers_and_sleep", [11, 20], exact::<2, TIMER>;
    .cpus(2).needs(Needs::STI_SHADOW).limit_ms(LIMIT));
test!("conservation.nmis", [7, 13], exact::<2, NMI>; .cpus(2).limit_ms(LIMIT));
test!("conservation.requests_merge_to_one", [11, 13], merge; .limit_ms(LIMIT));

/// CPU time in milliseconds, also for counts of millions.
const LIMIT: u32 = 3_600_000;

/// Sources that can take part: lines of the I/O APIC and messages.
const DEVICES: u32 = 1 << 0;
/// IPIs, to oneself and to others.
const IPI: u32 = 1 << 1;
/// Local timers.
const TIMER: u32 = 1 << 2;
/// NMIs.
const NMI: u32 = 1 << 3;
/// All.
const ALL: u32 = DEVICES | IPI | TIMER | NMI;

/// Sources that take part.
static KINDS: AtomicU32 = AtomicU32::new(0);
/// CPUs that take part.
static CPUS: AtomicU32 = AtomicU32::new(0);
/// CPUs other than the first that are still at work.
static WORKING: AtomicU32 = AtomicU32::new(0);

fn has(kind: u32) -> bool {
    KINDS.load(Ordering::SeqCst) & kind != 0
}

fn cpus() -> usize {
    CPUS.load(Ordering::SeqCst) as usize
}

fn id_of(cpu: usize) -> u32 {
    percpu::cpu(cpu).map_or(0, |cpu| cpu.apic_id.load(Ordering::Relaxed))
}

/// A level line's interrupt may come once more after its device has been served.
fn lines_come_again() -> bool {
    !machine::has(Needs::IN_SERVICE)
}

/// The vector of a sender: all priority classes have one.
fn vector_of(sender: usize) -> u8 {
    0x39 + 9 * sender as u8
}

fn ipi_handler(frame: &mut Frame) {
    let sender = (frame.vector as usize - 0x39) / 9;
    IPIS[sender][this_cpu().number()].arrive();
    apic::eoi();
}

fn timer_handler(_: &mut Frame) {
    TIMERS[this_cpu().number()].arrive();
    apic::eoi();
}

fn nmi_handler(_: &Frame) {
    NMIS[this_cpu().number()].arrive();
}

/// Handlers of what is no device's, for as long as `body` runs; gives the stray interrupts that came meanwhile.
fn with_handlers(body: impl FnOnce() -> TestResult) -> TestResult {
    // A host that steps through the guest must keep its own traps to itself.
    let traps = || percpu::cpus().map(|cpu| cpu.vectors[1].load(Ordering::Relaxed)).sum::<u64>();
    let strays = || vectors::unclaimed() + vectors::spurious() + traps();
    let before = strays();
    let mut wanted = [vectors::LOCAL_TIMER; percpu::MAX_CPUS];
    (0..cpus()).for_each(|cpu| wanted[cpu] = vector_of(cpu));
    let old_nmi = nmi::set_handler(Some(nmi_handler));
    let old_timer = vectors::set_handler(vectors::LOCAL_TIMER, Some(timer_handler));
    let result = crate::apic::with_vectors(&wanted[..cpus()], ipi_handler, body);
    vectors::set_handler(vectors::LOCAL_TIMER, old_timer);
    nmi::set_handler(old_nmi);
    result?;
    tally::settle(strays() - before)
}

fn spin(random: &mut Random, most: u64) {
    (0..random.below(most)).for_each(|_| core::hint::spin_loop());
}

/// One thing that a CPU does in a storm.
fn step(random: &mut Random, me: usize) {
    match random.below(16) {
        0..=4 if has(IPI) => {
            let to = random.below(cpus() as u64) as usize;
            IPIS[me][to].one(|| apic::send_to(id_of(to), vector_of(me)));
        }
        5 | 6 if has(NMI) => {
            let to = (me + 1) % cpus();
            NMIS[to].one(|| apic::send_nmi(id_of(to)));
        }
        7 | 8 if has(TIMER) => {
            let ticks = 1 + random.below(20_000) as u32;
            TIMERS[me].one(|| apic::write(reg::TIMER_INITIAL, ticks));
        }
        9 => {
            apic::write(reg::TPR, (1 + random.below(15) as u32) << 4);
            spin(random, 50);
            apic::write(reg::TPR, 0);
        }
        10 => without_interrupts(|| {
            if has(IPI) {
                IPIS[me][me].one(|| apic::send_to(id_of(me), vector_of(me)));
            }
            spin(random, 50);
        }),
        11 if boot_info().keeps_sti_shadow() => sleep(&TIMERS[me]),
        _ => spin(random, 30),
    }
}

/// Sleeps if this CPU's timer is going to end it: looking and falling asleep are one as far as interrupts can tell.
fn sleep(timer: &Tally) {
    disable_interrupts();
    if timer.is_idle() {
        enable_interrupts();
    } else {
        enable_and_halt();
    }
}

fn prepare_timer(masked: bool) {
    let lvt = Lvt::new().with_vector(vectors::LOCAL_TIMER).with_masked(masked);
    apic::write(reg::LVT_TIMER, lvt.into_bits());
}

/// What the other CPUs do, with interrupts on inside the call.
fn work(_: usize) {
    enable_interrupts();
    let me = this_cpu().number();
    let mut random = Random::from_seed(me as u64);
    prepare_timer(false);
    while tally::left() != 0 {
        step(&mut random, me);
    }
    // If it stays out, the books will say so.
    let _ = wait::for_condition(|| TIMERS[me].is_idle());
    prepare_timer(true);
    disable_interrupts();
    WORKING.fetch_sub(1, Ordering::SeqCst);
}

fn start_others() {
    let others: usize = percpu::cpus().filter(is_other).count();
    WORKING.store(others as u32, Ordering::SeqCst);
    percpu::cpus().filter(is_other).for_each(|cpu| call::call_on(cpu, work, 0, false));
}

fn is_other(cpu: &&'static PerCpu) -> bool {
    (1..cpus()).contains(&cpu.number())
}

/// A storm in which every event arrives by itself.
fn exact<const MOST_CPUS: usize, const SOURCES: u32>() -> TestResult {
    KINDS.store(SOURCES, Ordering::SeqCst);
    CPUS.store(MOST_CPUS.min(percpu::cpus().count()) as u32, Ordering::SeqCst);
    tally::begin(if SOURCES == NMI { DEFAULT / 6 } else { DEFAULT });
    with_handlers(|| {
        let mut random = Random::from_seed(0);
        let mut devices = if has(DEVICES) { Some(Devices::new(cpus())?) } else { None };
        prepare_timer(false);
        start_others();
        let mut result = Ok(());
        let (mut left, mut idle) = (tally::left(), 0);
        while left != 0 && result.is_ok() {
            idle = if tally::left() == left { idle + 1 } else { 0 };
            left = tally::left();
            if idle == STALLED {
                let before = tally::activity();
                if let Some(devices) = &mut devices {
                    devices.enable_all();
                }
                result = wait::for_condition(|| tally::activity() != before);
                idle = 0;
            }
            step(&mut random, 0);
            if let Some(devices) = &mut devices {
                result = devices.step(&mut random);
            }
        }
        // Whatever went wrong, the others must come to their end.
        tally::take(u64::MAX);
        let ended = wait::for_condition(|| WORKING.load(Ordering::SeqCst) == 0);
        if let Some(devices) = &mut devices {
            devices.enable_all();
        }
        let drained = tally::drain(Tally::is_idle);
        if lines_come_again() {
            quiesce();
        }
        prepare_timer(true);
        // Which source is short says more than that nothing goes on.
        drained.and(result).and(ended)
    })
}

/// After so many steps without anything sent it is time to wait for what is under way.
const STALLED: u32 = 20_000;
/// So many interrupts, if the command line does not say: with the floods more than 100,000 in all on two CPUs. Those that wait for another
/// CPU each time are slow.
const DEFAULT: u64 = 3_000;

/// Requests of a vector that can't be taken yet are one, and it is taken once.
fn merge() -> TestResult {
    KINDS.store(0, Ordering::SeqCst);
    CPUS.store(1, Ordering::SeqCst);
    tally::begin(4 * DEFAULT);
    with_handlers(|| {
        let mut random = Random::from_seed(0);
        let tally = &IPIS[0][0];
        let mut rounds = 0;
        loop {
            let burst = tally::take(1 + random.below(8));
            if burst == 0 {
                return Ok(());
            }
            without_interrupts(|| {
                for _ in 0..burst {
                    tally.number();
                    apic::send_to(id_of(0), vector_of(0));
                }
                wait::for_condition(|| apic::requested(vector_of(0)))
            })?;
            rounds += 1;
            wait::for_condition(|| tally.delivered.load(Ordering::SeqCst) >= rounds)?;
            check_eq!(tally.delivered.load(Ordering::SeqCst), rounds, "handlers after {rounds} bursts");
            tally.merged.fetch_add(burst - 1, Ordering::SeqCst);
        }
    })
}
