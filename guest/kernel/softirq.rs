//! Softirqs: the part of interrupt handling that can wait a little, done with interrupts on.
//!
//! There are ten kinds in a fixed order ([`Kind`]). A top half **raises** one: sets its bit on its own CPU, no more. On the way out of
//! the last nested interrupt the CPU runs what is raised, the lowest number first, on a stack of its own with interrupts on. What is
//! raised meanwhile gets another round, at most ten: then the rest is left to a thread of low priority (**ksoftirqd**), or a
//! flood of interrupts would leave no time for anything else.
//!
//! A kind may run on several CPUs at once; on one CPU it never runs within itself. Code can keep softirqs off its CPU
//! ([`BhGuard`], nesting); what was raised meanwhile runs when the last such guard ends.
//!
//! To read more: Linux, kernel/softirq.c, Documentation/kernel-hacking/hacking.rst, "Software Interrupt Context".

use alloc::format;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use x86_64::instructions::interrupts;

use crate::accounting;
use crate::arch::frame::Frame;
use crate::arch::percpu::{self, MAX_CPUS, this_cpu};
use crate::arch::stack;
use crate::console::Line;
use crate::irq::entry;
use crate::sched::wait_queue::WaitQueue;
use crate::sched::{self, Priority, preempt, task};
use crate::sync::without_interrupts;

/// The kinds, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Tasklets of high priority.
    Hi,
    /// The timer wheel.
    Timer,
    /// Network, sending.
    NetTx,
    /// Network, receiving.
    NetRx,
    /// Block devices.
    Block,
    /// Polling of block devices.
    IrqPoll,
    /// Tasklets.
    Tasklet,
    /// Balancing of run queues.
    Sched,
    /// High-resolution timers.
    HrTimer,
    /// Read-copy-update.
    Rcu,
}

impl Kind {
    /// All of them in their order.
    pub const ALL: [Self; NR] = [
        Self::Hi,
        Self::Timer,
        Self::NetTx,
        Self::NetRx,
        Self::Block,
        Self::IrqPoll,
        Self::Tasklet,
        Self::Sched,
        Self::HrTimer,
        Self::Rcu,
    ];

    /// Its name in the table of softirqs.
    pub fn name(self) -> &'static str {
        ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"][self as usize]
    }
}

/// How many kinds there are.
pub const NR: usize = 10;
/// So many rounds on the way out of one interrupt.
pub const MAX_ROUNDS: u32 = 10;

/// What a kind does; runs with interrupts on and must not wait.
pub type Action = fn();

static ACTIONS: [AtomicPtr<()>; NR] = [const { AtomicPtr::new(core::ptr::null_mut()) }; NR];

/// A CPU's softirqs.
struct Softirqs {
    /// Raised: a bit each.
    pending: AtomicU32,
    /// How many times they are kept off.
    disabled: AtomicU32,
    /// They are being run.
    running: AtomicBool,
    /// The rounds were not enough: it is the thread's turn.
    handed_over: AtomicBool,
    /// How often they were handed over.
    hand_overs: AtomicU64,
    /// The thread waits here.
    thread: WaitQueue,
    counts: [AtomicU64; NR],
}

static CPUS: [Softirqs; MAX_CPUS] = [const {
    Softirqs {
        pending: AtomicU32::new(0),
        disabled: AtomicU32::new(0),
        running: AtomicBool::new(false),
        handed_over: AtomicBool::new(false),
        hand_overs: AtomicU64::new(0),
        thread: WaitQueue::new(),
        counts: [const { AtomicU64::new(0) }; NR],
    }
}; MAX_CPUS];

fn mine() -> &'static Softirqs {
    &CPUS[this_cpu().number()]
}

/// Hooks softirqs into the way out of interrupts.
pub(crate) fn init() {
    entry::set_softirq_hook(irq_exit);
}

/// Says what a kind does, for all CPUs; gives what it did.
pub fn open(kind: Kind, action: Option<Action>) -> Option<Action> {
    let new = action.map_or(core::ptr::null_mut(), |action| action as *mut ());
    from_pointer(ACTIONS[kind as usize].swap(new, Ordering::AcqRel))
}

fn from_pointer(pointer: *mut ()) -> Option<Action> {
    // SAFETY: what is not null was stored from an Action.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Action>(pointer) })
}

/// Raises a kind on this CPU. From an interrupt it runs on the way out; from elsewhere soon: at once if nothing keeps softirqs off.
pub fn raise(kind: Kind) {
    mine().pending.fetch_or(1 << kind as u8, Ordering::Relaxed);
    if !entry::in_hardirq() && interrupts::are_enabled() {
        run_if_possible();
    }
}

