//! Waiting for work items, from outside and from within.
//!
//! Who flushes a queue waits for the items that were queued before, and for no others. An item may flush its own queue: it does not
//! wait for itself, nor for another one that is doing the same; and it runs by itself, in their order, those that have not begun,
//! because in an ordered queue nobody else could before it ends.
//!
//! To read more: Linux, kernel/workqueue.c (__flush_workqueue).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::pool::{self, Pool};
use super::{Inner, Item, Queue, Work};
use crate::sched;
use crate::sync::IrqLock;

/// An item that some thread is running.
struct Running {
    pid: u32,
    queue: usize,
    number: u64,
    work: usize,
}

static RUNNING: IrqLock<Vec<Running>> = IrqLock::new(Vec::new());

fn address<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of) as usize
}

fn pid() -> Option<u32> {
    sched::this_task().map(|task| task.pid)
}

/// Runs the function of an item; until it ends, the present thread is known to be at it.
pub(super) fn with_item(item: &Item, function: impl FnOnce()) {
    let Some(pid) = pid() else { return };
    let (queue, work) = (address(&item.queue), address(&item.work));
    RUNNING.lock().push(Running { pid, queue, number: item.number, work });
    function();
    RUNNING.lock().retain(|running| running.queue != queue || running.number != item.number);
}

/// Numbers and works of the items of a queue that the present thread is at.
fn own(queue: &Arc<Queue>) -> Vec<(u64, usize)> {
    let (pid, queue) = (pid(), address(queue));
    let running = RUNNING.lock();
    let own = running.iter().filter(|running| Some(running.pid) == pid && running.queue == queue);
    own.map(|running| (running.number, running.work)).collect()
}

/// The present thread runs an item of this queue.
pub(super) fn is_own(queue: &Arc<Queue>) -> bool {
    let (pid, queue) = (pid(), address(queue));
    RUNNING.lock().iter().any(|running| Some(running.pid) == pid && running.queue == queue)
}

/// Waits until what was queued before has ended.
pub(super) fn queue(queue: &Arc<Queue>) {
    let own = own(queue);
    let target = queue.inner.lock().next_number;
    if own.is_empty() {
        queue.progress.wait_event(|| !queue.inner.lock().unfinished.iter().any(|item| item.number < target));
        return;
    }
    set_flushes(queue, &own, true);
    while let Some((pool, item)) = take_next(queue, target) {
        pool.run(item);
    }
    let mine = |work: usize| own.iter().any(|(_, own)| *own == work);
    queue.progress.wait_event(|| {
        let inner = queue.inner.lock();
        !inner.unfinished.iter().any(|item| item.number < target && !item.flushes && !mine(item.work))
    });
    set_flushes(queue, &own, false);
}

fn set_flushes(queue: &Arc<Queue>, own: &[(u64, usize)], flushes: bool) {
    let mut inner = queue.inner.lock();
    let is_own = |number| own.iter().any(|(own, _)| *own == number);
    inner.unfinished.iter_mut().filter(|item| is_own(item.number)).for_each(|item| item.flushes = flushes);
    drop(inner);
    queue.progress.wake_up_all();
}

/// The next item of the queue that has not begun and whose work does not run, claimed for the present thread.
fn take_next(queue: &Arc<Queue>, target: u64) -> Option<(&'static Pool, Item)> {
    let claimed = pool::all().find_map(|pool| {
        let item = pool.claim(|item| Arc::ptr_eq(&item.queue, queue) && item.number < target)?;
        Some((pool, item))
    });
    claimed.or_else(|| {
        let pool = pool::of(queue.cpu, queue.is_high());
        let mut inner = queue.inner.lock();
        let next = inner.later.front().filter(|item| item.number < target)?;
        if !pool.claim_work(&next.work) {
            return None;
        }
        inner.later.pop_front().map(|item| (pool, item))
    })
}

/// Takes back an item that has not begun.
pub(super) fn take(work: &Arc<Work>) -> Option<Item> {
    let is_it = |item: &Item| Arc::ptr_eq(&item.work, work);
    // It may move from its queue to a pool between the two looks.
    (0..2).find_map(|_| {
        let queue = work.place.lock().queue.clone()?;
        let later = |inner: &mut Inner| {
            let at = inner.later.iter().position(is_it)?;
            inner.later.remove(at)
        };
        let waiting = later(&mut queue.inner.lock());
        waiting.or_else(|| pool::all().find_map(|pool| pool.take(is_it)))
    })
}
