//! The scheduler: which thread a CPU runs.
//!
//! Each CPU has a **run queue**: lists of threads that are ready, one for each priority. A CPU runs the first thread of the highest priority
//! that has any; threads of one priority take turns. With nothing ready it runs its **idle** thread, which sleeps until an
//! interrupt comes. A thread gives the CPU away by waiting ([`wait_queue`]), or it loses it: when one of a higher priority is
//! woken or its time slice is over, `need_resched` is set, and the way out of the interrupt (or the end of what
//! forbade it) switches. That is **preemption**. What must not be preempted: handlers, softirqs, code with interrupts off, and code under a
//! [`PreemptGuard`].
//!
//! Threads stay on the CPU that they were made for.
//!
//! To read more: Linux, kernel/sched/core.c (`__schedule`, `try_to_wake_up`); Bovet and Cesati, "Understanding the Linux
//! Kernel", chapter "Process Scheduling".

pub mod preempt;
pub mod sleep;
mod switch;
pub mod task;
pub mod wait_queue;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::percpu::{self, MAX_CPUS, this_cpu};
use crate::irq::entry;
use crate::smp;
use crate::sync::{IrqGuard, IrqLock, enable_and_halt, without_interrupts};
use crate::time::tsc;
use crate::workqueue::pool;

pub use preempt::PreemptGuard;
pub use task::{Priority, Task};

/// Ticks that a thread may run before another of its priority gets its turn.
pub const TIME_SLICE: u32 = 3;

/// One CPU's threads.
struct RunQueue {
    /// Ready and not running, by priority.
    ready: [VecDeque<Arc<Task>>; Priority::COUNT],
    /// The one that runs.
    current: Option<Arc<Task>>,
    /// The one that runs when there is no other.
    idle: Option<Arc<Task>>,
    /// All of them, whatever they do.
    tasks: Vec<Arc<Task>>,
    /// One that has ended and whose stack the CPU has just left.
    dead: Option<Arc<Task>>,
    /// When the one that runs began, by the TSC.
    since: u64,
    /// The one that runs has had its time.
    slice_is_over: bool,
}

static RUN_QUEUES: [IrqLock<RunQueue>; MAX_CPUS] = [const {
    IrqLock::new(RunQueue {
        ready: [const { VecDeque::new() }; Priority::COUNT],
        current: None,
        idle: None,
        tasks: Vec::new(),
        dead: None,
        since: 0,
        slice_is_over: false,
    })
}; MAX_CPUS];

/// Switches from one thread to another, by CPU.
static SWITCHES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// How often a CPU has switched from one thread to another.
pub fn switches_on(cpu: usize) -> u64 {
    SWITCHES[cpu].load(Ordering::Relaxed)
}

fn mine() -> &'static IrqLock<RunQueue> {
    &RUN_QUEUES[this_cpu().number()]
}

impl RunQueue {
    /// The first of the highest priority that is ready.
    fn pick(&mut self) -> Option<Arc<Task>> {
        self.ready.iter_mut().rev().find_map(VecDeque::pop_front)
    }

    /// Somebody of this priority or a higher one is ready.
    fn has_ready(&self, priority: Priority) -> bool {
        self.ready[priority as usize..].iter().any(|list| !list.is_empty())
    }

    /// The one that runs goes back to its list, if it is ready; the idle thread is on none.
    fn put_back_current(&mut self, preempted: bool) {
        let slice_is_over = core::mem::take(&mut self.slice_is_over);
        let Some(current) = self.current.clone() else { return };
        if !preempted && !current.is_ready() {
            current.is_queued.store(false, Ordering::Relaxed);
        } else if !self.idle.as_ref().is_some_and(|idle| Arc::ptr_eq(idle, &current)) {
            let list = &mut self.ready[current.priority() as usize];
            if preempted && !slice_is_over { list.push_front(current) } else { list.push_back(current) }
        }
    }

    /// A new thread. There is room for all threads on each list, so that waking one needs no memory.
    fn adopt(&mut self, task: Arc<Task>) {
        self.tasks.push(task);
        let room = self.tasks.len();
        self.ready.iter_mut().for_each(|list| list.reserve(room - list.len()));
    }

