//! Pools of workers, and groups of pools: all that serve queues of a kind.

use std::sync::Arc;

use super::state::{Place, QueueState, Slot, State};
use super::watchdog::Watchdog;
use super::worker::{self, Rescuer};
use super::{Item, Queued, queue::Cpus};
use crate::protocol::inbox::{Inbox, Pushed};
use crate::protocol::park::Parker;
use crate::protocol::wait::WaitWord;
use crate::sync::{Mutex, MutexGuard, thread};
use crate::table::Table;
use crate::threads::Handles;

/// One pool (unbound queues) or one a CPU (bound ones).
pub(crate) struct Group {
    pub(crate) pools: Vec<Arc<Pool>>,
    pub(crate) cpus: Cpus,
    ids: Mutex<Table<()>>,
}

/// How the workers of a pool are.
#[derive(Debug, Clone)]
pub(crate) struct PoolConfig {
    /// Their threads' name, up to 15 bytes.
    pub(crate) name: String,
    /// How many may be in an item at once that is not blocked.
    pub(crate) limit: u32,
    /// How many there may be.
    pub(crate) max_workers: u32,
    pub(crate) nice: i32,
}

/// Workers with one list of items.
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    inbox: Inbox,
    state: Mutex<State>,
    /// Changes when items are done and somebody waits for that.
    changed: WaitWord,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) rescuer: Arc<Rescuer>,
    /// Changes when a worker's thread ends.
    pub(super) ended: WaitWord,
    threads: Handles,
}

impl Pool {
    pub(crate) fn new(config: PoolConfig, watchdog: &Arc<Watchdog>, rescuer: &Arc<Rescuer>) -> Arc<Self> {
        Arc::new(Self {
            config,
            inbox: Inbox::default(),
            state: Mutex::new(State::default()),
            changed: WaitWord::default(),
            watchdog: Arc::clone(watchdog),
            rescuer: Arc::clone(rescuer),
            ended: WaitWord::default(),
            threads: Handles::default(),
        })
    }

