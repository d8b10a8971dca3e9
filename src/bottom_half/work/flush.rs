//! Flushing a queue by colour, and closing it.

use std::sync::Arc;

use super::pool::{Group, Pool};
use super::queue::QueueInner;
use super::state::Flush;
use super::worker::Current;
use crate::context::Process;

impl Group {
    /// See [`WorkQueue::flush`](super::WorkQueue::flush).
    pub(super) fn flush(&self, queue: &Arc<QueueInner>, process: &Process<'_>) {
        let own = own_item(queue, process);
        let _lent = own.map(Lent::new);
        process.block(|| {
            // The same colour ends in all pools before any is waited for.
            let colours: Vec<_> = self.pools.iter().map(|pool| pool.begin_flush(queue.index)).collect();
            for (pool, colour) in self.pools.iter().zip(colours) {
                if let Some(colour) = colour {
                    pool.wait_flushed(queue.index, colour, own.is_some());
                }
            }
        });
    }

    /// Closes the queue in each pool where it is empty, but for the item that asks. True: in all.
    pub(super) fn is_empty_but_for(&self, queue: &Arc<QueueInner>, process: &Process<'_>) -> bool {
        let own = own_item(queue, process);
        self.pools.iter().fold(true, |all, pool| {
            let left = own.filter(|current| Arc::ptr_eq(current.pool, pool)).map_or(0, |_| 1);
            pool.close_if_down_to(queue.index, left) && all
        })
    }
}

fn own_item<'a>(queue: &Arc<QueueInner>, process: &Process<'a>) -> Option<&'a Current<'a>> {
    process.current().filter(|current| Arc::ptr_eq(&current.item_ref().queue, queue))
}

impl Pool {
    fn begin_flush(&self, index: u32) -> Option<u64> {
        loop {
            let seen = self.value();
            let mut state = self.lock();
            let flush = state.queues.get_mut(index).map_or(Flush::Empty, |queue| queue.begin_flush());
            state.watched |= matches!(flush, Flush::NoColour);
            self.release(state);
            match flush {
                Flush::Empty => return None,
                Flush::Until(colour) => return Some(colour),
                Flush::NoColour => self.wait(seen),
            }
        }
    }

    fn wait_flushed(&self, index: u32, colour: u64, by_own_item: bool) {
        loop {
            let seen = self.value();
            let mut state = self.lock();
            let done = state.queues.get_mut(index).is_none_or(|queue| queue.is_flushed(colour, by_own_item));
            state.watched |= !done;
            self.release(state);
            if done {
                return;
            }
            self.wait(seen);
        }
    }

    fn close_if_down_to(&self, index: u32, left: u32) -> bool {
        let mut state = self.lock_for_certain();
        let closed = state.queues.get_mut(index).is_none_or(|queue| {
            queue.closed |= queue.in_flight() + queue.flushing() <= left;
            queue.closed
        });
        self.release(state);
        closed
    }
}

/// An item waits in a flush of its own queue: its place is lent to the next one, and other such items don't wait for it.
struct Lent<'a, 'b>(&'a Current<'b>);

impl<'a, 'b> Lent<'a, 'b> {
    fn new(current: &'a Current<'b>) -> Self {
        let mut state = current.pool.lock();
        if let Some(colour) = current.busy(&mut state, |busy| busy.colour) {
            let index = current.item_ref().queue.index;
            state.queue_of(current.item_ref().id).set_flushing(colour, true);
            state.changed = true;
            state.one_less(index);
        }
        // Whoever flushes goes on to block, which looks for somebody to run the next one.
        current.pool.release(state);
        Self(current)
    }
}

impl Drop for Lent<'_, '_> {
    fn drop(&mut self) {
        let current = self.0;
        let mut state = current.pool.lock();
        if let Some(colour) = current.busy(&mut state, |busy| busy.colour) {
            let queue = state.queue_of(current.item_ref().id);
            queue.set_flushing(colour, false);
            // May be one more than allowed until it ends.
            queue.active += 1;
        }
        current.pool.release(state);
    }
}
