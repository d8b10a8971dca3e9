//! Timers of the wheel: call a function some jiffies from now, unless somebody changes his mind. Run from the TIMER softirq of the CPU that
//! they were made for.
//!
//! To read more: Linux, kernel/time/timer.c (mod_timer, timer_delete_sync).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::tick::jiffies;
use super::wheel::Wheel;
use crate::arch::percpu::{MAX_CPUS, this_cpu};
use crate::sched;
use crate::softirq::{self, Kind};
use crate::sync::IrqLock;

/// Where a timer is: nowhere, among those that are about to run, or in a bucket.
const NOWHERE: u32 = u32::MAX;
const DUE: u32 = u32::MAX - 1;

/// A timer.
pub struct Timer {
    function: Box<dyn Fn() + Send + Sync>,
    cpu: usize,
    /// Changed under its base's lock.
    place: AtomicU32,
}

/// One CPU's timers.
struct Base {
    wheel: Wheel<Arc<Timer>>,
    /// Taken out of the wheel, not run yet.
    due: VecDeque<Arc<Timer>>,
    /// The one whose function runs.
    running: Option<Arc<Timer>>,
}

static BASES: [IrqLock<Base>; MAX_CPUS] =
    [const { IrqLock::new(Base { wheel: Wheel::new(), due: VecDeque::new(), running: None }) }; MAX_CPUS];
/// Functions that each CPU has called.
static RUNS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Opens the softirq.
pub(crate) fn init() {
    softirq::open(Kind::Timer, Some(run));
}

/// How many timers a CPU has run.
pub fn runs_on(cpu: usize) -> u64 {
    RUNS[cpu].load(Ordering::Relaxed)
}

/// This CPU's wheel has to turn.
pub(super) fn anything_here() -> bool {
    let base = BASES[this_cpu().number()].lock();
    !base.wheel.is_empty() || !base.due.is_empty()
}

impl Base {
    /// Takes the timer out; false if it was nowhere.
    fn detach(&mut self, timer: &Arc<Timer>) -> bool {
        let is_it = |other: &Arc<Timer>| Arc::ptr_eq(other, timer);
        match timer.place.swap(NOWHERE, Ordering::Relaxed) {
            NOWHERE => false,
            DUE => {
                self.due.retain(|other| !is_it(other));
                true
            }
            bucket => self.wheel.remove(bucket as usize, is_it).is_some(),
        }
    }
}

impl Timer {
    /// One that calls `function` on this CPU. The function must not wait.
    pub fn new(function: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Self::new_on(this_cpu().number(), function)
    }

    /// One that calls `function` on this CPU.
    pub fn new_on(cpu: usize, function: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { function: Box::new(function), cpu, place: AtomicU32::new(NOWHERE) })
    }

    /// Makes it due when jiffies are `expires`, whether it was due at another time or not at all (mod_timer); true if it was.
    pub fn modify(self: &Arc<Self>, expires: u64) -> bool {
        let mut base = BASES[self.cpu].lock();
        let was_pending = base.detach(self);
        let bucket = base.wheel.insert(jiffies(), expires, self.clone());
        self.place.store(bucket as u32, Ordering::Relaxed);
        was_pending
    }

    /// The same, in so many whole jiffies: the present one is partly over and does not count.
    pub fn modify_after(self: &Arc<Self>, ticks: u64) -> bool {
        self.modify(jiffies() + ticks + 1)
    }

    /// It has not run yet since it was last made due.
    pub fn is_pending(&self) -> bool {
        self.place.load(Ordering::Relaxed) != NOWHERE
    }

    /// It does not become due; true if it would have. Its function may be running.
    pub fn delete(self: &Arc<Self>) -> bool {
        BASES[self.cpu].lock().detach(self)
    }

    /// The same; when this returns its function does not run. Not to be called from the function.
    pub fn delete_sync(self: &Arc<Self>) -> bool {
        let mut was_pending = false;
        sched::wait_until(|| {
            let mut base = BASES[self.cpu].lock();
            was_pending |= base.detach(self);
            !base.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, self))
        });
        was_pending
    }
}

/// The softirq.
fn run() {
    let cpu = this_cpu().number();
    loop {
        let mut base = BASES[cpu].lock();
        base.running = None;
        while base.due.is_empty() {
            let Some(due) = base.wheel.turn(jiffies(), |timer, bucket| {
                timer.place.store(bucket as u32, Ordering::Relaxed);
            }) else {
                return;
            };
            due.iter().for_each(|timer| timer.place.store(DUE, Ordering::Relaxed));
            base.due.extend(due);
        }
        let Some(timer) = base.due.pop_front() else { return };
        // First, so that the function can make it due again.
        timer.place.store(NOWHERE, Ordering::Relaxed);
        base.running = Some(timer.clone());
        drop(base);
        RUNS[cpu].fetch_add(1, Ordering::Relaxed);
        (timer.function)();
    }
}
