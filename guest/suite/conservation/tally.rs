//! What a source of interrupts has sent, and what has arrived.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::agent;
use kernel::arch::percpu::MAX_CPUS;
use kernel::boot::info::boot_info;
use kernel::irq::desc::NR_IRQS;
use kernel::testing::{Failure, TestResult};
use kernel::wait;
use x86::agent::{Kind, words};

/// A source's counts.
pub struct Tally {
    /// The number of the last event, stored before it is raised.
    pub sent: AtomicU64,
    /// Handlers that ran.
    pub delivered: AtomicU64,
    /// The highest number of an event that a handler has found sent when it began.
    seen: AtomicU64,
    /// Events that the sender knows to have been merged.
    pub merged: AtomicU64,
}

impl Tally {
    const fn new() -> Self {
        let [sent, delivered, seen, merged] = [const { AtomicU64::new(0) }; 4];
        Self { sent, delivered, seen, merged }
    }

    /// A handler begins.
    pub fn arrive(&self) {
        self.seen.fetch_max(self.sent.load(Ordering::SeqCst), Ordering::SeqCst);
        self.delivered.fetch_add(1, Ordering::SeqCst);
    }

    /// Numbers one more event, which the caller raises next.
    pub fn number(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Every event has arrived by itself.
    pub fn is_idle(&self) -> bool {
        self.delivered.load(Ordering::SeqCst) >= self.sent.load(Ordering::SeqCst)
    }

    /// Numbers and raises one event if the last one has arrived and the budget allows it.
    pub fn one(&self, raise: impl FnOnce()) {
        if self.is_idle() && take(1) == 1 {
            self.number();
            raise();
        }
    }

    fn clear(&self) {
        for count in [&self.sent, &self.delivered, &self.seen, &self.merged] {
            count.store(0, Ordering::SeqCst);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sent, delivered, seen, merged] =
            [&self.sent, &self.delivered, &self.seen, &self.merged].map(|count| count.load(Ordering::SeqCst));
        write!(f, "sent {sent}, delivered {delivered}, merged {merged}, the last one seen is {seen}")
    }
}

/// Of each interrupt number.
pub static NUMBERS: [Tally; NR_IRQS] = [const { Tally::new() }; NR_IRQS];
/// Of IPIs, by sender and receiver.
pub static IPIS: [[Tally; MAX_CPUS]; MAX_CPUS] = [const { [const { Tally::new() }; MAX_CPUS] }; MAX_CPUS];
/// Of each CPU's timer.
pub static TIMERS: [Tally; MAX_CPUS] = [const { Tally::new() }; MAX_CPUS];
/// Of NMIs, by receiver: each has one sender.
pub static NMIS: [Tally; MAX_CPUS] = [const { Tally::new() }; MAX_CPUS];
/// What kind a number has last been.
pub static IS_LEVEL: [AtomicBool; NR_IRQS] = [const { AtomicBool::new(false) }; NR_IRQS];

/// Interrupts that may still be sent.
static BUDGET: AtomicU64 = AtomicU64::new(0);

/// Sets all counts to 0, and the budget to what the command line says, or else to this.
pub fn begin(default: u64) {
    all().for_each(|(_, _, tally)| tally.clear());
    BUDGET.store(boot_info().number(words::COUNT).unwrap_or(default), Ordering::SeqCst);
}

/// Takes up to so many from the budget.
pub fn take(most: u64) -> u64 {
    let update = |left: u64| Some(left - left.min(most));
    match BUDGET.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update) {
        Ok(left) | Err(left) => left.min(most),
    }
}

/// What is left to be sent.
pub fn left() -> u64 {
    BUDGET.load(Ordering::SeqCst)
}

/// Everything sent and delivered so far.
pub fn activity() -> u64 {
    all().map(|(_, _, tally)| tally.sent.load(Ordering::SeqCst) + tally.delivered.load(Ordering::SeqCst)).sum()
}

fn all() -> impl Iterator<Item = (Kind, usize, &'static Tally)> {
    let number_kind = |irq: usize| if IS_LEVEL[irq].load(Ordering::SeqCst) { Kind::Level } else { Kind::Edge };
    let first_message = kernel::irq::desc::FIRST_DYNAMIC as usize;
    let kind = move |irq| if irq < first_message { number_kind(irq) } else { Kind::Msi };
    let numbers = NUMBERS.iter().enumerate().map(move |(irq, tally)| (kind(irq), irq, tally));
    let ipis = IPIS.iter().enumerate().flat_map(|(from, row)| {
        let kind = move |to| if from == to { Kind::SelfIpi } else { Kind::Ipi };
        row.iter().enumerate().map(move |(to, tally)| (kind(to), from * MAX_CPUS + to, tally))
    });
    let timers = TIMERS.iter().enumerate().map(|(cpu, tally)| (Kind::Timer, cpu, tally));
    let nmis = NMIS.iter().enumerate().map(|(cpu, tally)| (Kind::Nmi, cpu, tally));
    numbers.chain(ipis).chain(timers).chain(nmis)
}

/// Waits until nothing is on its way, as `done` sees it; fails with the source that is short.
pub fn drain(done: fn(&Tally) -> bool) -> TestResult {
    if wait::for_condition(|| all().all(|(_, _, tally)| done(tally))).is_ok() {
        return Ok(());
    }
    match all().find(|(_, _, tally)| !done(tally)) {
        Some((kind, n, tally)) => Err(Failure::new(format_args!("{kind:?} {n} is lost: {tally}"))),
        None => Ok(()),
    }
}

/// Reports all counts; what was sent must have been delivered or merged, and nothing made up.
pub fn settle(spurious: u64) -> TestResult {
    let mut result = Ok(());
    for (kind, n, tally) in all() {
        let [sent, delivered, merged] =
            [&tally.sent, &tally.delivered, &tally.merged].map(|count| count.load(Ordering::SeqCst));
        if sent + delivered == 0 {
            continue;
        }
        agent::count(kind, sent, delivered, merged, 0);
        if sent != delivered + merged {
            result = Err(Failure::new(format_args!("{kind:?} {n} is not conserved: {tally}")));
        }
    }
    if spurious != 0 {
        agent::count(Kind::Edge, 0, 0, 0, spurious);
        return Err(Failure::new(format_args!("{spurious} interrupts on vectors that nobody sends")));
    }
    result
}
