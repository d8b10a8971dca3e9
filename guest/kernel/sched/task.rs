//! Kernel threads: made, run, ended, waited for.
//!
//! To read more: Linux, kernel/kthread.c, include/linux/sched.h (task_struct).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::switch::Context;
use super::wait_queue::WaitQueue;
use super::{TIME_SLICE, finish_switch, leave, start, this_task};
use crate::arch::fpu;
use crate::arch::percpu::this_cpu;
use crate::arch::stack::TaskStack;
use crate::sync::{IrqLock, disable_interrupts, enable_interrupts};
use crate::time::tsc;
use crate::user::signal::Signals;

/// How urgent a thread is. A higher one always comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// The idle threads.
    Idle,
    /// What can wait for all others: ksoftirqd, threads that only look whether something has happened.
    Low,
    /// Most threads.
    Normal,
    /// Workers of high priority.
    High,
    /// Threads of interrupt handlers.
    Interrupt,
}

impl Priority {
    /// How many there are.
    pub(super) const COUNT: usize = 5;

    fn from_bits(bits: u8) -> Self {
        [Self::Idle, Self::Low, Self::Normal, Self::High, Self::Interrupt][usize::from(bits)]
    }
}

/// States of a thread: it runs or is ready; it waits, or is about to; it has ended.
const READY: u32 = 0;
const WAITING: u32 = 1;
const DEAD: u32 = 2;

/// What a thread does; its result is its exit code.
pub type Body = Box<dyn FnOnce() -> i32 + Send>;

/// A thread.
pub struct Task {
    /// Its number.
    pub pid: u32,
    name: String,
    pub(super) cpu: usize,
    priority: AtomicU8,
    state: AtomicU32,
    /// It is on a list of its run queue, or runs. Changed under the queue's lock.
    pub(super) is_queued: AtomicBool,
    pub(super) context: Context,
    /// Its registers of floating-point and vector instructions, while the CPU does not hold them.
    pub(crate) fpu: fpu::Area,
    /// What it is told by signals, if it runs a program.
    pub(crate) signals: Signals,
    /// Number of the pool whose work it does, 0 for none.
    pub(crate) worker_of: AtomicUsize,
    /// Nothing for what ran before there were threads.
    stack: Option<Box<TaskStack>>,
    body: IrqLock<Option<Body>>,
    /// TSC ticks that it has run, up to when it last began.
    pub(super) ran: AtomicU64,
    /// Ticks left of its time slice.
    pub(super) slice: AtomicU32,
    /// System calls of its program.
    pub system_calls: AtomicU64,
    /// How often it was switched to.
    pub switches: AtomicU64,
    stop: AtomicBool,
    exit_code: AtomicI32,
    ended: WaitQueue,
}

static NEXT_PID: AtomicU32 = AtomicU32::new(0);

impl Task {
    fn with_stack(name: &str, cpu: usize, priority: Priority, stack: Option<Box<TaskStack>>) -> Self {
        let is_new = stack.is_some();
        Self {
            pid: NEXT_PID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            cpu,
            priority: AtomicU8::new(priority as u8),
            state: AtomicU32::new(if is_new { WAITING } else { READY }),
            is_queued: AtomicBool::new(!is_new),
            context: Context::default(),
            fpu: fpu::Area::new(),
            signals: Signals::default(),
            worker_of: AtomicUsize::new(0),
            stack,
            body: IrqLock::new(None),
            ran: AtomicU64::new(0),
            slice: AtomicU32::new(TIME_SLICE),
            system_calls: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            exit_code: AtomicI32::new(0),
            ended: WaitQueue::new(),
        }
    }

    /// What runs already, on whatever stack it has.
    pub(super) fn of_this_stack(name: &str, priority: Priority) -> Arc<Self> {
        Arc::new(Self::with_stack(name, this_cpu().number(), priority, None))
    }