/// What is raised on this CPU, a bit each.
pub fn pending() -> u32 {
    mine().pending.load(Ordering::Relaxed)
}

/// This is a softirq, or code that keeps them off.
pub fn in_softirq() -> bool {
    is_running() || mine().disabled.load(Ordering::Relaxed) > 0
}

/// This is a softirq, or an interrupt of one.
pub fn is_running() -> bool {
    mine().running.load(Ordering::Relaxed)
}

/// The thread has something to do on this CPU.
fn is_handed_over() -> bool {
    mine().handed_over.load(Ordering::Relaxed)
}

/// How often a kind has run on a CPU.
pub fn count_on(cpu: usize, kind: Kind) -> u64 {
    CPUS.get(cpu).map_or(0, |cpu| cpu.counts[kind as usize].load(Ordering::Relaxed))
}

/// How often a CPU has left softirqs to its thread.
pub fn hand_overs_on(cpu: usize) -> u64 {
    CPUS.get(cpu).map_or(0, |cpu| cpu.hand_overs.load(Ordering::Relaxed))
}

/// The way out of an interrupt.
fn irq_exit(_: &mut Frame) {
    let cpu = mine();
    if !cpu.handed_over.load(Ordering::Relaxed) {
        run(cpu);
    }
}

/// Runs what is raised; interrupts are off, and so afterwards.
fn run(cpu: &'static Softirqs) {
    let free = cpu.disabled.load(Ordering::Relaxed) == 0 && !cpu.running.load(Ordering::Relaxed);
    if free && cpu.pending.load(Ordering::Relaxed) != 0 {
        cpu.running.store(true, Ordering::Relaxed);
        stack::call_on_softirq_stack(rounds, 0);
        cpu.running.store(false, Ordering::Relaxed);
    }
}

/// On the softirq stack.
extern "C" fn rounds(_: u64) {
    let cpu = mine();
    for _ in 0..MAX_ROUNDS {
        let pending = cpu.pending.swap(0, Ordering::Relaxed);
        if pending == 0 {
            return;
        }
        interrupts::enable();
        for kind in Kind::ALL.into_iter().filter(|kind| pending & 1 << *kind as u8 != 0) {
            cpu.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
            if let Some(action) = from_pointer(ACTIONS[kind as usize].load(Ordering::Acquire)) {
                action();
            }
        }
        interrupts::disable();
    }
    if cpu.pending.load(Ordering::Relaxed) != 0 {
        cpu.handed_over.store(true, Ordering::Relaxed);
        cpu.hand_overs.fetch_add(1, Ordering::Relaxed);
        cpu.thread.wake_up();
    }
}

fn run_if_possible() {
    let cpu = mine();
    without_interrupts(|| {
        if !cpu.handed_over.load(Ordering::Relaxed) {
            run(cpu);
        }
    });
    preempt::check();
}

/// Starts the thread of a CPU.
pub(crate) fn start_thread(cpu: usize) {
    task::kthread_run(&format!("ksoftirqd/{cpu}"), cpu, Priority::Low, || ksoftirqd());
}

/// What the thread does.
fn ksoftirqd() -> ! {
    let cpu = mine();
    loop {
        cpu.thread.wait_event(is_handed_over);
        run_handed_over();
        sched::yield_now();
    }
}

/// One turn with what was handed over: ten rounds more; true if there was something. By the thread, or by who waits for it.
/// Interrupts are on.
pub fn run_handed_over() -> bool {
    let cpu = mine();
    without_interrupts(|| {
        let handed_over = cpu.handed_over.swap(false, Ordering::Relaxed);
        if handed_over {
            run(cpu);
        }
        handed_over
    })
}

/// Softirqs stay off this CPU while this lives (local_bh_disable).
pub struct BhGuard(());

impl BhGuard {
    /// Keeps them off once more.
    pub fn new() -> Self {
        mine().disabled.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Default for BhGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BhGuard {
    /// The last one lets run what was raised meanwhile, unless this is an interrupt, or interrupts are off: then the way out does.
    fn drop(&mut self) {
        let last = mine().disabled.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && !entry::in_hardirq() && interrupts::are_enabled() {
            run_if_possible();
        }
    }
}

/// Writes the table, in the form of /proc/softirqs, to `out`.
pub fn show_softirqs(mut out: impl FnMut(&str)) {
    out(accounting::percpu_heading().as_str());
    for kind in Kind::ALL {
        let mut line = Line::new();
        // Line never fails.
        let _ = write!(line, "{:>11}:", kind.name());
        for cpu in percpu::cpus() {
            let _ = write!(line, " {:>10}", count_on(cpu.number(), kind));
        }
        out(line.as_str());
    }
}