    /// Books the time since the last look to the thread that runs.
    fn account(&mut self) {
        let now = tsc::read();
        if let Some(current) = &self.current {
            current.ran.fetch_add(now.saturating_sub(self.since), Ordering::Relaxed);
        }
        self.since = now;
    }
}

/// Makes what runs on the bootstrap processor a thread, and gives that processor an idle thread.
pub(crate) fn init() {
    entry::set_preempt_hook(preempt::on_interrupt_exit);
    let main = Task::of_this_stack("main", Priority::Normal);
    begin(&main);
    let idle = Task::new("swapper/0", 0, Priority::Idle, Box::new(|| idle_loop()));
    let mut queue = mine().lock();
    queue.adopt(idle.clone());
    queue.idle = Some(idle);
}

/// Makes what runs on another CPU its idle thread. A CPU that is started again loses the thread that it ran.
pub(crate) fn init_secondary() {
    let idle = Task::of_this_stack(&alloc::format!("swapper/{}", this_cpu().number()), Priority::Idle);
    {
        let mut queue = mine().lock();
        let lost = [queue.current.take(), queue.idle.take()];
        queue.tasks.retain(|task| !lost.iter().flatten().any(|lost| Arc::ptr_eq(lost, task)));
        queue.idle = Some(idle.clone());
    }
    begin(&idle);
}

/// `task` is what runs here now.
fn begin(task: &Arc<Task>) {
    let cpu = this_cpu();
    let mut queue = mine().lock();
    queue.adopt(task.clone());
    queue.current = Some(task.clone());
    queue.since = tsc::read();
    cpu.current.store(Arc::as_ptr(task).cast_mut(), Ordering::Relaxed);
    cpu.need_resched.store(0, Ordering::Relaxed);
}

/// The thread that runs this; `None` before there are threads.
pub fn current() -> Option<Arc<Task>> {
    mine().lock().current.clone()
}

/// The thread that runs this, which the caller knows to be one.
pub(crate) fn this_task<'a>() -> Option<&'a Task> {
    let task = this_cpu().current.load(Ordering::Relaxed);
    // SAFETY: the run queue holds the thread that runs, and who asks is that thread, so it lives while the answer is used.
    unsafe { task.as_ref() }
}

/// Makes a thread ready for the first time.
fn start(task: &Arc<Task>) {
    RUN_QUEUES[task.cpu].lock().adopt(task.clone());
    wake(task);
}

/// Makes a thread that waits ready; false if it does not wait. One of a higher priority than what its CPU runs gets the CPU soon: at once
/// here if nothing forbids it ([`preempt::check`]).
pub fn wake(task: &Arc<Task>) -> bool {
    let woken = wake_without_preemption(task);
    preempt::check();
    woken
}

/// As [`wake`], for callers that hold locks: they look with [`preempt::check`] when they do not any more.
pub(crate) fn wake_without_preemption(task: &Arc<Task>) -> bool {
    let mut queue = RUN_QUEUES[task.cpu].lock();
    if !task.become_ready() {
        return false;
    }
    // It may be about to wait, and not have left the CPU or the list yet.
    if !task.is_queued.swap(true, Ordering::Relaxed) {
        queue.ready[task.priority() as usize].push_back(task.clone());
        let comes_first = queue.current.as_ref().is_none_or(|current| current.priority() < task.priority());
        drop(queue);
        if comes_first {
            resched_cpu(task.cpu);
        }
    }
    true
}

/// Asks a CPU to look at its run queue.
fn resched_cpu(number: usize) {
    let Some(cpu) = percpu::cpu(number) else { return };
    let asked_already = cpu.need_resched.swap(1, Ordering::SeqCst) != 0;
    if !asked_already && !core::ptr::eq(cpu, this_cpu()) {
        smp::send_reschedule(cpu);
    }
}

/// Gives the CPU to the next thread; comes back when it is this one's turn again. Waits if the thread has said so ([`sleep::prepare`]).
pub fn schedule() {
    entry::might_sleep();
    without_interrupts(|| {
        let waits = this_task().filter(|task| !task.is_ready());
        waits.inspect(|task| pool::worker_waits(task));
        reschedule(false);
        waits.inspect(|task| pool::worker_goes_on(task));
    });
}