    /// The lock, with what has been pushed on the lists.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.absorb(&mut state);
        state
    }

    pub(super) fn absorb(&self, state: &mut State) {
        if !self.inbox.is_empty() {
            let mut chain = self.inbox.take(|id| link(&state.slots, id));
            while let Some(id) = chain.next(|id| link(&state.slots, id)) {
                state.enlist(id);
            }
        }
    }

    /// [`Pool::lock`]; an item that is not on the lists now is pushed by somebody who sees what the caller did before.
    pub(super) fn lock_for_certain(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let mut chain = self.inbox.take_for_certain(|id| link(&state.slots, id));
        while let Some(id) = chain.next(|id| link(&state.slots, id)) {
            state.enlist(id);
        }
        state
    }

    /// Has the next push wake somebody. False: there is something already.
    pub(super) fn ask(&self) -> bool {
        self.inbox.ask()
    }

    /// Puts a pending item where a worker finds it.
    pub(super) fn push(&self, item: &Item, chained: bool) -> Queued {
        if self.inbox.push(item.id, &item.link) == Pushed::Wake {
            self.wake();
        }
        // A closed queue was closed before this push took its place in the inbox's order, or else has waited for it.
        if item.queue.is_closing() && !chained {
            let mut state = self.lock();
            let refused = std::mem::take(&mut state.slot(item.id).refused) || state.cancel(item.id);
            self.release(state);
            if refused {
                return Queued::Refused;
            }
        }
        Queued::Yes
    }

    /// Something was pushed while a worker could have started it.
    #[cold]
    fn wake(&self) {
        let mut state = self.lock();
        let wake = self.balance(&mut state);
        self.release(state);
        if let Some(parker) = wake {
            parker.unpark();
        }
    }

    /// Sees to it that somebody starts what is ready, as far as the limit allows: gives an idle worker to wake, calls the
    /// rescuer, or has the next push do this.
    pub(super) fn balance(&self, state: &mut State) -> Option<Arc<Parker>> {
        while state.running + state.waking < self.config.limit {
            if state.ready.first().is_none() {
                if self.inbox.ask() {
                    return None;
                }
                self.absorb(state);
                continue;
            }
            if let Some(parker) = state.idle.pop() {
                state.waking += 1;
                return Some(parker);
            }
            if state.running == 0 && !state.starting && !state.mayday {
                state.mayday = true;
                self.rescuer.call();
            }
            return None;
        }
        None
    }

    /// Drops the lock, tells those who wait, and drops what is dead.
    pub(super) fn release(&self, mut state: MutexGuard<'_, State>) {
        let changed = std::mem::take(&mut state.changed);
        let watched = changed && std::mem::take(&mut state.watched);
        let dead = std::mem::take(&mut state.dead);
        drop(state);
        if watched {
            self.changed.wake_all();
        }
        for item in dead {
            item.queue.group.erase(item.id);
        }
    }

    /// Makes a worker, of which `starting` says that it is on its way.
    pub(super) fn start_worker(self: &Arc<Self>) {
        let pool = Arc::clone(self);
        let made = thread::Builder::new().name(self.config.name.clone()).spawn(move || worker::run(&pool));
        let e = match made {
            Ok(thread) => return self.threads.keep(thread),
            Err(e) => e,
        };
        log::warn!("{}: no thread for another worker: {e}", self.config.name);
        let mut state = self.lock();
        state.starting = false;
        let wake = self.balance(&mut state);
        self.release(state);
        if let Some(parker) = wake {
            parker.unpark();
        }
    }

    /// Starts the first worker.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut state = self.lock();
        state.starting = true;
        self.release(state);
        self.start_worker();
    }

    /// No worker starts anything more. What was pending is cancelled.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for id in 0..state.slots.len() as u32 {
            state.cancel(id);
        }
        let idle = std::mem::take(&mut state.idle);
        state.waking += idle.len() as u32;
        self.release(state);
        for parker in idle {
            parker.unpark();
        }
    }

    /// Waits until all workers have ended; false: `deadline` has passed.
    pub(crate) fn wait_ended(&self, deadline: Option<u64>) -> bool {
        loop {
            let seen = self.ended.value();
            let state = self.lock();
            let left = state.workers.iter().count() > 0 || state.starting;
            self.release(state);
            if !left {
                return true;
            }
            if self.ended.wait(seen, deadline) == crate::protocol::wait::Waited::TimedOut {
                return false;
            }
        }
    }

    /// Waits for the last instructions of its threads, when [`Pool::wait_ended`] has said that they have ended.
    pub(crate) fn join(&self) {
        self.threads.join();
    }

    /// What its workers are doing: queue and function.
    pub(crate) fn busy_with(&self) -> Vec<String> {
        let mut state = self.lock();
        let ids: Vec<u32> = state.workers.iter().filter_map(|worker| worker.busy.map(|busy| busy.id)).collect();
        let names = ids
            .into_iter()
            .map(|id| {
                let item = &state.slot(id).item;
                format!("{}: {} of queue {}", self.config.name, item.function.name(), item.queue.name)
            })
            .collect();
        self.release(state);
        names
    }

    pub(super) fn cancel(&self, item: &Item) -> bool {
        let mut state = self.lock();
        let was_pending = state.cancel(item.id);
        self.release(state);
        was_pending
    }

    pub(super) fn value(&self) -> u32 {
        self.changed.value()
    }

    pub(super) fn wait(&self, seen: u32) {
        let _ = self.changed.wait(seen, None);
    }

    /// Takes `item` off its list, which is counted in `was_pending`, and says what is left of it: a run (of which
    /// `by_itself` is none), whose end changes the word, or what was queued and can't be taken off yet.
    pub(super) fn cancel_all(&self, item: &Item, by_itself: bool, was_pending: &mut bool) -> Progress {
        let mut state = self.lock();
        *was_pending |= state.cancel(item.id);
        let slot = state.slot(item.id);
        let runs_here = slot.started != slot.ended;
        let progress = if runs_here && !by_itself {
            state.watched = true;
            Progress::Here
        } else if if by_itself { item.state.is_pending() } else { item.state.is_under_way() } {
            Progress::Elsewhere
        } else {
            Progress::Done
        };
        self.release(state);
        progress
    }

    /// How far what was queued of `item` when `target` was first found is. `target` counts this pool's runs.
    pub(super) fn progress(&self, item: &Item, target: &mut Option<u32>) -> Progress {
        let mut state = self.lock();
        let pending = item.state.is_pending();
        let slot = state.slot(item.id);
        // Runs start and end under the lock: neither changes while this looks.
        let runs_here = slot.started != slot.ended;
        let is_here = runs_here || slot.place != Place::Nowhere;
        if is_here && target.is_none() {
            *target = Some(slot.started.wrapping_add(u32::from(pending)));
        }
        let behind = target.is_none_or(|target| target.wrapping_sub(slot.ended) as i32 > 0);
        let progress = if !behind || !item.state.is_under_way() {
            Progress::Done
        } else if is_here {
            state.watched = true;
            Progress::Here
        } else {
            Progress::Elsewhere
        };
        self.release(state);
        progress
    }
}

