//! Pools of workers.
//!
//! As long as one worker of a pool runs, the others sleep: items of one pool follow each other without getting into each other's
//! way. The scheduler says when a worker is about to wait ([`worker_waits`]); if there is more to do, an idle one is woken in its
//! place. So that there always is an idle one, a worker that is the last to leave the idle ones makes another before it begins.
//!
//! To read more: Linux, kernel/workqueue.c (wq_worker_sleeping, manage_workers).

use alloc::collections::VecDeque;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;

use super::{Item, RUNS, Work};
use crate::arch::percpu::{self, MAX_CPUS};
use crate::sched::task::kthread_run;
use crate::sched::{self, Priority, Task, sleep};
use crate::sync::IrqLock;

/// Idle workers that are kept; others end.
const KEPT: usize = 2;
/// The most workers of a pool. If all of them wait, the rest of the work does, too.
const MOST: usize = 16;

/// What a pool's lock protects.
struct Inner {
    items: VecDeque<Item>,
    idle: Vec<Arc<Task>>,
    /// Addresses of works that are being run, one for each worker at work.
    busy: Vec<usize>,
    workers: usize,
    made: u32,
}

/// A pool.
pub(crate) struct Pool {
    /// Its number, from 1.
    number: usize,
    cpu: usize,
    high: bool,
    inner: IrqLock<Inner>,
    /// Workers at work that do not wait.
    running: AtomicU32,
}

static POOLS: Once<Vec<Pool>> = Once::new();

fn pools() -> &'static [Pool] {
    POOLS.call_once(|| (0..2 * MAX_CPUS).map(Pool::new).collect())
}

/// Gives each pool of a CPU that is up a worker, when a queue is made.
pub(super) fn init() {
    for pool in pools().iter().filter(|pool| percpu::cpu(pool.cpu).is_some()) {
        let is_new = pool.inner.lock().workers == 0;
        if is_new {
            pool.make_worker();
        }
    }
}

/// The pool of a CPU.
pub(super) fn of(cpu: usize, high: bool) -> &'static Pool {
    &pools()[2 * (cpu % MAX_CPUS) + usize::from(high)]
}

/// All pools.
pub(super) fn all() -> impl Iterator<Item = &'static Pool> {
    pools().iter()
}

impl Pool {
    fn new(index: usize) -> Self {
        let inner = Inner { items: VecDeque::new(), idle: Vec::new(), busy: Vec::new(), workers: 0, made: 0 };
        let (cpu, high) = (index / 2, index % 2 == 1);
        Self { number: index + 1, cpu, high, inner: IrqLock::new(inner), running: AtomicU32::new(0) }
    }

    /// One more worker, if there are not very many.
    fn make_worker(&'static self) {
        let number = {
            let mut inner = self.inner.lock();
            if inner.workers >= MOST {
                return;
            }
            inner.workers += 1;
            inner.made += 1;
            inner.made - 1
        };
        let name = format!("kworker/{}:{number}{}", self.cpu, if self.high { "H" } else { "" });
        let priority = if self.high { Priority::High } else { Priority::Normal };
        kthread_run(&name, self.cpu, priority, move || self.work());
    }

    /// One more item; wakes a worker if none runs. The caller looks whether it should be preempted.
    pub(super) fn add(&'static self, item: Item) {
        let mut inner = self.inner.lock();
        inner.items.push_back(item);
        self.wake_one(&inner);
    }

    /// If nobody runs and there is something to do, somebody does it.
    fn wake_one(&self, inner: &Inner) {
        if self.running.load(Ordering::SeqCst) == 0
            && !inner.items.is_empty()
            && let Some(worker) = inner.idle.last()
        {
            sched::wake_without_preemption(worker);
        }
    }

    /// Takes an item out for which `is_it` holds.
    pub(super) fn take(&self, is_it: impl Fn(&Item) -> bool) -> Option<Item> {
        let mut inner = self.inner.lock();
        let at = inner.items.iter().position(is_it)?;
        inner.items.remove(at)
    }

