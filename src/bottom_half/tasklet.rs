//! Tasklets: small functions that run from a softirq, made at run time.
//!
//! Scheduled at most once until it runs; never on two CPUs at once; can be disabled (it stays scheduled), enabled, killed.
//! Any vector but TIMER and HRTIMER carries tasklets: HI and TASKLET those of high and normal priority, the others those
//! of their devices (the list of packets queues that NET_RX polls, and so on).
//!
//! Scheduling allocates nothing.

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::sync::Arc;

use crate::context::{Process, Softirq, is_on};
use crate::cpu::Cpu;
use crate::observe::{Happened, ItemKind, Observed};
use crate::protocol::activation::{Begin, Owed, Schedule, TaskletState};
use crate::protocol::wait::WaitWord;
use crate::softirq::Vector;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::system::System;

/// What a tasklet's function wants.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing until it is scheduled again.
    Done,
    /// Another turn: there is more to do than one turn may take.
    Again,
}

impl From<()> for Turn {
    fn from((): ()) -> Self {
        Self::Done
    }
}

pub(crate) struct TaskletInner {
    pub(crate) id: u32,
    pub(crate) link: AtomicU32,
    state: TaskletState,
    vector: Vector,
    scheduled: AtomicU64,
    scheduled_at: AtomicU64,
    runs: AtomicU64,
    /// Changes at the end of each run.
    ended: WaitWord,
    function: Box<dyn Fn(&Softirq<'_>) -> Turn + Send + Sync>,
}

impl TaskletInner {
    fn schedule_on(&self, cpu: &Cpu) -> Scheduled {
        self.tell(Happened::Activated, cpu);
        match self.state.schedule() {
            Schedule::Mine => {
                if self.scheduled.fetch_add(1, Ordering::Relaxed).is_multiple_of(cpu.shared.measure_every) {
                    self.scheduled_at.store(cpu.shared.clock.now(), Ordering::Relaxed);
                }
                cpu.push(self.vector, self);
                Scheduled::Yes
            }
            Schedule::Merged => {
                cpu.counters.merged.add(1);
                Scheduled::Already
            }
            Schedule::Killed => Scheduled::Killed,
        }
    }

    /// It was taken off the list of `softirq`'s CPU.
    pub(crate) fn run(&self, softirq: &Softirq<'_>) {
        let cpu = softirq.cpu();
        match self.state.begin() {
            Begin::Run => {}
            Begin::Parked => return,
            Begin::Dropped { forget } => return self.forget_if(forget, cpu),
        }
        let scheduled_at = self.scheduled_at.swap(0, Ordering::Relaxed);
        let start = if scheduled_at == 0 { 0 } else { cpu.shared.clock.now() };
        self.tell(Happened::Run, cpu);
        let turn = (self.function)(softirq);
        self.tell(Happened::Done, cpu);
        if scheduled_at != 0 {
            cpu.counters.times.record(start.saturating_sub(scheduled_at), cpu.shared.clock.now() - start);
        }
        self.runs.fetch_add(1, Ordering::Relaxed);
        if turn == Turn::Again {
            // While it runs it can't start: this parks it or merges, and finishing puts it on the list.
            let _ = self.schedule_on(cpu);
        }
        let finish = self.state.finish();
        if finish.watched {
            self.ended.wake_all();
        }
        if finish.owed == Owed::Push {
            cpu.push(self.vector, self);
        }
        self.forget_if(finish.forget, cpu);
    }

    fn tell(&self, what: Happened, cpu: &Cpu) {
        cpu.shared.observers.tell(what, || Observed {
            kind: ItemKind::Tasklet,
            key: self.id.into(),
            vector: Some(self.vector),
            cpu: Some(cpu.index() as u32),
            queue: "",
        });
    }

    fn forget_if(&self, forget: bool, cpu: &Cpu) {
        if forget {
            // Dropped outside the lock: its function may own what takes it.
            let gone = cpu.shared.tasklets.lock().remove(self.id);
            drop(gone);
        }
    }
}

/// What came of [`Tasklet::schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduled {
    /// It will run.
    Yes,
    /// It was scheduled already, and that run serves this caller, too.
    Already,
    /// It was killed: it will not run.
    Killed,
}

