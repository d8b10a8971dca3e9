//! The watchdog: reports an item that keeps its worker for long without saying that it blocks, and lets the pool go on.
//!
//! It looks at all pools every period while somebody works, and not at all when nobody does. An item found twice has run
//! for at least one period.

use std::sync::{Arc, OnceLock, Weak};

use super::pool::{Group, Pool};
use crate::clock::Clock;
use crate::cpu::Cpu;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::timer::Timer;

/// An item that hogs a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hog {
    /// Its function.
    pub function: String,
    /// Its queue.
    pub queue: String,
    /// The thread's name.
    pub worker: String,
    /// It has run for at least so long, in ns.
    pub at_least: u64,
}

/// Looks of the watchdog, at least, while an item runs, for it to be a hog.
const LOOKS: u32 = 2;
/// Reports that are kept.
const KEPT: usize = 64;

pub(crate) struct Watchdog {
    period: u64,
    armed: AtomicBool,
    timer: OnceLock<Timer>,
    clock: Arc<dyn Clock>,
    groups: Mutex<Vec<Weak<Group>>>,
    hogs: Mutex<Vec<Hog>>,
}

impl Watchdog {
    pub(crate) fn new(cpu: &Arc<Cpu>, period: u64) -> Arc<Self> {
        let clock = Arc::clone(&cpu.shared.clock);
        let watchdog = Arc::new(Self {
            period,
            armed: AtomicBool::new(false),
            timer: OnceLock::new(),
            clock,
            groups: Mutex::new(Vec::new()),
            hogs: Mutex::new(Vec::new()),
        });
        let weak = Arc::downgrade(&watchdog);
        let timer = Timer::timeout(cpu, move |softirq| {
            let watchdog = weak.upgrade()?;
            watchdog.look().then(|| softirq.now().saturating_add(watchdog.period))
        });
        let _ = watchdog.timer.set(timer);
        watchdog
    }

    pub(crate) fn watch(&self, group: &Arc<Group>) {
        self.groups.lock().push(Arc::downgrade(group));
    }

    /// What it has reported.
    pub(crate) fn hogs(&self) -> Vec<Hog> {
        self.hogs.lock().clone()
    }

    /// A worker has an item, and has said so under its pool's lock.
    pub(super) fn somebody_works(&self) {
        if !self.armed.load(Ordering::Relaxed) && !self.armed.swap(true, Ordering::Relaxed) {
            self.start();
        }
    }

    fn start(&self) {
        if let Some(timer) = self.timer.get() {
            timer.start(self.clock.now().saturating_add(self.period));
        }
    }

    /// Whether to look again.
    fn look(&self) -> bool {
        // Before the look: a worker that is not seen now takes its pool's lock later, and so sees this.
        self.armed.store(false, Ordering::Relaxed);
        let groups: Vec<_> = self.groups.lock().iter().filter_map(Weak::upgrade).collect();
        let mut busy = false;
        for pool in groups.iter().flat_map(|group| &group.pools) {
            busy |= self.look_at(pool);
        }
        // If a worker has armed it meanwhile, it has started the timer, too.
        busy && !self.armed.swap(true, Ordering::Relaxed)
    }

    fn look_at(&self, pool: &Pool) -> bool {
        let mut state = pool.lock();
        let mut found = Vec::new();
        let mut busy = false;
        for worker in state.workers.iter_mut().filter_map(|worker| worker.busy.as_mut()) {
            busy = true;
            if worker.blocked {
                continue;
            }
            worker.looks = worker.looks.saturating_add(1);
            if worker.looks == LOOKS {
                worker.hogging = true;
                found.push(worker.id);
            }
        }
        // It no longer counts: somebody else may run.
        state.running -= found.len() as u32;
        for id in found {
            let item = &state.slot(id).item;
            item.queue.counters.times.longest_at_least(self.period);
            let hog = Hog {
                function: item.function.name().to_owned(),
                queue: item.queue.name.clone(),
                worker: pool.config.name.clone(),
                at_least: self.period,
            };
            log::warn!("{} of queue {} hogs a worker of {}", hog.function, hog.queue, hog.worker);
            let mut hogs = self.hogs.lock();
            if hogs.len() < KEPT {
                hogs.push(hog);
            }
        }
        let wake = pool.balance(&mut state);
        pool.release(state);
        if let Some(parker) = wake {
            parker.unpark();
        }
        busy
    }
}
