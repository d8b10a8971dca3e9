//! The half of a CPU that belongs to its thread.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use super::{Cpu, Port};
use crate::context::{Process, TopHalf, enter};
use crate::protocol::wait::WaitWord;
use crate::softirq::Vector;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{AtomicBool, Ordering};

/// A CPU's owner: the only one that has top halves on it. May be moved to its thread; can't be shared.
pub struct CpuOwner {
    cpu: Arc<Cpu>,
    /// Top halves that are entered, one in the other.
    depth: Cell<u32>,
    masked: Cell<u32>,
}

impl CpuOwner {
    pub(crate) fn new(cpu: Arc<Cpu>) -> Self {
        Self { cpu, depth: Cell::new(0), masked: Cell::new(0) }
    }

    /// The CPU.
    pub fn cpu(&self) -> &Arc<Cpu> {
        &self.cpu
    }

    /// Runs a top half, and on leaving the outermost one the softirqs that are pending, unless they are masked or with
    /// the softirq thread.
    pub fn top_half<R>(&self, f: impl FnOnce(&TopHalf<'_>) -> R) -> R {
        self.depth.set(self.depth.get() + 1);
        let result = {
            let _on_cpu = enter(&self.cpu);
            f(&TopHalf::new(&self.cpu))
        };
        self.depth.set(self.depth.get() - 1);
        self.run_pending();
        result
    }

    /// Raises TIMER and HRTIMER if timers are due. To be called in a top half when the deadline has come.
    pub fn expire(&self, top: &TopHalf<'_>) {
        let due = self.cpu.timers.due(self.cpu.shared.clock.now());
        if due.wheel {
            top.raise(Vector::Timer);
        }
        if due.precise {
            top.raise(Vector::HrTimer);
        }
    }

    /// Keeps softirqs from running on this CPU until the guard goes; nests. Waits if the softirq thread is in one.
    pub fn mask(&self, _process: &Process<'_>) -> Masked<'_> {
        if self.masked.get() == 0 {
            loop {
                let seen = self.cpu.owner_wake.value();
                if self.cpu.serving.try_serve() {
                    break;
                }
                if !self.cpu.serving.want() {
                    let _ = self.cpu.owner_wake.wait(seen, None);
                }
            }
        }
        self.masked.set(self.masked.get() + 1);
        Masked(self)
    }

    /// How deep softirqs are masked.
    pub fn masked(&self) -> u32 {
        self.masked.get()
    }

    fn run_pending(&self) {
        if self.cpu.serving.pending() != 0 && self.masked.get() == 0 && self.depth.get() == 0 {
            self.cpu.serve();
        }
    }

    /// Serves this CPU until `stop` says so, which is looked at after each wake-up: the loop of a thread that has nothing
    /// else to do. The CPU's port must be `port`, and the clock CLOCK_MONOTONIC (or a model's).
    pub fn run(&self, port: &ThreadPort, stop: &AtomicStop) {
        let _ = port.owner.set(thread::current().id());
        loop {
            let seen = port.wake.value();
            if stop.0.load(Ordering::Acquire) {
                return;
            }
            self.top_half(|top| self.expire(top));
            let pending = self.cpu.serving.pending() != 0 && !self.cpu.serving.is_handed_over();
            if !pending {
                let _ = port.wake.wait(seen, self.alarm());
            }
        }
    }

    /// Until when to sleep: not for timers while the softirq thread has the place. They can't run here, and when it
    /// frees the place it announces the deadline.
    pub(super) fn alarm(&self) -> Option<u64> {
        if self.cpu.serving.is_handed_over() { None } else { self.cpu.next_deadline() }
    }
}

impl std::fmt::Debug for CpuOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuOwner").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

/// Softirqs are masked while this lives.
#[derive(Debug)]
#[must_use]
pub struct Masked<'a>(&'a CpuOwner);

impl Drop for Masked<'_> {
    fn drop(&mut self) {
        let owner = self.0;
        owner.masked.set(owner.masked.get() - 1);
        if owner.masked.get() == 0 {
            owner.cpu.serving.release();
            owner.run_pending();
        }
    }
}

/// The port of a CPU whose owner sleeps in [`CpuOwner::run`].
#[derive(Debug, Default)]
pub struct ThreadPort {
    wake: WaitWord,
    owner: OnceLock<ThreadId>,
}

impl ThreadPort {
    /// Has the owner look at its stop flag.
    pub fn wake(&self) {
        self.wake.wake_all();
    }
}

impl Port for ThreadPort {
    fn kick(&self) {
        self.wake.wake_all();
    }

    fn deadline(&self, at: Option<u64>) {
        // It looks before it sleeps.
        if at.is_some() && self.owner.get() != Some(&thread::current().id()) {
            self.wake.wake_all();
        }
    }
}

/// Ends [`CpuOwner::run`], when its port is woken afterwards.
#[derive(Debug, Default)]
pub struct AtomicStop(AtomicBool);

impl AtomicStop {
    /// Says stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
}