/// A tasklet. Dropping it kills it, without waiting for a run that is under way.
pub struct Tasklet {
    inner: Arc<TaskletInner>,
    system: System,
    home: Arc<Cpu>,
}

impl Tasklet {
    /// A tasklet of normal priority, whose home is `cpu`. Must not be called with the function's own tasklet locked up in
    /// a lock that the function takes.
    pub fn new<T: Into<Turn>>(
        system: &System,
        cpu: &Arc<Cpu>,
        function: impl Fn(&Softirq<'_>) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::on_vector(system, cpu, Vector::Tasklet, function)
    }

    /// A tasklet of high priority, whose home is `cpu`.
    pub fn high<T: Into<Turn>>(
        system: &System,
        cpu: &Arc<Cpu>,
        function: impl Fn(&Softirq<'_>) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::on_vector(system, cpu, Vector::Hi, function)
    }

    /// A tasklet that runs from `vector`, whose home is `cpu`.
    pub fn on_vector<T: Into<Turn>>(
        system: &System,
        cpu: &Arc<Cpu>,
        vector: Vector,
        function: impl Fn(&Softirq<'_>) -> T + Send + Sync + 'static,
    ) -> Self {
        let mut made = None;
        system.shared().tasklets.lock().insert(|id| {
            let inner = Arc::new(TaskletInner {
                id,
                link: AtomicU32::new(0),
                state: TaskletState::default(),
                vector,
                scheduled: AtomicU64::new(0),
                scheduled_at: AtomicU64::new(0),
                runs: AtomicU64::new(0),
                ended: WaitWord::default(),
                function: Box::new(move |softirq| function(softirq).into()),
            });
            made = Some(Arc::clone(&inner));
            inner
        });
        let inner = made.unwrap_or_else(|| unreachable!("the table makes its entry"));
        Self { inner, system: system.clone(), home: Arc::clone(cpu) }
    }

    /// Schedules it: on the CPU that the calling thread is in a top half or softirq of, else at home. Never blocks.
    pub fn schedule(&self) -> Scheduled {
        let here = self.system.cpus().iter().find(|cpu| is_on(cpu));
        self.inner.schedule_on(here.unwrap_or(&self.home))
    }

    /// Schedules it on `cpu`. Never blocks.
    pub fn schedule_on(&self, cpu: &Cpu) -> Scheduled {
        self.inner.schedule_on(cpu)
    }

    /// Keeps it from starting until as many [`Tasklet::enable`]s have followed; a run under way goes on. One that is
    /// scheduled stays so. Never blocks.
    pub fn disable(&self) {
        self.inner.state.disable();
    }

    /// [`Tasklet::disable`], and waits for the end of a run that is under way.
    pub fn disable_and_wait(&self, process: &Process<'_>) {
        self.inner.state.disable();
        self.wait_for_run(process);
    }

    /// Undoes one disable. Never blocks.
    pub fn enable(&self) {
        if self.inner.state.enable() == Owed::Push {
            self.home.push(self.inner.vector, &self.inner);
        }
    }

    /// No run starts any more, and none is under way when this returns. True: it was scheduled, and will not run.
    pub fn kill(&self, process: &Process<'_>) -> bool {
        let was_scheduled = self.inner.state.kill();
        if was_scheduled {
            self.inner.tell(Happened::Cancelled, &self.home);
        }
        self.wait_for_run(process);
        was_scheduled
    }

    /// Scheduled, and has not started.
    pub fn is_scheduled(&self) -> bool {
        self.inner.state.is_scheduled()
    }

    /// How often it has run.
    pub fn runs(&self) -> u64 {
        self.inner.runs.load(Ordering::Relaxed)
    }

    fn wait_for_run(&self, process: &Process<'_>) {
        process.block(|| {
            loop {
                let seen = self.inner.ended.value();
                if !self.inner.state.watch() {
                    return;
                }
                let _ = self.inner.ended.wait(seen, None);
            }
        });
    }
}

impl std::fmt::Debug for Tasklet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasklet")
            .field("vector", &self.inner.vector)
            .field("runs", &self.runs())
            .finish_non_exhaustive()
    }
}

impl Drop for Tasklet {
    fn drop(&mut self) {
        if self.inner.state.bury() {
            let gone = self.system.shared().tasklets.lock().remove(self.inner.id);
            drop(gone);
        }
    }
}
