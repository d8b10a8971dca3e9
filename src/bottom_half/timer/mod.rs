//! Timers: functions that run at a time, from a CPU's TIMER or HRTIMER softirq.
//!
//! A *timeout* sits in a hierarchical wheel: cheap to start and to cancel, never early, late by up to an eighth of its
//! delay (it usually does not expire). A *precise* timer sits in an ordered queue and is late by what the CPU is late.
//! Starting and cancelling allocate nothing. Nothing ticks: the CPU's next deadline is announced to its port.
//!
//! One lock a CPU for both kinds, which is a leaf: the port's `deadline` is called under it.

mod heap;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod wheel;

use std::sync::Arc;

use crate::context::{Process, Softirq};
use crate::cpu::{Cpu, Port};
use crate::observe::{Happened, ItemKind, Observed};
use crate::protocol::wait::WaitWord;
use crate::softirq::Vector;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::table::Table;
use heap::Heap;
use wheel::Wheel;

/// No deadline.
const NEVER: u64 = u64::MAX;
/// Timers that one softirq runs, before others get a turn.
const TURN: usize = 1024;

type Function = Arc<dyn Fn(&Softirq<'_>) -> Option<u64> + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Timeout,
    Precise,
}

impl Kind {
    fn vector(self) -> Vector {
        if self == Self::Timeout { Vector::Timer } else { Vector::HrTimer }
    }
}

struct Entry {
    function: Function,
    kind: Kind,
    /// It was started or cancelled during its own run: what the run returns does not count.
    touched: bool,
    running: bool,
    /// Its handle went during its run.
    dead: bool,
    pending: bool,
}

/// A CPU's timers.
pub(crate) struct Timers {
    state: Mutex<State>,
    /// What is announced to the port; [`NEVER`] for nothing.
    next: AtomicU64,
    /// Changes at the end of a run that somebody waits for.
    ended: WaitWord,
    port: Arc<dyn Port>,
}

#[derive(Default)]
struct State {
    entries: Table<Entry>,
    wheel: Wheel,
    heap: Heap,
    /// Somebody waits for the end of a run.
    watched: bool,
}

/// Which kinds are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) wheel: bool,
    pub(crate) precise: bool,
}

impl State {
    fn next(&self) -> u64 {
        self.wheel.next().min(self.heap.next())
    }

    fn insert(&mut self, id: u32, kind: Kind, at: u64, now: u64) {
        match kind {
            Kind::Timeout => self.wheel.insert(id, at, now),
            Kind::Precise => self.heap.insert(id, at),
        }
    }

    fn remove(&mut self, id: u32, kind: Kind) {
        match kind {
            Kind::Timeout => self.wheel.remove(id),
            Kind::Precise => self.heap.remove(id),
        }
    }

    /// Takes it out if it is in. Whether it was.
    fn take_out(&mut self, id: u32) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        entry.touched = true;
        let was_pending = std::mem::take(&mut entry.pending);
        let kind = entry.kind;
        if was_pending {
            self.remove(id, kind);
        }
        was_pending
    }

    fn put_in(&mut self, id: u32, at: u64, now: u64) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.pending = true;
        let kind = entry.kind;
        self.insert(id, kind, at, now);
    }

    /// The next one that is due, which runs from here on.
    fn begin(&mut self, kind: Kind, now: u64) -> Option<(u32, Function)> {
        let id = match kind {
            Kind::Timeout => self.wheel.pop_due(now),
            Kind::Precise => self.heap.pop_due(now),
        }?;
        let entry = self.entries.get_mut(id)?;
        entry.pending = false;
        entry.touched = false;
        entry.running = true;
        Some((id, Arc::clone(&entry.function)))
    }
}

impl Timers {
    pub(crate) fn new(port: Arc<dyn Port>, now: u64) -> Self {
        let state = State { wheel: Wheel::new(now), ..State::default() };
        Self { state: Mutex::new(state), next: AtomicU64::new(NEVER), ended: WaitWord::default(), port }
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        Some(self.next.load(Ordering::Acquire)).filter(|&at| at != NEVER)
    }

    /// What is due at `now`. If nothing is, though the deadline has come (its timer was cancelled), the port hears of the
    /// next one.
    pub(crate) fn due(&self, now: u64) -> Due {
        if self.next.load(Ordering::Acquire) > now {
            return Due { wheel: false, precise: false };
        }
        let state = self.state.lock();
        let due = Due { wheel: state.wheel.next() <= now, precise: state.heap.next() <= now };
        if !due.wheel && !due.precise {
            self.announce(&state);
        }
        due
    }

    pub(crate) fn run_wheel(&self, softirq: &Softirq<'_>) {
        self.run(softirq, Kind::Timeout);
    }

    pub(crate) fn run_precise(&self, softirq: &Softirq<'_>) {
        self.run(softirq, Kind::Precise);
    }

    fn run(&self, softirq: &Softirq<'_>, kind: Kind) {
        let now = softirq.now();
        let mut state = self.state.lock();
        for _ in 0..TURN {
            let Some((id, function)) = state.begin(kind, now) else { break };
            drop(state);
            tell(Happened::Run, softirq.cpu(), id, kind);
            let again = function(softirq);
            tell(Happened::Done, softirq.cpu(), id, kind);
            drop(function);
            if again.is_some() {
                tell(Happened::Activated, softirq.cpu(), id, kind);
            }
            state = self.state.lock();
            let mut gone = None;
            if let Some(entry) = state.entries.get_mut(id) {
                entry.running = false;
                if entry.dead {
                    gone = state.entries.remove(id);
                } else if let (Some(at), false) = (again, entry.touched) {
                    state.put_in(id, at, now);
                }
            }
            if std::mem::take(&mut state.watched) {
                self.ended.wake_all();
            }
            if gone.is_some() {
                // What its function owned may have timers, too.
                drop(state);
                drop(gone);
                state = self.state.lock();
            }
        }
        // Not the time that this run began: what is due by now is for the next round, not for another wake-up of the owner.
        let next = match kind {
            Kind::Timeout => state.wheel.next(),
            Kind::Precise => state.heap.next(),
        };
        let more = next <= now || next != NEVER && next <= softirq.now();
        if more {
            softirq.raise(softirq.vector());
        } else {
            self.announce(&state);
        }
    }

