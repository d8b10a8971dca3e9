//! A system: its CPUs, its pools of workers, its shared queue; and the end of it all.

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::clock::{Clock, Monotonic};
use crate::context::Softirq;
use crate::cpu::{Cpu, CpuOwner, Port, Shared, thread as softirq_thread};
use crate::observe::{Observer, Observers};
use crate::protocol::wait::{WaitWord, Waited};
use crate::softirq::{Handlers, Vector};
use crate::stats::{self, CpuStats, QueueStats};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering, thread};
use crate::table::Table;
use crate::threads::Handles;
use crate::work::{Group, Hog, Pool, QueueInner, QueueKind, Rescuer, Watchdog, WorkQueue, rescue};

/// What can be set.
#[derive(Clone)]
pub struct Config {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Rounds of softirqs on leaving a top half before the rest goes to the softirq thread.
    pub rounds: u32,
    /// Time for them, in ns. If it is over, and the thread may have waited for a processor, it gets as much again of its own running time.
    pub budget: u64,
    /// Every how many activations the time is taken: 1 measures each.
    pub measure_every: u32,
    /// How many items of unbound queues run at once.
    pub unbound_limit: u32,
    /// Threads that a pool may have, blocked ones included.
    pub max_workers: u32,
    /// How often the watchdog looks while somebody works, in ns.
    pub watchdog_period: u64,
    /// Who is told of each activation and run.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clock: Arc::new(Monotonic),
            rounds: 10,
            budget: 2_000_000,
            measure_every: 16,
            unbound_limit: u32::try_from(sys::thread::online_cpus()).unwrap_or(1),
            max_workers: 256,
            watchdog_period: 10_000_000_000,
            observer: None,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("rounds", &self.rounds).field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Nice value of the workers of high-priority queues; without the privilege they have that of the others.
const HIGH: i32 = -10;

/// The kinds of pools.
#[derive(Clone, Copy)]
enum PoolKind {
    Bound,
    BoundHigh,
    Unbound,
    UnboundHigh,
}

struct Inner {
    config: Config,
    shared: Arc<Shared>,
    cpus: Vec<Arc<Cpu>>,
    threads: Arc<Threads>,
    watchdog: Arc<Watchdog>,
    rescuer: Arc<Rescuer>,
    groups: Mutex<[Option<Arc<Group>>; 4]>,
    queues: Mutex<Vec<Weak<QueueInner>>>,
    shared_queue: OnceLock<WorkQueue>,
}

/// The softirq threads, how many of them have not ended, and the rescuer's.
#[derive(Default)]
struct Threads {
    left: AtomicU32,
    ended: WaitWord,
    handles: Handles,
}

/// The deferred-work system. A handle; clones are of the same system.
#[derive(Clone)]
pub struct System(Arc<Inner>);

impl System {
    /// Makes a system with one CPU for each port, and their owners' halves in the same order.
    ///
    /// # Errors
    ///
    /// The host gives no thread.
    pub fn new(config: Config, ports: Vec<Arc<dyn Port>>) -> io::Result<(Self, Vec<CpuOwner>)> {
        let shared = Arc::new(Shared {
            clock: Arc::clone(&config.clock),
            handlers: Handlers::default(),
            tasklets: Mutex::new(Table::default()),
            rounds: config.rounds.max(1),
            budget: config.budget,
            measure_every: u64::from(config.measure_every.max(1)),
            observers: Observers(config.observer.clone()),
            stopping: AtomicBool::new(false),
        });
        let make = |(index, port)| Cpu::new(index, Arc::clone(&shared), port);
        let cpus: Vec<_> = ports.into_iter().enumerate().map(make).collect();
        let Some(first) = cpus.first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a system without a CPU"));
        };
        let watchdog = Watchdog::new(first, config.watchdog_period);
        let owners = cpus.iter().map(|cpu| CpuOwner::new(Arc::clone(cpu))).collect();
        let rescuer = Rescuer::new();
        let system = Self(Arc::new(Inner {
            config,
            shared,
            cpus,
            threads: Arc::default(),
            watchdog,
            rescuer,
            groups: Mutex::new([const { None }; 4]),
            queues: Mutex::new(Vec::new()),
            shared_queue: OnceLock::new(),
        }));
        system.start_threads().inspect_err(|_| drop(system.shutdown(Some(Duration::ZERO))))?;
        Ok((system, owners))
    }