/// Lets others of this thread's priority run, where this is allowed.
pub fn yield_now() {
    if entry::may_block() && this_task().is_some_and(|task| mine().lock().has_ready(task.priority())) {
        schedule();
    }
}

/// Looks again and again until `done`; where that is allowed, all other threads of the CPU come first meanwhile. For waits that are short, or
/// whose end nobody announces.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    if done() {
        return;
    }
    let _last = preempt::ComesLast::new();
    while !done() {
        yield_now();
        core::hint::spin_loop();
    }
}

/// Picks the next thread and switches to it. Interrupts are off. A preempted thread stays ready whatever it was about to do, and
/// keeps its place unless its time slice was over.
fn reschedule(preempted: bool) {
    let cpu = this_cpu();
    let mut queue = mine().lock();
    cpu.need_resched.store(0, Ordering::SeqCst);
    queue.put_back_current(preempted);
    let next = queue.pick().or_else(|| queue.idle.clone());
    let Some(next) = next else { return };
    queue.account();
    let Some(previous) = queue.current.replace(next.clone()) else { return };
    if Arc::ptr_eq(&previous, &next) {
        return;
    }
    next.switches.fetch_add(1, Ordering::Relaxed);
    SWITCHES[cpu.number()].fetch_add(1, Ordering::Relaxed);
    cpu.current.store(Arc::as_ptr(&next).cast_mut(), Ordering::Relaxed);
    previous.check_stack();
    // The run queue keeps both alive; a reference on this stack would never be dropped if `previous` has ended.
    let (from, to) = (Arc::as_ptr(&previous), Arc::as_ptr(&next));
    drop((previous, next, queue));
    // SAFETY: interrupts are off; `from` runs here, and `to` is this CPU's and does not run.
    unsafe { switch::switch(from, to) };
    finish_switch();
}

/// On the stack of the thread that was switched to: drops the one that has ended, if it did.
fn finish_switch() {
    let dead = mine().lock().dead.take();
    drop(dead);
}

/// Leaves the present thread for good. It has said that it is dead, and interrupts are off.
fn leave() -> ! {
    {
        let mut queue = mine().lock();
        let dead = queue.current.clone();
        queue.tasks.retain(|task| !dead.as_ref().is_some_and(|dead| Arc::ptr_eq(dead, task)));
        queue.dead = dead;
    }
    reschedule(false);
    crate::power::die("a thread that has ended was run")
}

/// The tick, in its interrupt: the time slice of the thread that runs gets shorter.
pub(crate) fn tick() {
    let mut queue = mine().lock();
    let Some(current) = queue.current.clone() else { return };
    if current.slice.fetch_sub(1, Ordering::Relaxed) > 1 {
        return;
    }
    current.slice.store(TIME_SLICE, Ordering::Relaxed);
    if queue.has_ready(current.priority()) {
        queue.slice_is_over = true;
        this_cpu().need_resched.store(1, Ordering::SeqCst);
    }
}

/// What a CPU does when it has nothing to do: sleeps between interrupts.
pub(crate) fn idle_loop() -> ! {
    loop {
        this_cpu().idles.fetch_add(1, Ordering::Relaxed);
        let off = IrqGuard::new();
        // Looked at with interrupts off: a thread that is woken by an interrupt that comes in between must not be slept on.
        if mine().lock().has_ready(Priority::Idle) {
            reschedule(false);
        } else {
            enable_and_halt();
        }
        drop(off);
        crate::sync::enable_interrupts();
    }
}

/// The thread with this number.
pub fn find_task(pid: u32) -> Option<Arc<Task>> {
    RUN_QUEUES.iter().find_map(|queue| queue.lock().tasks.iter().find(|task| task.pid == pid).cloned())
}

/// Shows all threads of a CPU.
pub fn for_each_task(cpu: usize, mut look: impl FnMut(&Task)) {
    let tasks = RUN_QUEUES[cpu].lock().tasks.clone();
    tasks.iter().for_each(|task| look(task));
}