/// What [`Pool::progress`] or [`Pool::cancel_all`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has run, or was cancelled.
    Done,
    /// It is on this pool's lists, or runs here: the end of that changes the word.
    Here,
    /// Who made it pending has not pushed it yet, or has pushed it in another pool. Nothing tells when: look again.
    Elsewhere,
}

fn link(slots: &[Option<Slot>], id: u32) -> &crate::sync::AtomicU32 {
    match &slots[id as usize] {
        Some(slot) => &slot.item.link,
        None => panic!("a pushed item is in no slot"),
    }
}

impl Group {
    pub(crate) fn new(pools: Vec<Arc<Pool>>, cpus: Cpus) -> Arc<Self> {
        Arc::new(Self { pools, cpus, ids: Mutex::new(Table::default()) })
    }

    /// A place for a queue in each pool, with the same number.
    pub(super) fn add_queue(&self, max_active: u32) -> u32 {
        // One lock orders all changes of the tables, so that the numbers agree.
        let _ids = self.ids.lock();
        let mut index = 0;
        for pool in &self.pools {
            index = pool.lock().queues.insert(|_| QueueState::new(max_active));
        }
        index
    }

    /// Activations and runs of a queue.
    pub(super) fn counts(&self, index: u32) -> (u64, u64) {
        self.pools.iter().fold((0, 0), |(queued, run), pool| {
            let state = pool.lock();
            let counts = state.queues.get(index).map_or((0, 0), |queue| (queue.queued, queue.run));
            (queued + counts.0, run + counts.1)
        })
    }

    pub(super) fn remove_queue(&self, index: u32) {
        let _ids = self.ids.lock();
        for pool in &self.pools {
            pool.lock().queues.remove(index);
        }
    }

    /// A place for an item in each pool, with the same number.
    pub(super) fn add_item(&self, make: impl FnOnce(u32) -> Arc<Item>) -> Arc<Item> {
        let mut ids = self.ids.lock();
        let id = ids.insert(|_| ());
        let item = make(id);
        for pool in &self.pools {
            let mut state = pool.lock();
            state.links.grow(id);
            let len = state.slots.len().max(id as usize + 1);
            state.slots.resize_with(len, || None);
            let item = Arc::clone(&item);
            let slot = Slot { item, place: Place::Nowhere, colour: 0, refused: false, started: 0, ended: 0 };
            state.slots[id as usize] = Some(slot);
        }
        item
    }

    /// The handle of `item` has gone.
    pub(super) fn forget(&self, item: &Item) {
        if item.state.bury() {
            // Pending or running: taken off its list here, or by whoever ends the run or finds it in the inbox.
            self.pools[item.home()].cancel(item);
        } else {
            self.erase(item.id);
        }
    }

    /// Forgets an item that nothing refers to any more.
    pub(super) fn erase(&self, id: u32) {
        let mut ids = self.ids.lock();
        let gone: Vec<_> = self.pools.iter().filter_map(|pool| pool.lock().slots[id as usize].take()).collect();
        ids.remove(id);
        drop(ids);
        // Outside the locks: its function may own other items, or the queue.
        drop(gone);
    }
}