    /// What a worker does.
    fn work(&'static self) -> i32 {
        let Some(me) = sched::current() else { return 0 };
        loop {
            if !self.wait_for_work(&me) {
                return 0;
            }
            let last = self.inner.lock().idle.is_empty();
            if last {
                self.make_worker();
            }
            while let Some(item) = self.next() {
                self.run(item);
            }
            me.worker_of.store(0, Ordering::SeqCst);
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Idle until there is something that this worker should do; false if there are idle ones enough and it should end. From then
    /// on it is at work.
    fn wait_for_work(&self, me: &Arc<Task>) -> bool {
        let mut inner = self.inner.lock();
        if inner.idle.len() >= KEPT {
            inner.workers -= 1;
            return false;
        }
        inner.idle.push(me.clone());
        loop {
            let wanted = self.running.load(Ordering::SeqCst) == 0 && inner.next_index().is_some();
            if wanted {
                break;
            }
            sleep::prepare(me);
            drop(inner);
            sched::schedule();
            inner = self.inner.lock();
        }
        inner.idle.retain(|idle| !Arc::ptr_eq(idle, me));
        me.worker_of.store(self.number, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// The next item whose work no other worker runs, and which is now this worker's; none if another worker of the pool goes on already.
    fn next(&'static self) -> Option<Item> {
        let mut inner = self.inner.lock();
        if self.running.load(Ordering::SeqCst) > 1 {
            return None;
        }
        let at = inner.next_index()?;
        let item = inner.items.remove(at)?;
        inner.busy.push(address(&item.work));
        Some(item)
    }

    /// The first item for which `is_it` holds, whose work nobody else runs and which is now the caller's to [`Pool::run`].
    pub(super) fn claim(&self, is_it: impl Fn(&Item) -> bool) -> Option<Item> {
        let mut inner = self.inner.lock();
        let free = |item: &Item| is_it(item) && !inner.busy.contains(&address(&item.work));
        let at = inner.items.iter().position(free)?;
        let item = inner.items.remove(at)?;
        inner.busy.push(address(&item.work));
        Some(item)
    }

    /// The same for an item that its queue holds; true if it is the caller's.
    pub(super) fn claim_work(&self, work: &Arc<Work>) -> bool {
        let mut inner = self.inner.lock();
        let is_free = !inner.busy.contains(&address(work));
        if is_free {
            inner.busy.push(address(work));
        }
        is_free
    }

    /// Runs an item that was claimed.
    pub(super) fn run(&'static self, item: Item) {
        self.call(&item);
        let work = address(&item.work);
        let mut inner = self.inner.lock();
        if let Some(at) = inner.busy.iter().position(|busy| *busy == work) {
            inner.busy.swap_remove(at);
        }
        // It may have been queued again, and been passed over.
        self.wake_one(&inner);
    }

    fn call(&'static self, item: &Item) {
        let work = &item.work;
        let before = {
            let mut place = work.place.lock();
            // First, so that it can be queued again while it runs.
            work.pending.store(false, Ordering::SeqCst);
            place.running_in.replace(self)
        };
        RUNS[usize::from(self.high)][self.cpu].fetch_add(1, Ordering::Relaxed);
        work.runs.fetch_add(1, Ordering::SeqCst);
        super::flush::with_item(item, || (work.function)());
        {
            let mut place = work.place.lock();
            place.running_in = before;
            place.ended += 1;
        }
        work.ended.wake_up_all();
        item.queue.finish(item.number);
    }
}

impl Inner {
    fn next_index(&self) -> Option<usize> {
        self.items.iter().position(|item| !self.busy.contains(&address(&item.work)))
    }
}

fn address(work: &Arc<Work>) -> usize {
    Arc::as_ptr(work) as usize
}

fn pool_of(task: &Task) -> Option<&'static Pool> {
    POOLS.get()?.get(task.worker_of.load(Ordering::SeqCst).checked_sub(1)?)
}

/// From the scheduler, interrupts off: the thread is about to wait. If it is a worker at work, another goes on in its place.
pub(crate) fn worker_waits(task: &Task) {
    if let Some(pool) = pool_of(task) {
        pool.running.fetch_sub(1, Ordering::SeqCst);
        let inner = pool.inner.lock();
        pool.wake_one(&inner);
    }
}

/// It goes on.
pub(crate) fn worker_goes_on(task: &Task) {
    if let Some(pool) = pool_of(task) {
        pool.running.fetch_add(1, Ordering::SeqCst);
    }
}