    /// Tells the port the deadline once more, if there is one.
    pub(crate) fn announce_again(&self) {
        if self.next_deadline().is_some() {
            self.announce(&self.state.lock());
        }
    }

    fn announce(&self, state: &State) {
        let next = state.next();
        self.next.store(next, Ordering::Release);
        self.port.deadline((next != NEVER).then_some(next));
    }

    fn start(&self, id: u32, at: u64, now: u64, only_if_idle: bool) -> bool {
        let mut state = self.state.lock();
        if only_if_idle && state.entries.get(id).is_some_and(|entry| entry.pending) {
            return true;
        }
        let was_pending = state.take_out(id);
        state.put_in(id, at, now);
        // A later deadline stays as it is: an alarm too early costs less than a system call for each delay.
        if state.next() < self.next.load(Ordering::Relaxed) {
            self.announce(&state);
        }
        was_pending
    }

    fn cancel(&self, id: u32) -> bool {
        self.state.lock().take_out(id)
    }

    fn cancel_and_wait(&self, id: u32) -> bool {
        let mut was_pending = false;
        loop {
            let seen = self.ended.value();
            let mut state = self.state.lock();
            was_pending |= state.take_out(id);
            if state.entries.get(id).is_none_or(|entry| !entry.running) {
                return was_pending;
            }
            state.watched = true;
            drop(state);
            let _ = self.ended.wait(seen, None);
        }
    }

    fn forget(&self, id: u32) {
        let mut state = self.state.lock();
        state.take_out(id);
        let Some(entry) = state.entries.get_mut(id) else { return };
        entry.dead = true;
        let gone = if entry.running { None } else { state.entries.remove(id) };
        drop(state);
        drop(gone);
    }
}

fn tell(what: Happened, cpu: &Cpu, id: u32, kind: Kind) {
    cpu.shared.observers.tell(what, || Observed {
        kind: ItemKind::Timer,
        key: (cpu.index() as u64) << 32 | u64::from(id),
        vector: Some(kind.vector()),
        cpu: Some(cpu.index() as u32),
        queue: "",
    });
}

/// A timer of a CPU. Dropping it cancels it, without waiting for a run that is under way.
pub struct Timer {
    cpu: Arc<Cpu>,
    id: u32,
    kind: Kind,
}

impl Timer {
    /// A timeout on `cpu`, idle. The function runs from TIMER; what it returns is when to run again (ns of the system's
    /// clock), if it was not started or cancelled meanwhile.
    pub fn timeout(cpu: &Arc<Cpu>, function: impl Fn(&Softirq<'_>) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self::new(cpu, Kind::Timeout, Arc::new(function))
    }

    /// A precise timer on `cpu`, idle. The function runs from HRTIMER; what it returns is when to run again (ns of the
    /// system's clock), if it was not started or cancelled meanwhile.
    pub fn precise(cpu: &Arc<Cpu>, function: impl Fn(&Softirq<'_>) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self::new(cpu, Kind::Precise, Arc::new(function))
    }

    fn new(cpu: &Arc<Cpu>, kind: Kind, function: Function) -> Self {
        let entry = Entry { function, kind, touched: false, running: false, dead: false, pending: false };
        let mut state = cpu.timers.state.lock();
        let id = state.entries.insert(|_| entry);
        match kind {
            Kind::Timeout => state.wheel.grow(id),
            Kind::Precise => state.heap.grow(id),
        }
        drop(state);
        Self { cpu: Arc::clone(cpu), id, kind }
    }

    /// Starts it, to run at `at` (ns of the system's clock), or moves it there. True: it was pending. Never blocks.
    pub fn start(&self, at: u64) -> bool {
        tell(Happened::Activated, &self.cpu, self.id, self.kind);
        self.cpu.timers.start(self.id, at, self.cpu.shared.clock.coarse(), false)
    }

    /// Starts it unless it is pending. True: it was, and is left as it is. Never blocks.
    pub fn start_if_idle(&self, at: u64) -> bool {
        tell(Happened::Activated, &self.cpu, self.id, self.kind);
        self.cpu.timers.start(self.id, at, self.cpu.shared.clock.coarse(), true)
    }

    /// Cancels it. True: it was pending. A run under way goes on. Never blocks.
    pub fn cancel(&self) -> bool {
        let was_pending = self.cpu.timers.cancel(self.id);
        if was_pending {
            tell(Happened::Cancelled, &self.cpu, self.id, self.kind);
        }
        was_pending
    }

    /// Cancels it, and waits for the end of a run that is under way: none starts or goes on after this, unless somebody
    /// starts it again. Not from its own function (which holds no [`Process`]). True: it was pending.
    pub fn cancel_and_wait(&self, process: &Process<'_>) -> bool {
        process.block(|| self.cpu.timers.cancel_and_wait(self.id))
    }

    /// Pending: started, and its run has not begun.
    pub fn is_pending(&self) -> bool {
        self.cpu.timers.state.lock().entries.get(self.id).is_some_and(|entry| entry.pending)
    }

    /// The vector that it runs from.
    pub fn vector(&self) -> Vector {
        self.kind.vector()
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").field("cpu", &self.cpu).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cpu.timers.forget(self.id);
    }
}
