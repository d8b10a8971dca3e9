//! Contexts as types: what code may do is what its token lets it do.
//!
//! | code | holds | may block |
//! |---|---|---|
//! | top half (a vCPU exit, an event of the main loop) | [`TopHalf`] | no |
//! | softirq, tasklet, timer | [`Softirq`] | no |
//! | work item, ordinary thread | [`Process`] | yes |
//!
//! Activating something (raise, schedule, queue, start a timer) never blocks and needs no token; with one, it concerns the
//! CPU that the code runs on. What may block takes `&Process`. No token can be made, kept or sent elsewhere by those who
//! should not have it:
//!
//! ```
//! use bottom_half::{Process, Tasklet};
//! fn in_a_work_item(process: &Process, tasklet: &Tasklet) {
//!     tasklet.disable_and_wait(process);
//! }
//! ```
//!
//! A softirq can't wait, nor can a top half:
//!
//! ```compile_fail,E0308
//! use bottom_half::{Softirq, Tasklet};
//! fn in_a_softirq(softirq: &Softirq, tasklet: &Tasklet) {
//!     tasklet.disable_and_wait(softirq);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use bottom_half::{TopHalf, WorkQueue};
//! fn in_a_top_half(top: &TopHalf, queue: &WorkQueue) {
//!     queue.flush(top);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use bottom_half::{Softirq, Timer};
//! fn in_a_softirq(softirq: &Softirq, timer: &Timer) {
//!     timer.cancel_and_wait(softirq);
//! }
//! ```
//!
//! A softirq can't make itself a token of another context:
//!
//! ```compile_fail,E0624
//! use bottom_half::{Softirq, TopHalf};
//! fn in_a_softirq(softirq: &Softirq) {
//!     let top = TopHalf::new(softirq.cpu());
//! }
//! ```
//!
//! It can't hand its own to another thread:
//!
//! ```compile_fail,E0277
//! use bottom_half::Softirq;
//! fn in_a_softirq(softirq: &Softirq) {
//!     std::thread::scope(|scope| {
//!         scope.spawn(|| softirq.cpu());
//!     });
//! }
//! ```
//!
//! Nor keep it for later:
//!
//! ```compile_fail,E0521
//! use bottom_half::{Process, Work, WorkQueue};
//! use std::cell::RefCell;
//! thread_local! { static KEPT: RefCell<Option<&'static Process<'static>>> = RefCell::new(None) }
//! fn f(queue: &WorkQueue) -> Work {
//!     queue.work(|process| KEPT.with(|kept| *kept.borrow_mut() = Some(process)))
//! }
//! ```
//!
//! And the owner's half of a CPU stays with one thread at a time:
//!
//! ```compile_fail,E0277
//! use bottom_half::CpuOwner;
//! fn share(owner: &CpuOwner) {
//!     std::thread::scope(|scope| {
//!         scope.spawn(|| owner.top_half(|_| ()));
//!     });
//! }
//! ```
//!
//! What types can't say is checked in debug builds: [`Process::of_thread`] panics on a thread that is in a top half or a
//! softirq.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::cpu::Cpu;
use crate::softirq::Vector;
use crate::sync::thread_local;
use crate::work::Current;

/// Stays on its thread.
type Here = PhantomData<*const ()>;

thread_local! {
    /// The CPU in whose top half or softirq this thread is: its address, as a name only.
    static ON_CPU: Cell<usize> = const { Cell::new(0) };
}

/// Whether the calling thread is in a top half or a softirq of `cpu`.
pub(crate) fn is_on(cpu: &Cpu) -> bool {
    ON_CPU.with(Cell::get) == std::ptr::from_ref(cpu).addr()
}

/// The calling thread is in atomic context on `cpu` until the guard goes.
pub(crate) fn enter(cpu: &Cpu) -> OnCpu {
    OnCpu { before: ON_CPU.with(|on| on.replace(std::ptr::from_ref(cpu).addr())) }
}

/// See [`enter`].
pub(crate) struct OnCpu {
    before: usize,
}

impl Drop for OnCpu {
    fn drop(&mut self) {
        ON_CPU.with(|on| on.set(self.before));
    }
}

/// The token of a top half: acknowledges, raises, returns. Must not block, nor take long.
#[derive(Debug)]
pub struct TopHalf<'a> {
    cpu: &'a Arc<Cpu>,
    _here: Here,
}

impl<'a> TopHalf<'a> {
    pub(crate) fn new(cpu: &'a Arc<Cpu>) -> Self {
        Self { cpu, _here: PhantomData }
    }

    /// The CPU that this runs on.
    pub fn cpu(&self) -> &Arc<Cpu> {
        self.cpu
    }

    /// Raises `vector` on this CPU: it runs when the top half is left.
    pub fn raise(&self, vector: Vector) {
        self.cpu.raise(vector);
    }
}

/// The token of a softirq, and of the tasklets and timers that run from it. Must not block.
#[derive(Debug)]
pub struct Softirq<'a> {
    cpu: &'a Arc<Cpu>,
    vector: Vector,
    _here: Here,
}

impl<'a> Softirq<'a> {
    pub(crate) fn new(cpu: &'a Arc<Cpu>, vector: Vector) -> Self {
        Self { cpu, vector, _here: PhantomData }
    }

    /// The CPU that this runs on, or whose softirq thread it runs on.
    pub fn cpu(&self) -> &Arc<Cpu> {
        self.cpu
    }

    /// The vector that runs.
    pub fn vector(&self) -> Vector {
        self.vector
    }

    /// Raises `vector` on this CPU: it runs in the next round.
    pub fn raise(&self, vector: Vector) {
        self.cpu.raise(vector);
    }

    /// The time, in ns of the system's clock.
    pub fn now(&self) -> u64 {
        self.cpu.shared.clock.now()
    }
}

/// The token of code that may block: a work item, or an ordinary thread.
#[derive(Debug)]
pub struct Process<'a> {
    current: Option<&'a Current<'a>>,
    _here: Here,
}

impl Process<'static> {
    /// For a thread that is no worker.
    ///
    /// # Panics
    ///
    /// In debug builds, on a thread that is in a top half or a softirq.
    pub fn of_thread() -> Self {
        debug_assert!(ON_CPU.with(Cell::get) == 0, "a top half or a softirq is about to block");
        Self { current: None, _here: PhantomData }
    }
}

impl<'a> Process<'a> {
    pub(crate) fn of_item(current: &'a Current<'a>) -> Self {
        Self { current: Some(current), _here: PhantomData }
    }

    pub(crate) fn current(&self) -> Option<&'a Current<'a>> {
        self.current
    }

    /// Runs something that blocks. In a work item, another worker takes over the queue meanwhile.
    pub fn block<R>(&self, f: impl FnOnce() -> R) -> R {
        match self.current {
            Some(current) => current.block(f),
            None => f(),
        }
    }

    /// Queues an item. From an item of the same queue it is queued on the same CPU, even while the queue is being
    /// destroyed. Never blocks.
    pub fn queue(&self, work: &crate::Work) -> crate::Queued {
        match self.current {
            Some(current) => current.queue(&work.0),
            None => work.queue(),
        }
    }

    /// In a work item: queues the same item again, to run after this run. What came of it; `None` on another thread.
    pub fn requeue(&self) -> Option<crate::Queued> {
        self.current.map(Current::requeue)
    }
}
