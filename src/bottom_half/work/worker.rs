//! A worker's thread, and the rescuer that stands in for one that can't be made.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::pool::Pool;
use super::state::{Busy, State, WorkerEntry};
use super::{Item, Queued};
use crate::context::Process;
use crate::observe::Happened;
use crate::protocol::park::Parker;
use crate::protocol::wait::WaitWord;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// A worker's life: until its pool stops, or there are more than enough of it.
pub(super) fn run(pool: &Arc<Pool>) {
    sys::thread::set_name(&pool.config.name);
    if pool.config.nice != 0
        && let Err(e) = sys::thread::set_nice(pool.config.nice)
    {
        log::debug!("{} keeps its priority: {e}", pool.config.name);
    }
    let parker = Arc::new(Parker::default());
    let mut state = pool.lock();
    state.starting = false;
    let me = enrol(&mut state);
    loop {
        if state.stopping {
            break;
        }
        if state.running < pool.config.limit && state.ready.first().is_some() {
            state.running += 1;
            state = work(pool, state, me);
            state.running -= 1;
            continue;
        }
        // In this order: whoever goes, or goes to sleep, leaves word that there is room.
        if state.running + state.waking < pool.config.limit && state.ready.first().is_none() && !pool.ask() {
            pool.absorb(&mut state);
            continue;
        }
        if state.idle.len() > pool.config.limit as usize {
            break;
        }
        state.idle.push(Arc::clone(&parker));
        pool.release(state);
        parker.park();
        state = pool.lock();
        state.waking -= 1;
    }
    state.workers.remove(me);
    pool.release(state);
    pool.ended.wake_all();
}

fn enrol(state: &mut State) -> u32 {
    let entry = WorkerEntry { busy: None };
    let me = state.workers.insert(|_| entry);
    // Going to sleep does not allocate.
    let workers = state.workers.iter().count();
    let room = workers.saturating_sub(state.idle.len());
    state.idle.reserve(room);
    me
}

/// Runs what is ready, as one of those that run.
fn work<'a>(pool: &'a Arc<Pool>, mut state: MutexGuard<'a, State>, me: u32) -> MutexGuard<'a, State> {
    while state.running <= pool.config.limit
        && !state.stopping
        && let Some((item, colour)) = state.start_next()
    {
        let busy = Busy { id: item.id, colour, blocked: false, hogging: false, looks: 0 };
        if let Some(worker) = state.workers.get_mut(me) {
            worker.busy = Some(busy);
        }
        let wake = pool.balance(&mut state);
        let spare = wants_spare(pool, &mut state);
        pool.release(state);
        if let Some(parker) = wake {
            parker.unpark();
        }
        if spare {
            pool.start_worker();
        }
        pool.watchdog.somebody_works();
        run_item(pool, &item, me);
        drop(item);
        state = pool.lock();
        let busy = state.workers.get_mut(me).and_then(|worker| worker.busy.take());
        let Some(busy) = busy else { continue };
        if busy.hogging {
            state.running += 1;
        }
        state.finish(busy.id, busy.colour);
        if state.watched || !state.dead.is_empty() {
            pool.release(state);
            state = pool.lock();
        }
    }
    state
}

/// The last idle worker has gone to work: the next one is made before it is needed.
fn wants_spare(pool: &Pool, state: &mut State) -> bool {
    let wanted = state.idle.is_empty()
        && state.waking == 0
        && !state.starting
        && !state.stopping
        && (state.workers.iter().count() as u32) < pool.config.max_workers;
    state.starting |= wanted;
    wanted
}

fn run_item(pool: &Arc<Pool>, item: &Arc<Item>, me: u32) {
    let queue = &item.queue;
    let queued_at = item.queued_at.load(Ordering::Relaxed);
    if queued_at != 0 {
        item.queued_at.store(0, Ordering::Relaxed);
    }
    let start = if queued_at == 0 { 0 } else { queue.clock.now() };
    item.tell(Happened::Run);
    let current = Current { pool, item, worker: me, blocked: Cell::new(0) };
    let outcome = catch_unwind(AssertUnwindSafe(|| item.function.call(&Process::of_item(&current))));
    item.tell(Happened::Done);
    if queued_at != 0 {
        queue.counters.times.record(start.saturating_sub(queued_at), queue.clock.now() - start);
    }
    if let Err(panic) = outcome {
        if cfg!(shuttle) {
            // A model must see it.
            std::panic::resume_unwind(panic);
        }
        log::error!("{} of queue {} has panicked; the queue goes on", item.function.name(), queue.name);
    }
}

/// The item that a worker runs.
pub(crate) struct Current<'a> {
    pub(super) pool: &'a Arc<Pool>,
    item: &'a Arc<Item>,
    worker: u32,
    blocked: Cell<u32>,
}

