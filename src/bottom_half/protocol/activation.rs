//! The state of a tasklet: one word.
//!
//! Scheduled at most once until it runs; never on two CPUs at once; a disabled one stays scheduled. A CPU that takes a
//! tasklet which may not run now (it runs elsewhere, or is disabled) parks it, and whoever removes the obstacle puts it
//! on a list again: nobody spins on it, and exactly one thread gets the duty.

use super::strength::{Part, order};
use crate::sync::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

const SCHEDULED: u32 = 1;
const RUNNING: u32 = 2;
/// Scheduled, but on no list.
const PARKED: u32 = 4;
const KILLED: u32 = 8;
/// Somebody waits for the end of the run.
const WATCHED: u32 = 16;
/// Its handle is gone.
const DEAD: u32 = 32;
/// Callers that disable it.
const DISABLE: u32 = 1 << 8;

/// What came of scheduling.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// It is scheduled by this call: the caller puts it on a list.
    Mine,
    /// It was scheduled: the run to come serves this caller, too.
    Merged,
    /// It was killed.
    Killed,
}

/// What a CPU that took it off its list does with it.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Runs it, and then finishes.
    Run,
    /// Nothing: somebody puts it on a list again.
    Parked,
    /// Nothing, ever: it was killed.
    Dropped {
        /// Its handle is gone, and so is the last activation: the caller forgets it.
        forget: bool,
    },
}

/// What the end of a run leaves to do.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// What is owed.
    pub owed: Owed,
    /// Somebody waits for this end: wake them.
    pub watched: bool,
    /// Its handle is gone, and so is the last activation: the caller forgets it.
    pub forget: bool,
}

/// What the caller owes.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// Nothing.
    Nothing,
    /// To put it on a list again.
    Push,
}

/// The word.
#[derive(Debug, Default)]
pub struct TaskletState(AtomicU32);

impl TaskletState {
    /// Schedules it. Any thread.
    pub fn schedule(&self) -> Schedule {
        // A merged one is written, too: the run to come must see what its caller did before.
        let old = self.change(|state| if state & KILLED == 0 { state | SCHEDULED } else { state });
        match old {
            _ if old & KILLED != 0 => Schedule::Killed,
            _ if old & SCHEDULED != 0 => Schedule::Merged,
            _ => Schedule::Mine,
        }
    }

    /// A CPU has taken it off its list.
    pub fn begin(&self) -> Begin {
        let old = self.change(|state| match begin(state) {
            Begin::Run => state & !SCHEDULED | RUNNING,
            Begin::Parked => state | PARKED,
            Begin::Dropped { .. } => state & !SCHEDULED,
        });
        begin(old)
    }

    /// The run is over.
    pub fn finish(&self) -> Finish {
        let (old, owed) = self.unpark(|state| state & !(RUNNING | WATCHED));
        Finish { owed, watched: old & WATCHED != 0, forget: old & DEAD != 0 && old & SCHEDULED == 0 }
    }

    /// Whether it runs; if so, the end of the run says that somebody waits for it.
    #[must_use]
    pub fn watch(&self) -> bool {
        self.change(|state| if state & RUNNING != 0 { state | WATCHED } else { state }) & RUNNING != 0
    }

    /// Keeps it from starting until as many [`TaskletState::enable`]s have followed. A run under way goes on.
    pub fn disable(&self) {
        self.0.fetch_add(DISABLE, Ordering::AcqRel);
    }

    /// Undoes one [`TaskletState::disable`].
    pub fn enable(&self) -> Owed {
        self.unpark(|state| state - DISABLE).1
    }

    /// No run starts any more. True: one was scheduled, and is dropped.
    pub fn kill(&self) -> bool {
        let old = self.change(killed);
        old & KILLED == 0 && old & SCHEDULED != 0
    }

    /// Kills it because its handle is gone. True: nothing is under way, the caller forgets it; else somebody else does.
    #[must_use]
    pub fn bury(&self) -> bool {
        let old = self.change(|state| killed(state) | DEAD);
        killed(old) & (SCHEDULED | RUNNING) == 0
    }

    /// Running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) & RUNNING != 0
    }

    /// Scheduled, and not yet running.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.0.load(Ordering::Acquire) & SCHEDULED != 0
    }

    /// Somebody disables it.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.0.load(Ordering::Acquire) >= DISABLE
    }

    /// `change`, and whoever removes the last obstacle of a parked one puts it on a list.
    fn unpark(&self, change: impl Fn(u32) -> u32) -> (u32, Owed) {
        let free = |state: u32| state & PARKED != 0 && state & RUNNING == 0 && state < DISABLE;
        let old = self.change(|state| {
            let state = change(state);
            if free(state) { state & !PARKED } else { state }
        });
        (old, if free(change(old)) { Owed::Push } else { Owed::Nothing })
    }

    fn change(&self, change: impl Fn(u32) -> u32) -> u32 {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            match self.0.compare_exchange_weak(
                state,
                change(state),
                order(Part::Tasklet, Ordering::AcqRel),
                Ordering::Relaxed,
            ) {
                Ok(old) => return old,
                Err(now) => state = now,
            }
        }
    }
}

fn killed(state: u32) -> u32 {
    let state = state | KILLED;
    // On no list: nobody will come by to drop it.
    if state & PARKED != 0 { state & !(SCHEDULED | PARKED) } else { state }
}

fn begin(state: u32) -> Begin {
    if state & KILLED != 0 {
        Begin::Dropped { forget: state & DEAD != 0 && state & RUNNING == 0 }
    } else if state & RUNNING != 0 || state >= DISABLE {
        Begin::Parked
    } else {
        Begin::Run
    }
}
