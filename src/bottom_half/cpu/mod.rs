//! A CPU: a thread that has top halves (a vCPU's, the main loop's), with its softirqs, its timers, its softirq thread.

mod budget;
mod owner;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
pub(crate) mod thread;

use std::sync::Arc;

use budget::Budget;
pub use owner::{AtomicStop, CpuOwner, Masked, ThreadPort};

use crate::clock::Clock;
use crate::context::{Softirq, enter, is_on};
use crate::observe::{Happened, ItemKind, Observed, Observers};
use crate::protocol::inbox::Inbox;
use crate::protocol::serving::Serving;
use crate::protocol::wait::WaitWord;
use crate::softirq::{Handlers, VECTORS, Vector};
use crate::stats::{CpuCounters, CpuStats};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::table::Table;
use crate::tasklet::TaskletInner;
use crate::timer::Timers;

/// How a CPU's owner is reached.
pub trait Port: Send + Sync + 'static {
    /// Softirqs have become pending from another thread: the owner is to enter and leave a top half soon. Any thread,
    /// with locks held: must neither block nor call back.
    fn kick(&self);

    /// The CPU's next deadline is `at` now (ns of the system's clock; `None`: there is none). When it has come, the owner
    /// is to call [`CpuOwner::expire`] in a top half. Called one at a time, with the CPU's timers locked: must neither
    /// block nor call back.
    fn deadline(&self, at: Option<u64>);
}

/// What all CPUs of a system share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) handlers: Handlers,
    pub(crate) tasklets: Mutex<Table<Arc<TaskletInner>>>,
    /// Rounds on leaving a top half before the rest is handed over.
    pub(crate) rounds: u32,
    /// Time for them, in ns.
    pub(crate) budget: u64,
    /// Every how many activations one is measured.
    pub(crate) measure_every: u64,
    pub(crate) observers: Observers,
    /// No new runs.
    pub(crate) stopping: AtomicBool,
}