    fn start_threads(&self) -> io::Result<()> {
        for cpu in &self.0.cpus {
            let (cpu, threads) = (Arc::clone(cpu), Arc::clone(&self.0.threads));
            threads.left.fetch_add(1, Ordering::AcqRel);
            let guard = ThreadEnd(Arc::clone(&threads));
            let handle = thread::Builder::new().name(format!("softirq/{}", cpu.index())).spawn(move || {
                let _guard = guard;
                softirq_thread::run(&cpu);
            })?;
            self.0.threads.handles.keep(handle);
        }
        let rescuer = Arc::clone(&self.0.rescuer);
        let handle = thread::Builder::new().name("rescuer".to_owned()).spawn(move || rescue(&rescuer))?;
        self.0.threads.handles.keep(handle);
        Ok(())
    }

    /// The CPUs, in order.
    pub fn cpus(&self) -> &[Arc<Cpu>] {
        &self.0.cpus
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.shared.clock
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Sets what runs when `vector` was raised, on every CPU, after the vector's tasklets and timers. False: it was set
    /// before, and stays.
    #[must_use]
    pub fn set_handler(&self, vector: Vector, handler: impl Fn(&Softirq<'_>) + Send + Sync + 'static) -> bool {
        self.0.shared.handlers.set(vector, Box::new(handler))
    }

    /// Makes a work queue.
    pub fn queue(&self, name: &str, kind: QueueKind) -> WorkQueue {
        self.make_queue(name, kind, false, None)
    }

    /// Makes a work queue whose workers have high priority.
    pub fn high_priority_queue(&self, name: &str, kind: QueueKind) -> WorkQueue {
        self.make_queue(name, kind, true, None)
    }

    /// Makes a work queue of which at most `max_active` items (in each pool) have started and not ended, blocked ones
    /// included.
    pub fn limited_queue(&self, name: &str, kind: QueueKind, max_active: u32) -> WorkQueue {
        self.make_queue(name, kind, false, Some(max_active))
    }

    /// The predefined queue, bound, for whatever needs no queue of its own.
    pub fn shared_queue(&self) -> &WorkQueue {
        self.0.shared_queue.get_or_init(|| self.queue("events", QueueKind::Bound))
    }

    fn make_queue(&self, name: &str, kind: QueueKind, high: bool, max_active: Option<u32>) -> WorkQueue {
        let pools = match (kind, high) {
            (QueueKind::Bound, false) => PoolKind::Bound,
            (QueueKind::Bound, true) => PoolKind::BoundHigh,
            (_, false) => PoolKind::Unbound,
            (_, true) => PoolKind::UnboundHigh,
        };
        let queue = WorkQueue::new(self, self.group(pools), name, kind, max_active);
        let mut queues = self.0.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue.0));
        queue
    }

    /// The pools of a kind, which are made when they are first needed.
    fn group(&self, kind: PoolKind) -> Arc<Group> {
        let mut groups = self.0.groups.lock();
        if let Some(group) = &groups[kind as usize] {
            return Arc::clone(group);
        }
        let cpus = self.0.cpus.iter().enumerate();
        let (names, limit): (Vec<_>, _) = match kind {
            PoolKind::Bound => (cpus.map(|(i, _)| format!("worker/{i}")).collect(), 1),
            PoolKind::BoundHigh => (cpus.map(|(i, _)| format!("worker/{i}H")).collect(), 1),
            PoolKind::Unbound => (vec!["worker/u".to_owned()], self.0.config.unbound_limit.max(1)),
            PoolKind::UnboundHigh => (vec!["worker/uH".to_owned()], self.0.config.unbound_limit.max(1)),
        };
        let nice = if matches!(kind, PoolKind::BoundHigh | PoolKind::UnboundHigh) { HIGH } else { 0 };
        let make = |name| {
            let config = crate::work::PoolConfig { name, limit, max_workers: self.0.config.max_workers, nice };
            let pool = Pool::new(config, &self.0.watchdog, &self.0.rescuer);
            self.0.rescuer.add(&pool);
            pool
        };
        let group = Group::new(names.into_iter().map(make).collect(), self.0.cpus.clone());
        self.0.watchdog.watch(&group);
        if !self.0.shared.stopping.load(Ordering::Acquire) {
            group.pools.iter().for_each(Pool::start);
        }
        groups[kind as usize] = Some(Arc::clone(&group));
        group
    }

