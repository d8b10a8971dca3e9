//! Work that is queued some jiffies from now: a timer of the wheel queues it.
//!
//! To read more: Linux, include/linux/workqueue.h (queue_delayed_work_on, mod_delayed_work).

use alloc::sync::Arc;

use super::{Queue, Work, WorkQueue, cancel, cancel_sync, flush_work};
use crate::arch::percpu::this_cpu;
use crate::sync::IrqLock;
use crate::time::timer::Timer;

/// Where the item goes when its time has come: a queue, and a CPU or any.
type Target = (Arc<Queue>, Option<usize>);

/// An item with a timer.
pub struct DelayedWork {
    work: Arc<Work>,
    timer: Arc<Timer>,
    target: Arc<IrqLock<Option<Target>>>,
}

impl DelayedWork {
    /// One that calls `function`, which may wait. The timer is this CPU's.
    pub fn new(function: impl Fn() + Send + Sync + 'static) -> Self {
        let work = Work::new(function);
        let target = Arc::new(IrqLock::new(None::<Target>));
        let (item, place) = (work.clone(), target.clone());
        let timer = Timer::new(move || {
            let target = place.lock().take();
            if let Some((queue, cpu)) = target {
                queue.queue_on(cpu.unwrap_or_else(|| this_cpu().number()), &item);
            }
        });
        Self { work, timer, target }
    }

    /// The item.
    pub fn work(&self) -> &Arc<Work> {
        &self.work
    }

    /// It waits for its time, or is queued.
    pub fn is_pending(&self) -> bool {
        self.target.lock().is_some() || self.work.is_pending()
    }

    /// Queues it in so many jiffies, on a CPU or on any; false if it is pending already.
    pub fn queue(&self, queue: &WorkQueue, cpu: Option<usize>, jiffies: u64) -> bool {
        let mut target = self.target.lock();
        if target.is_some() || self.work.is_pending() {
            return false;
        }
        *target = Some((queue.0.clone(), cpu));
        drop(target);
        self.timer.modify_after(jiffies);
        true
    }

    /// Queues it in so many jiffies, whether it is pending or not; true if it was.
    pub fn modify(&self, queue: &WorkQueue, cpu: Option<usize>, jiffies: u64) -> bool {
        let was_pending = self.cancel();
        self.queue(queue, cpu, jiffies);
        was_pending
    }

    /// Takes it back if it has not begun; true if so.
    pub fn cancel(&self) -> bool {
        let waited = self.target.lock().take().is_some();
        self.timer.delete();
        waited || cancel(&self.work)
    }

    /// The same; when this returns it does not run. Not to be called from itself.
    pub fn cancel_sync(&self) -> bool {
        let waited = self.target.lock().take().is_some();
        self.timer.delete_sync();
        cancel_sync(&self.work) || waited
    }

    /// Queues it at once if it waits for its time, and waits for its end.
    pub fn flush(&self) {
        let target = self.target.lock().take();
        self.timer.delete();
        if let Some((queue, cpu)) = target {
            queue.queue_on(cpu.unwrap_or_else(|| this_cpu().number()), &self.work);
        }
        flush_work(&self.work);
    }
}