/// A CPU, as all threads see it.
pub struct Cpu {
    index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) serving: Serving,
    inboxes: [Inbox; VECTORS],
    raised_at: [AtomicU64; VECTORS],
    pub(crate) timers: Timers,
    port: Arc<dyn Port>,
    pub(crate) counters: CpuCounters,
    /// The softirq thread sleeps here.
    pub(crate) thread_wake: WaitWord,
    /// The owner waits here for the softirq thread to make room.
    owner_wake: WaitWord,
    /// Kept from one run to the next, so that none allocates.
    batch: Mutex<Vec<Arc<TaskletInner>>>,
    /// The vectors of the round that the softirq thread is in, as bits: for the report of who would not stop.
    pub(crate) thread_in: AtomicU64,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpu").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Cpu {
    pub(crate) fn new(index: usize, shared: Arc<Shared>, port: Arc<dyn Port>) -> Arc<Self> {
        let timers = Timers::new(Arc::clone(&port), shared.clock.now());
        Arc::new(Self {
            index,
            shared,
            serving: Serving::default(),
            inboxes: std::array::from_fn(|_| Inbox::default()),
            raised_at: std::array::from_fn(|_| AtomicU64::new(0)),
            timers,
            port,
            counters: CpuCounters::default(),
            thread_wake: WaitWord::default(),
            owner_wake: WaitWord::default(),
            batch: Mutex::new(Vec::new()),
            thread_in: AtomicU64::new(0),
        })
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Raises `vector`. From this CPU's own top half or softirq it runs on leaving that; from elsewhere the owner is
    /// kicked, once for all that is raised until it looks. Any thread; never blocks.
    pub fn raise(&self, vector: Vector) {
        self.tell(Happened::Activated, vector);
        let raised = self.counters.raised[vector.index()].add(1);
        let pending = self.serving.pending();
        if pending & vector.bit() == 0 && raised.is_multiple_of(self.shared.measure_every) {
            self.raised_at[vector.index()].store(self.shared.clock.now(), Ordering::Relaxed);
        }
        let old = self.serving.raise(vector.bit());
        if old & vector.bit() != 0 {
            self.counters.merged.add(1);
        }
        if old == 0 && !is_on(self) {
            self.port.kick();
        }
    }

    /// When its next timer is due, in ns of the system's clock. A deadline that comes earlier later is announced to the
    /// [`Port`].
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// What it has counted.
    pub fn stats(&self) -> CpuStats {
        self.counters.read()
    }

    /// What the softirq thread is in.
    pub(crate) fn thread_is_in(&self) -> Option<String> {
        let pending = self.thread_in.load(Ordering::Relaxed);
        let vectors: Vec<_> = Vector::ALL
            .iter()
            .filter(|vector| pending & u64::from(vector.bit()) != 0)
            .map(|vector| vector.name())
            .collect();
        (pending != 0).then(|| format!("softirq/{}: in {}", self.index, vectors.join(", ")))
    }

    /// Puts a tasklet that is scheduled on the list of `vector`.
    pub(crate) fn push(&self, vector: Vector, tasklet: &TaskletInner) {
        self.counters.queued.add(1);
        // Behind another, that one's pusher raises, or has raised and the list is yet to be taken.
        if self.inboxes[vector.index()].push(tasklet.id, &tasklet.link) != crate::protocol::inbox::Pushed::Behind {
            self.raise(vector);
        }
    }

    /// Serves what is pending, as the owner, on leaving a top half.
    #[cold]
    fn serve(self: &Arc<Self>) {
        while self.serving.pending() != 0 && self.serving.try_serve() {
            if self.serve_rounds() {
                return;
            }
            self.serving.release();
        }
    }

    /// True: there was too much; the place is the softirq thread's now.
    fn serve_rounds(self: &Arc<Self>) -> bool {
        let mut budget = Budget::new(&*self.shared.clock, self.shared.budget);
        let mut rounds = 0;
        while self.serving.pending() != 0 {
            if rounds == self.shared.rounds || rounds > 0 && budget.is_used_up() {
                self.counters.handed_over.add(1);
                self.serving.hand_over();
                self.thread_wake.wake_all();
                return true;
            }
            let pending = self.serving.take();
            self.round(pending, || false);
            rounds += 1;
        }
        false
    }

    /// One round over the vectors of `pending`; stops before the next one when `interrupt` says so, and leaves the rest
    /// pending.
    fn round(self: &Arc<Self>, mut pending: u32, interrupt: impl Fn() -> bool) {
        self.counters.rounds.add(1);
        let _on_cpu = enter(self);
        for vector in Vector::ALL {
            if pending & vector.bit() == 0 {
                continue;
            }
            if interrupt() {
                let _ = self.serving.raise(pending);
                return;
            }
            pending &= !vector.bit();
            self.run(vector);
        }
    }

    fn run(self: &Arc<Self>, vector: Vector) {
        self.counters.run[vector.index()].add(1);
        let raised_at = self.raised_at[vector.index()].swap(0, Ordering::Relaxed);
        let start = if raised_at == 0 { 0 } else { self.shared.clock.now() };
        self.tell(Happened::Run, vector);
        let softirq = Softirq::new(self, vector);
        match vector {
            Vector::Timer => self.timers.run_wheel(&softirq),
            Vector::HrTimer => self.timers.run_precise(&softirq),
            _ => {}
        }
        self.run_tasklets(&softirq);
        self.shared.handlers.run(&softirq);
        self.tell(Happened::Done, vector);
        if raised_at != 0 {
            let end = self.shared.clock.now();
            self.counters.times.record(start.saturating_sub(raised_at), end - start);
        }
    }

    fn tell(&self, what: Happened, vector: Vector) {
        self.shared.observers.tell(what, || Observed {
            kind: ItemKind::Softirq,
            key: (self.index as u64) << 8 | u64::from(vector as u8),
            vector: Some(vector),
            cpu: Some(self.index as u32),
            queue: "",
        });
    }

    fn run_tasklets(self: &Arc<Self>, softirq: &Softirq<'_>) {
        let inbox = &self.inboxes[softirq.vector().index()];
        if inbox.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut *self.batch.lock());
        {
            let tasklets = self.shared.tasklets.lock();
            let find = |id| tasklets.get(id).unwrap_or_else(|| panic!("a listed tasklet is in no table"));
            let mut chain = inbox.take(|id| &find(id).link);
            while let Some(id) = chain.next(|id| &find(id).link) {
                batch.push(Arc::clone(find(id)));
            }
        }
        for tasklet in batch.drain(..) {
            tasklet.run(softirq);
        }
        *self.batch.lock() = batch;
    }
}
