//! Waiting for time to pass.
//!
//! To read more: Linux, kernel/time/sleep_timeout.c (schedule_timeout), kernel/time/hrtimer.c (nanosleep).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{Task, current, schedule, wake};
use crate::time::hrtimer::HrTimer;
use crate::time::timer::Timer;

/// The present thread is about to wait: from here on [`wake`] has an effect on it, and the next [`schedule`] gives the CPU away
/// until then. What it waits for must be looked at in between.
pub fn prepare(task: &Task) {
    task.set_waiting(true);
}

/// It does not wait after all.
pub fn cancel(task: &Task) {
    task.set_waiting(false);
}

/// Wakes the thread that has set it, by the timer wheel; forgotten when dropped.
pub(super) struct Alarm {
    timer: Arc<Timer>,
    rang: Arc<AtomicBool>,
}

impl Alarm {
    /// In so many jiffies.
    pub(super) fn set(jiffies: u64) -> Self {
        let rang = Arc::new(AtomicBool::new(false));
        let (task, flag) = (current(), rang.clone());
        let timer = Timer::new(move || {
            flag.store(true, Ordering::SeqCst);
            if let Some(task) = &task {
                wake(task);
            }
        });
        timer.modify_after(jiffies);
        Self { timer, rang }
    }

    pub(super) fn rang(&self) -> bool {
        self.rang.load(Ordering::SeqCst)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.timer.delete_sync();
    }
}

/// Waits so many jiffies (schedule_timeout). The tick must be running.
pub fn schedule_timeout(jiffies: u64) {
    let alarm = Alarm::set(jiffies);
    wait_for(|| alarm.rang());
}

/// Waits so many nanoseconds, by a high-resolution timer. The tick must be running.
pub fn nanosleep(nanoseconds: u64) {
    let rang = Arc::new(AtomicBool::new(false));
    let (task, flag) = (current(), rang.clone());
    let timer = HrTimer::new(move |_| {
        flag.store(true, Ordering::SeqCst);
        if let Some(task) = &task {
            wake(task);
        }
        None
    });
    timer.start_after(nanoseconds);
    wait_for(|| rang.load(Ordering::SeqCst));
    timer.cancel();
}

fn wait_for(rang: impl Fn() -> bool) {
    let Some(task) = current() else { return };
    loop {
        prepare(&task);
        if rang() {
            break;
        }
        schedule();
    }
    cancel(&task);
}
