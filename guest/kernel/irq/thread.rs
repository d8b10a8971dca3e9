//! Threads of interrupt handlers: what a handler leaves to do where waiting is allowed.
//!
//! A handler that says [`super::desc::IrqReturn::WakeThread`] has its line masked and this thread woken, which comes before all
//! other threads of its CPU. When it is done the line is free again. All users of a number share one thread.
//!
//! To read more: Linux, kernel/irq/manage.c (irq_thread), Documentation/core-api/genericirq.rst.

use alloc::format;
use alloc::sync::Arc;

use super::desc::{self, NR_IRQS};
use super::manage;
use crate::arch::percpu;
use crate::sched::task::{kthread_run, should_stop};
use crate::sched::wait_queue::WaitQueue;
use crate::sched::{Priority, Task};
use crate::sync::IrqLock;

static THREADS: [IrqLock<Option<Arc<Task>>>; NR_IRQS] = [const { IrqLock::new(None) }; NR_IRQS];
static WAITING: [WaitQueue; NR_IRQS] = [const { WaitQueue::new() }; NR_IRQS];

/// The handler wants its thread. Interrupts are off, and the descriptor is locked.
pub(super) fn wake(irq: u32) {
    if let Some(queue) = WAITING.get(irq as usize) {
        queue.wake_up();
    }
}

/// Makes the thread of a number, on the first CPU that the number may go to, if it has none.
pub(super) fn start(irq: u32, cpus: u32) {
    let Some(slot) = THREADS.get(irq as usize) else { return };
    if slot.lock().is_some() {
        return;
    }
    let cpu = percpu::cpu(cpus.trailing_zeros() as usize).map_or(0, |cpu| cpu.number());
    let task = kthread_run(&format!("irq/{irq}"), cpu, Priority::Interrupt, move || run(irq));
    *slot.lock() = Some(task);
}

/// Ends it.
pub(super) fn stop(irq: u32) {
    let task = THREADS.get(irq as usize).and_then(|slot| slot.lock().take());
    if let Some(task) = task {
        task.stop();
    }
}

fn has_work(irq: u32) -> bool {
    desc::desc(irq).is_some_and(|desc| desc.inner.lock().threads != 0)
}

fn run(irq: u32) -> i32 {
    while !should_stop() {
        WAITING[irq as usize].wait_event(|| should_stop() || has_work(irq));
        // It fails for no number that has a thread.
        let _ = manage::run_threads(irq);
    }
    0
}
