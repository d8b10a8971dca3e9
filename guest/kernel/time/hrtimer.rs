//! High-resolution timers: due at a nanosecond, kept in their order, and usually they do run.
//!
//! The clock event device is set to the first of them ([`super::tick`]), and the HRTIMER softirq of their CPU calls the functions. One that
//! returns a time is due again then: a periodic timer is moved forward from when it *was* due, so it does not drift.
//!
//! To read more: Linux, Documentation/timers/hrtimers.rst.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{clock, tick};
use crate::arch::percpu::{MAX_CPUS, this_cpu};
use crate::sched;
use crate::softirq::{self, Kind};
use crate::sync::IrqLock;

/// When a timer is due, and the number that keeps those of one time apart.
type Key = (u64, u64);

/// A timer.
pub struct HrTimer {
    /// Told when it was due; says when it is due again.
    function: Box<dyn Fn(u64) -> Option<u64> + Send + Sync>,
    cpu: usize,
    /// Its place, while it has one. Taken inside the base's lock.
    key: IrqLock<Option<Key>>,
}

/// One CPU's timers.
struct Base {
    timers: BTreeMap<Key, Arc<HrTimer>>,
    running: Option<Arc<HrTimer>>,
    next_number: u64,
}

static BASES: [IrqLock<Base>; MAX_CPUS] =
    [const { IrqLock::new(Base { timers: BTreeMap::new(), running: None, next_number: 0 }) }; MAX_CPUS];
/// Functions that each CPU has called.
static RUNS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Opens the softirq.
pub(crate) fn init() {
    softirq::open(Kind::HrTimer, Some(run));
}

/// How many timers a CPU has run.
pub fn runs_on(cpu: usize) -> u64 {
    RUNS[cpu].load(Ordering::Relaxed)
}

impl Base {
    fn detach(&mut self, timer: &HrTimer) -> bool {
        timer.key.lock().take().is_some_and(|key| self.timers.remove(&key).is_some())
    }

    /// True if it is the first now.
    fn attach(&mut self, timer: &Arc<HrTimer>, expires: u64) -> bool {
        let key = (expires, self.next_number);
        self.next_number += 1;
        *timer.key.lock() = Some(key);
        self.timers.insert(key, timer.clone());
        self.first() == Some(key)
    }

    fn first(&self) -> Option<Key> {
        self.timers.first_key_value().map(|(key, _)| *key)
    }

    fn is_running(&self, timer: &Arc<HrTimer>) -> bool {
        self.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, timer))
    }
}

impl HrTimer {
    /// One for this CPU. The function must not wait.
    pub fn new(function: impl Fn(u64) -> Option<u64> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { function: Box::new(function), cpu: this_cpu().number(), key: IrqLock::new(None) })
    }

    /// Makes it due at this monotonic time, whether it was due at another or not at all; true if it was.
    pub fn start(self: &Arc<Self>, expires: u64) -> bool {
        let mut base = BASES[self.cpu].lock();
        let was_pending = base.detach(self);
        let is_first = base.attach(self, expires);
        drop(base);
        if is_first {
            if self.cpu == this_cpu().number() { set_device() } else { tick::look_again(self.cpu) }
        }
        was_pending
    }

    /// The same, so many nanoseconds from now.
    pub fn start_after(self: &Arc<Self>, nanoseconds: u64) -> bool {
        self.start(clock::monotonic() + nanoseconds)
    }

    /// It is due some time.
    pub fn is_pending(&self) -> bool {
        self.key.lock().is_some()
    }

    /// It does not become due, if its function does not run just now; true if it would have.
    pub fn try_to_cancel(self: &Arc<Self>) -> bool {
        BASES[self.cpu].lock().detach(self)
    }

    /// The same; when this returns its function does not run. Not to be called from the function.
    pub fn cancel(self: &Arc<Self>) -> bool {
        let mut was_pending = false;
        sched::wait_until(|| {
            let mut base = BASES[self.cpu].lock();
            was_pending |= base.detach(self);
            !base.is_running(self)
        });
        was_pending
    }
}

/// The first time after `now` that is a whole number of intervals after `expired`, and how many of them are between (hrtimer_forward).
pub fn forward(expired: u64, now: u64, interval: u64) -> (u64, u64) {
    let overruns = now.saturating_sub(expired) / interval + 1;
    (expired + overruns * interval, overruns)
}

/// Sets this CPU's device to its first timer.
pub(super) fn set_device() {
    let base = BASES[this_cpu().number()].lock();
    tick::set_next_hrtimer(base.first().map(|(expires, _)| expires));
}

/// The softirq.
fn run() {
    let cpu = this_cpu().number();
    loop {
        let mut base = BASES[cpu].lock();
        let Some(key) = base.first().filter(|(expires, _)| *expires <= clock::monotonic()) else { break };
        let Some(timer) = base.timers.remove(&key) else { break };
        *timer.key.lock() = None;
        base.running = Some(timer.clone());
        drop(base);
        RUNS[cpu].fetch_add(1, Ordering::Relaxed);
        let again = (timer.function)(key.0);
        let mut base = BASES[cpu].lock();
        base.running = None;
        // Its function, or another CPU, may have started it already.
        if let Some(expires) = again
            && !timer.is_pending()
        {
            base.attach(&timer, expires);
        }
    }
    set_device();
}