impl std::fmt::Debug for Current<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("function", &self.item.function.name()).finish_non_exhaustive()
    }
}

impl Current<'_> {
    pub(super) fn item(&self) -> *const Item {
        Arc::as_ptr(self.item)
    }

    pub(super) fn item_ref(&self) -> &Item {
        self.item
    }

    pub(super) fn busy<R>(&self, state: &mut State, f: impl FnOnce(&mut Busy) -> R) -> Option<R> {
        state.workers.get_mut(self.worker).and_then(|worker| worker.busy.as_mut()).map(f)
    }

    pub(crate) fn requeue(&self) -> Queued {
        self.item.queue_in(self.item.home(), true)
    }

    /// Queues another item; of the same queue, it goes into the same pool, and is taken even while the queue drains.
    pub(crate) fn queue(&self, other: &Item) -> Queued {
        let chained = Arc::ptr_eq(&self.item.queue, &other.queue);
        let to = if chained { self.item.home() } else { other.queue.pool_here() };
        other.queue_in(to, chained)
    }

    pub(crate) fn block<R>(&self, f: impl FnOnce() -> R) -> R {
        let _blocked = Blocked::new(self);
        f()
    }
}

/// The worker is in something that blocks: it does not count as running.
struct Blocked<'a, 'b>(&'a Current<'b>);

impl<'a, 'b> Blocked<'a, 'b> {
    fn new(current: &'a Current<'b>) -> Self {
        current.blocked.set(current.blocked.get() + 1);
        if current.blocked.get() == 1 {
            let pool = current.pool;
            let mut state = pool.lock();
            let counted = current.busy(&mut state, |busy| {
                busy.blocked = true;
                !std::mem::take(&mut busy.hogging)
            });
            if counted == Some(true) {
                state.running -= 1;
            }
            let wake = pool.balance(&mut state);
            pool.release(state);
            if let Some(parker) = wake {
                parker.unpark();
            }
        }
        Self(current)
    }
}

impl Drop for Blocked<'_, '_> {
    fn drop(&mut self) {
        let current = self.0;
        current.blocked.set(current.blocked.get() - 1);
        if current.blocked.get() == 0 {
            let mut state = current.pool.lock();
            // One too many may run for a while: it stops after this item.
            state.running += 1;
            let _ = current.busy(&mut state, |busy| {
                busy.blocked = false;
                busy.looks = 0;
            });
            current.pool.release(state);
        }
    }
}

/// A thread that is made in good time, for pools that have work, no worker, and no thread for another one.
pub(crate) struct Rescuer {
    called: WaitWord,
    pools: Mutex<Vec<Arc<Pool>>>,
    stop: AtomicBool,
    pub(crate) ended: AtomicBool,
    pub(crate) end: WaitWord,
}

impl Rescuer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            called: WaitWord::default(),
            pools: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            end: WaitWord::default(),
        })
    }

    /// It looks after this pool, too.
    pub(crate) fn add(&self, pool: &Arc<Pool>) {
        self.pools.lock().push(Arc::clone(pool));
    }

    /// Some pool has said mayday. Any thread, with that pool's lock held.
    pub(super) fn call(&self) {
        self.called.wake_all();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.called.wake_all();
    }
}

/// The rescuer's life.
pub(crate) fn rescue(rescuer: &Rescuer) {
    sys::thread::set_name("rescuer");
    loop {
        let seen = rescuer.called.value();
        if rescuer.stop.load(Ordering::Acquire) {
            break;
        }
        let pools = rescuer.pools.lock().clone();
        let mut rescued = false;
        for pool in &pools {
            rescued |= rescue_pool(pool);
        }
        if !rescued {
            let _ = rescuer.called.wait(seen, None);
        }
    }
    // The pools refer to it, too.
    rescuer.pools.lock().clear();
    rescuer.ended.store(true, Ordering::Release);
    rescuer.end.wake_all();
}

/// Works for the pool until it has nothing to do. False: it did not call.
fn rescue_pool(pool: &Arc<Pool>) -> bool {
    let mut state = pool.lock();
    if !state.mayday {
        pool.release(state);
        return false;
    }
    let me = enrol(&mut state);
    while state.running < pool.config.limit && state.ready.first().is_some() && !state.stopping {
        state.running += 1;
        state = work(pool, state, me);
        state.running -= 1;
    }
    state.mayday = false;
    state.workers.remove(me);
    let wake = pool.balance(&mut state);
    pool.release(state);
    pool.ended.wake_all();
    if let Some(parker) = wake {
        parker.unpark();
    }
    true
}
