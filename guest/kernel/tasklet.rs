//! Tasklets: functions made at run time that run once, soon, in a softirq.
//!
//! Scheduling one that is scheduled already does nothing: the activations merge. It runs on the CPU that scheduled it, and never on two
//! CPUs at once: one that finds it running elsewhere puts it back on its list. A disabled tasklet stays on its list
//! until it is enabled. There are two priorities, which are two softirqs.
//!
//! To read more: Linux, kernel/softirq.c (tasklet_action_common), include/linux/interrupt.h.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arch::percpu::{MAX_CPUS, this_cpu};
use crate::irq::entry;
use crate::sched;
use crate::softirq::{self, Kind};
use crate::sync::{IrqLock, without_interrupts};

/// It is on a list.
const SCHEDULED: u32 = 1;
/// Its function runs.
const RUNNING: u32 = 2;

/// A tasklet. It lives for ever, as its list may hold it.
pub struct Tasklet {
    function: fn(usize),
    argument: usize,
    state: AtomicU32,
    disabled: AtomicU32,
    /// How often it ran.
    pub runs: AtomicU64,
}

type List = IrqLock<VecDeque<&'static Tasklet>>;
static NORMAL: [List; MAX_CPUS] = [const { IrqLock::new(VecDeque::new()) }; MAX_CPUS];
static HIGH: [List; MAX_CPUS] = [const { IrqLock::new(VecDeque::new()) }; MAX_CPUS];

/// Tasklets that each CPU has run: of high priority, and others.
static RUNS: [[AtomicU64; MAX_CPUS]; 2] = [const { [const { AtomicU64::new(0) }; MAX_CPUS] }; 2];

fn runs(cpu: usize, kind: Kind) -> &'static AtomicU64 {
    &RUNS[usize::from(kind == Kind::Hi)][cpu]
}

/// How many tasklets of a priority a CPU has run.
pub fn runs_on(cpu: usize, kind: Kind) -> u64 {
    runs(cpu, kind).load(Ordering::Relaxed)
}

/// Opens the two softirqs.
pub(crate) fn init() {
    softirq::open(Kind::Hi, Some(|| action(Kind::Hi)));
    softirq::open(Kind::Tasklet, Some(|| action(Kind::Tasklet)));
}

fn list(kind: Kind) -> &'static List {
    let lists = if kind == Kind::Hi { &HIGH } else { &NORMAL };
    &lists[this_cpu().number()]
}

impl Tasklet {
    /// One that calls `function(argument)`.
    pub const fn new(function: fn(usize), argument: usize) -> Self {
        let [state, disabled] = [const { AtomicU32::new(0) }; 2];
        Self { function, argument, state, disabled, runs: AtomicU64::new(0) }
    }

    /// Schedules it on this CPU; false if it is scheduled already.
    pub fn schedule(&'static self) -> bool {
        self.schedule_as(Kind::Tasklet)
    }

    /// As [`Tasklet::schedule`], before those of normal priority.
    pub fn schedule_high(&'static self) -> bool {
        self.schedule_as(Kind::Hi)
    }

    fn schedule_as(&'static self, kind: Kind) -> bool {
        if self.state.fetch_or(SCHEDULED, Ordering::AcqRel) & SCHEDULED != 0 {
            return false;
        }
        without_interrupts(|| list(kind).lock().push_back(self));
        softirq::raise(kind);
        true
    }

    /// It waits to be run.
    pub fn is_scheduled(&self) -> bool {
        self.state.load(Ordering::Acquire) & SCHEDULED != 0
    }

    /// Keeps it from running once more, without waiting for its end.
    pub fn disable_nosync(&self) {
        self.disabled.fetch_add(1, Ordering::AcqRel);
    }

    /// Keeps it from running once more; when this returns it does not run. Not to be called from itself.
    pub fn disable(&self) {
        self.disable_nosync();
        while self.state.load(Ordering::Acquire) & RUNNING != 0 {
            core::hint::spin_loop();
        }
    }

    /// Takes back one disabling; it runs if it was scheduled meanwhile.
    pub fn enable(&self) {
        self.disabled.fetch_sub(1, Ordering::AcqRel);
    }

    /// Waits until it has run, if it is scheduled, and does not run any more. Interrupts are on; nobody schedules it again meanwhile, and it
    /// is enabled.
    pub fn kill(&self) {
        entry::might_sleep();
        sched::wait_until(|| self.state.load(Ordering::Acquire) == 0);
    }
}

/// Runs this CPU's list once.
fn action(kind: Kind) {
    let waiting = core::mem::take(&mut *list(kind).lock());
    for tasklet in waiting {
        let mine = tasklet.state.fetch_or(RUNNING, Ordering::AcqRel) & RUNNING == 0;
        if mine {
            if tasklet.disabled.load(Ordering::Acquire) == 0 {
                // First, so that it can be scheduled again while it runs.
                tasklet.state.fetch_and(!SCHEDULED, Ordering::AcqRel);
                tasklet.runs.fetch_add(1, Ordering::Relaxed);
                runs(this_cpu().number(), kind).fetch_add(1, Ordering::Relaxed);
                (tasklet.function)(tasklet.argument);
                tasklet.state.fetch_and(!RUNNING, Ordering::AcqRel);
                continue;
            }
            tasklet.state.fetch_and(!RUNNING, Ordering::AcqRel);
        }
        list(kind).lock().push_back(tasklet);
        softirq::raise(kind);
    }
}