    /// What each CPU has counted.
    pub fn cpu_stats(&self) -> Vec<CpuStats> {
        self.0.cpus.iter().map(|cpu| cpu.stats()).collect()
    }

    /// What each queue has counted.
    pub fn queue_stats(&self) -> Vec<QueueStats> {
        let queues: Vec<_> = self.0.queues.lock().iter().filter_map(Weak::upgrade).collect();
        queues.iter().map(|queue| queue.stats()).collect()
    }

    /// How often each softirq has run on each CPU, as `/proc/softirqs` has it.
    pub fn softirqs_table(&self) -> String {
        stats::softirqs_table(&self.cpu_stats())
    }

    /// All tables: softirqs, CPUs, queues.
    pub fn tables(&self) -> String {
        let cpus = self.cpu_stats();
        [stats::softirqs_table(&cpus), stats::cpus_table(&cpus), stats::queues_table(&self.queue_stats())].join("\n")
    }

    /// Items that the watchdog has reported.
    pub fn hogs(&self) -> Vec<Hog> {
        self.0.watchdog.hogs()
    }

    /// Stops everything: nothing starts any more, pending items are cancelled, threads end, and are joined. Waits up to `limit` (`None`:
    /// as long as it takes) for what runs; a thread that does not end is left behind. Does not hang, and may be called
    /// twice. To have pending items run first, destroy their queues.
    ///
    /// # Errors
    ///
    /// Who would not stop.
    pub fn shutdown(&self, limit: Option<Duration>) -> Result<(), Stuck> {
        let limit_ns = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let deadline = limit_ns.map(|ns| sys::clock::monotonic_ns().saturating_add(ns));
        self.0.stop();
        let groups: Vec<_> = self.0.groups.lock().iter().flatten().cloned().collect();
        let pools: Vec<_> = groups.iter().flat_map(|group| &group.pools).collect();
        let mut stuck = Vec::new();
        for pool in &pools {
            if !pool.wait_ended(deadline) {
                stuck.extend(pool.busy_with());
            }
        }
        if !wait(&self.0.threads.ended, deadline, || self.0.threads.left.load(Ordering::Acquire) == 0) {
            stuck.extend(self.0.cpus.iter().filter_map(|cpu| cpu.thread_is_in()));
        }
        let rescuer = &self.0.rescuer;
        if !wait(&rescuer.end, deadline, || rescuer.ended.load(Ordering::Acquire)) && stuck.is_empty() {
            stuck.push("rescuer".to_owned());
        }
        if !stuck.is_empty() {
            return Err(Stuck(stuck));
        }
        // They have said that they end; what they still have to do is short.
        self.0.threads.handles.join();
        pools.iter().for_each(|pool| pool.join());
        Ok(())
    }
}

impl Inner {
    /// Nothing starts any more.
    fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for queue in self.queues.lock().iter().filter_map(Weak::upgrade) {
            queue.close();
        }
        let groups: Vec<_> = self.groups.lock().iter().flatten().cloned().collect();
        groups.iter().flat_map(|group| &group.pools).for_each(|pool| pool.stop());
        self.rescuer.stop();
        self.cpus.iter().for_each(|cpu| cpu.thread_wake.wake_all());
    }
}

/// Threads don't outlive the last handle by more than what they are in.
impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// False: the deadline has passed.
fn wait(word: &WaitWord, deadline: Option<u64>, is_done: impl Fn() -> bool) -> bool {
    loop {
        let seen = word.value();
        if is_done() {
            return true;
        }
        if word.wait(seen, deadline) == Waited::TimedOut {
            return is_done();
        }
    }
}

/// A softirq thread ends, or was not made.
struct ThreadEnd(Arc<Threads>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        self.0.left.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.wake_all();
    }
}

/// What did not stop: threads, and what they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck(pub Vec<String>);

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "would not stop: {}", self.0.join("; "))
    }
}

impl std::error::Error for Stuck {}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System").field("cpus", &self.0.cpus.len()).finish_non_exhaustive()
    }
}