    /// A thread that waits to be started.
    pub(super) fn new(name: &str, cpu: usize, priority: Priority, body: Body) -> Arc<Self> {
        let stack = new_stack();
        let top = stack.top();
        let task = Self::with_stack(name, cpu, priority, Some(stack));
        task.context.prepare(top);
        *task.body.lock() = Some(body);
        Arc::new(task)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its CPU.
    pub fn cpu(&self) -> usize {
        self.cpu
    }

    /// Its priority.
    pub fn priority(&self) -> Priority {
        Priority::from_bits(self.priority.load(Ordering::Relaxed))
    }

    /// Changes it, and gives the old one. Only the thread itself does so, while it runs and is on no list.
    pub(super) fn set_priority(&self, priority: Priority) -> Priority {
        Priority::from_bits(self.priority.swap(priority as u8, Ordering::Relaxed))
    }

    /// It waits no more: true if it did. Under its run queue's lock.
    pub(super) fn become_ready(&self) -> bool {
        self.state.compare_exchange(WAITING, READY, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// It runs or is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.state.load(Ordering::SeqCst) == READY
    }

    pub(super) fn set_waiting(&self, waits: bool) {
        self.state.store(if waits { WAITING } else { READY }, Ordering::SeqCst);
    }

    /// It waits for something.
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WAITING
    }

    /// It has ended.
    pub fn is_dead(&self) -> bool {
        self.state.load(Ordering::SeqCst) == DEAD
    }

    /// Nanoseconds of its CPU that it has had: its clock of CPU time.
    pub fn cpu_time(&self) -> u64 {
        let queue = super::RUN_QUEUES[self.cpu].lock();
        let runs = queue.current.as_ref().is_some_and(|current| core::ptr::eq(&raw const **current, self));
        let running = if runs { tsc::read().saturating_sub(queue.since) } else { 0 };
        tsc::nanoseconds(self.ran.load(Ordering::Relaxed) + running)
    }

    /// Waits for its end, and gives its exit code.
    pub fn join(&self) -> i32 {
        self.ended.wait_event(|| self.is_dead());
        self.exit_code.load(Ordering::Relaxed)
    }

    /// Exceptions that were needed to give it its floating-point registers.
    pub fn fpu_faults(&self) -> u64 {
        self.fpu.faults.load(Ordering::Relaxed)
    }

    /// Asks it to end ([`should_stop`]), waits for that, and gives its exit code (kthread_stop).
    pub fn stop(self: &Arc<Self>) -> i32 {
        self.stop.store(true, Ordering::SeqCst);
        super::wake(self);
        self.join()
    }

    /// The end of the machine if its stack has overflowed.
    pub(super) fn check_stack(&self) {
        if self.stack.as_ref().is_some_and(|stack| !stack.intact()) {
            crate::log!("the stack of {} has overflowed", self.name());
            crate::power::die("stack overflow");
        }
    }
}

/// A stack that holds nothing but its canary.
fn new_stack() -> Box<TaskStack> {
    let mut stack = Box::<TaskStack>::new_uninit();
    let raw: *mut MaybeUninit<TaskStack> = &raw mut *stack;
    // SAFETY: the canary and the word above the top are written; the bytes between need not be.
    unsafe {
        TaskStack::prepare_in_place(raw.cast());
        stack.assume_init()
    }
}

/// Makes a thread on a CPU and starts it (kthread_run).
pub fn kthread_run(
    name: &str,
    cpu: usize,
    priority: Priority,
    body: impl FnOnce() -> i32 + Send + 'static,
) -> Arc<Task> {
    let task = Task::new(name, cpu, priority, Box::new(body));
    start(&task);
    task
}

/// The present thread was asked to end ([`Task::stop`]).
pub fn should_stop() -> bool {
    this_task().is_some_and(|task| task.stop.load(Ordering::SeqCst))
}

/// Where each thread begins, with interrupts off.
pub(super) extern "C" fn task_start() -> ! {
    finish_switch();
    enable_interrupts();
    let body = this_task().and_then(|task| task.body.lock().take());
    exit(body.map_or(0, |body| body()))
}

/// Ends the present thread.
pub fn exit(code: i32) -> ! {
    crate::irq::entry::might_sleep();
    disable_interrupts();
    if let Some(task) = this_task() {
        fpu::forget(task);
        task.exit_code.store(code, Ordering::Relaxed);
        task.state.store(DEAD, Ordering::SeqCst);
        task.ended.wake_up_all();
    }
    leave()
}
