//! Wait queues: threads that wait until something is true.
//!
//! A waiter puts itself on the queue, **then** looks at its condition, and only then gives the CPU away. Whoever makes the
//! condition true does that first and wakes afterwards. So no wake-up is lost: it either comes before the look, which then finds
//! the condition true, or after the waiter is on the queue, which makes it ready again.
//!
//! Waiters that only one of them can be served (**exclusive**) stand behind the others; a wake-up takes all that are not exclusive,
//! and one that is. Else all would run only to find that another one was faster (the thundering herd).
//!
//! To read more: Linux, kernel/sched/wait.c; Bovet and Cesati, "Understanding the Linux Kernel", "How Processes Are Organized".

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::{Task, current, preempt, schedule, sleep, wake_without_preemption};
use crate::irq::entry;
use crate::sync::IrqLock;

/// One that waits.
struct Waiter {
    task: Arc<Task>,
    exclusive: bool,
}

/// Threads that wait for the same.
pub struct WaitQueue(IrqLock<VecDeque<Waiter>>);

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(IrqLock::new(VecDeque::new()))
    }

    /// Waits until the condition holds.
    pub fn wait_event(&self, condition: impl Fn() -> bool) {
        self.wait(false, condition, || false);
    }

    /// As [`WaitQueue::wait_event`], as one of those of whom a wake-up takes only one.
    pub fn wait_event_exclusive(&self, condition: impl Fn() -> bool) {
        self.wait(true, condition, || false);
    }

    /// Waits until the condition holds, or so many jiffies are over; true if it holds. The tick must be running.
    pub fn wait_event_timeout(&self, condition: impl Fn() -> bool, jiffies: u64) -> bool {
        let alarm = sleep::Alarm::set(jiffies);
        self.wait(false, &condition, || alarm.rang());
        condition()
    }

    fn wait(&self, exclusive: bool, condition: impl Fn() -> bool, give_up: impl Fn() -> bool) {
        entry::might_sleep();
        if condition() {
            return;
        }
        let Some(task) = current() else { return };
        loop {
            self.prepare_to_wait(&task, exclusive);
            if condition() || give_up() {
                break;
            }
            schedule();
        }
        sleep::cancel(&task);
        self.0.lock().retain(|waiter| !Arc::ptr_eq(&waiter.task, &task));
    }

    /// On the queue first, then no longer ready: who wakes the queue wakes this one from now on.
    fn prepare_to_wait(&self, task: &Arc<Task>, exclusive: bool) {
        let mut waiters = self.0.lock();
        if !waiters.iter().any(|waiter| Arc::ptr_eq(&waiter.task, task)) {
            let waiter = Waiter { task: task.clone(), exclusive };
            if exclusive { waiters.push_back(waiter) } else { waiters.push_front(waiter) }
        }
        sleep::prepare(task);
    }

    /// Wakes all that are not exclusive, and one that is.
    pub fn wake_up(&self) {
        self.wake(1);
    }

    /// Wakes all.
    pub fn wake_up_all(&self) {
        self.wake(usize::MAX);
    }

    fn wake(&self, mut exclusive: usize) {
        let mut waiters = self.0.lock();
        waiters.retain(|waiter| {
            if waiter.exclusive && exclusive == 0 {
                return true;
            }
            // One that is awake already was woken by somebody else, and still has to look.
            if wake_without_preemption(&waiter.task) && waiter.exclusive {
                exclusive -= 1;
            }
            false
        });
        drop(waiters);
        preempt::check();
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}
