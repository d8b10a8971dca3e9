//! What a pool's lock protects: the lists of items, who works, and per queue what is in flight.

use std::sync::Arc;

use super::Item;
use crate::protocol::park::Parker;
use crate::table::{Links, List, Table};

/// Colours of items: how many flushes of a queue can be under way before the next one must wait for the first.
pub(super) const COLOURS: usize = 16;

/// Where a pending item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On no list.
    Nowhere,
    /// For the next worker.
    Ready,
    /// Until its queue may have one more active.
    Inactive,
    /// Until the same item's run, on another worker, is over.
    Deferred,
}

/// An item as its pool knows it.
pub(super) struct Slot {
    pub(super) item: Arc<Item>,
    pub(super) place: Place,
    /// Of the pending activation.
    pub(super) colour: u8,
    /// The last activation came too late: the queue is closed.
    pub(super) refused: bool,
    pub(super) started: u32,
    pub(super) ended: u32,
}

/// A queue as one of its pools knows it.
pub(super) struct QueueState {
    /// Items that are ready, deferred or running.
    pub(super) active: u32,
    pub(super) max_active: u32,
    pub(super) inactive: List,
    /// The colour of what is queued now: counts up, of which the last four bits tell the colours apart.
    pub(super) colour: u64,
    oldest: u64,
    /// Items pending or running, by colour.
    in_flight: [u32; COLOURS],
    /// Items that wait in a flush of their own queue, by colour.
    flushing: [u32; COLOURS],
    /// Destroyed.
    pub(super) closed: bool,
    /// Activations that made an item pending, and runs.
    pub(super) queued: u64,
    pub(super) run: u64,
}

impl QueueState {
    pub(super) fn new(max_active: u32) -> Self {
        Self {
            active: 0,
            max_active,
            inactive: List::default(),
            colour: 0,
            oldest: 0,
            in_flight: [0; COLOURS],
            flushing: [0; COLOURS],
            closed: false,
            queued: 0,
            run: 0,
        }
    }

    /// A new item of this queue: its colour.
    pub(super) fn arrive(&mut self) -> u8 {
        self.queued += 1;
        let colour = (self.colour % COLOURS as u64) as u8;
        self.in_flight[usize::from(colour)] += 1;
        colour
    }

    pub(super) fn leave(&mut self, colour: u8) {
        self.in_flight[usize::from(colour)] -= 1;
    }

    /// An item waits in a flush of its own queue, or does no longer.
    pub(super) fn set_flushing(&mut self, colour: u8, flushing: bool) {
        let colour = usize::from(colour);
        let (from, to) = match flushing {
            true => (&mut self.in_flight, &mut self.flushing),
            false => (&mut self.flushing, &mut self.in_flight),
        };
        from[colour] -= 1;
        to[colour] += 1;
    }

    /// Items of all colours, without those that wait in a flush of their own queue.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.iter().sum()
    }

    /// Items of all colours that wait in a flush of their own queue.
    pub(super) fn flushing(&self) -> u32 {
        self.flushing.iter().sum()
    }

    /// Starts a flush: what is queued later has another colour.
    pub(super) fn begin_flush(&mut self) -> Flush {
        self.forget_old();
        if self.in_flight() == 0 && self.flushing == [0; COLOURS] {
            return Flush::Empty;
        }
        if self.colour + 1 - self.oldest >= COLOURS as u64 {
            return Flush::NoColour;
        }
        self.colour += 1;
        Flush::Until(self.colour - 1)
    }

    /// Whether all items up to `colour` are done. An item of the queue does not wait for those that flush it, too.
    pub(super) fn is_flushed(&mut self, colour: u64, by_own_item: bool) -> bool {
        self.forget_old();
        (self.oldest..=colour).all(|colour| {
            let at = (colour % COLOURS as u64) as usize;
            self.in_flight[at] == 0 && (by_own_item || self.flushing[at] == 0)
        })
    }

    fn forget_old(&mut self) {
        let done = |at: u64| {
            let at = (at % COLOURS as u64) as usize;
            self.in_flight[at] == 0 && self.flushing[at] == 0
        };
        while self.oldest < self.colour && done(self.oldest) {
            self.oldest += 1;
        }
    }
}

/// What [`QueueState::begin_flush`] found.
pub(super) enum Flush {
    /// Nothing to wait for.
    Empty,
    /// Too many flushes are under way: wait, and try again.
    NoColour,
    /// Wait for this colour.
    Until(u64),
}

/// A worker as its pool knows it.
pub(super) struct WorkerEntry {
    pub(super) busy: Option<Busy>,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    pub(super) id: u32,
    pub(super) colour: u8,
    /// It is in [`Process::block`](crate::Process::block).
    pub(super) blocked: bool,
    /// The watchdog has reported it, and it no longer counts as running.
    pub(super) hogging: bool,
    /// Looks of the watchdog that have found it.
    pub(super) looks: u32,
}

/// All of it.
#[derive(Default)]
pub(super) struct State {
    /// By number; numbers are the group's.
    pub(super) slots: Vec<Option<Slot>>,
    pub(super) links: Links,
    pub(super) ready: List,
    pub(super) queues: Table<QueueState>,
    pub(super) workers: Table<WorkerEntry>,
    /// Those that sleep; the last one to sleep is the first to be woken.
    pub(super) idle: Vec<Arc<Parker>>,
    /// Workers in an item that is not blocked.
    pub(super) running: u32,
    /// Workers that were woken and have not got here.
    pub(super) waking: u32,
    /// A worker's thread is being made.
    pub(super) starting: bool,
    /// The rescuer has been called.
    pub(super) mayday: bool,
    /// Somebody waits for items to be done.
    pub(super) watched: bool,
    /// Something is done that they may wait for.
    pub(super) changed: bool,
    pub(super) stopping: bool,
    /// Items whose handle has gone, to be dropped when the lock is.
    pub(super) dead: Vec<Arc<Item>>,
}

impl State {
    pub(super) fn slot(&mut self, id: u32) -> &mut Slot {
        self.slots[id as usize].as_mut().unwrap_or_else(|| panic!("a listed item is in no slot"))
    }

    pub(super) fn queue_of(&mut self, id: u32) -> &mut QueueState {
        let index = self.slot(id).item.queue.index;
        self.queues.get_mut(index).unwrap_or_else(|| panic!("an item's queue is in no slot"))
    }

    /// An item has come out of the inbox.
    pub(super) fn enlist(&mut self, id: u32) {
        let state = &self.slot(id).item.state;
        if state.is_dead() {
            return self.withdraw(id);
        }
        if self.stopping || self.queue_of(id).closed {
            self.slot(id).refused = true;
            return self.withdraw(id);
        }
        // Who flushes an item that was about to be pushed waits for this.
        self.changed |= self.watched;
        let queue = self.queue_of(id);
        let colour = queue.arrive();
        let may_start = queue.active < queue.max_active;
        self.slot(id).colour = colour;
        self.place(id, may_start);
    }

    /// Its activation is over without a run.
    pub(super) fn withdraw(&mut self, id: u32) {
        let slot = self.slot(id);
        slot.place = Place::Nowhere;
        slot.item.state.withdraw();
        if slot.item.state.is_dead() && !slot.item.state.is_running() {
            let item = Arc::clone(&slot.item);
            self.dead.push(item);
        }
    }

    fn place(&mut self, id: u32, may_start: bool) {
        if may_start {
            self.queue_of(id).active += 1;
            self.slot(id).place = Place::Ready;
            self.links.push(&mut self.ready, id);
        } else {
            self.slot(id).place = Place::Inactive;
            let index = self.slot(id).item.queue.index;
            if let Some(queue) = self.queues.get_mut(index) {
                self.links.push(&mut queue.inactive, id);
            }
        }
    }

    /// One of the queue of item `id` is no longer active: the next one may start.
    pub(super) fn one_less(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index) else { return };
        queue.active -= 1;
        self.start_inactive(index);
    }

    pub(super) fn start_inactive(&mut self, index: u32) {
        while let Some(queue) = self.queues.get_mut(index)
            && queue.active < queue.max_active
            && let Some(next) = self.links.pop(&mut queue.inactive)
        {
            self.place(next, true);
        }
    }

    /// Takes a pending item off its list. False: it is on none.
    pub(super) fn cancel(&mut self, id: u32) -> bool {
        let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) else { return false };
        let (place, colour, index) = (slot.place, slot.colour, slot.item.queue.index);
        match place {
            Place::Nowhere => return false,
            Place::Ready => self.links.remove(&mut self.ready, id),
            Place::Inactive => {
                if let Some(queue) = self.queues.get_mut(index) {
                    self.links.remove(&mut queue.inactive, id);
                }
            }
            Place::Deferred => {}
        }
        self.changed = true;
        self.queue_of(id).leave(colour);
        if place != Place::Inactive {
            self.one_less(index);
        }
        self.slot(id).item.queue.counters.cancelled.add(1);
        self.withdraw(id);
        true
    }

    /// The next item to run, off its list and running; deferred ones are passed over.
    pub(super) fn start_next(&mut self) -> Option<(Arc<Item>, u8)> {
        loop {
            let id = self.links.pop(&mut self.ready)?;
            let slot = self.slot(id);
            if slot.item.state.is_running() {
                slot.place = Place::Deferred;
                continue;
            }
            slot.place = Place::Nowhere;
            slot.started = slot.started.wrapping_add(1);
            slot.item.state.start();
            let next = (Arc::clone(&slot.item), slot.colour);
            self.queue_of(id).run += 1;
            return Some(next);
        }
    }

    /// The run of an item is over.
    pub(super) fn finish(&mut self, id: u32, colour: u8) {
        self.changed = true;
        self.queue_of(id).leave(colour);
        let slot = self.slot(id);
        slot.ended = slot.ended.wrapping_add(1);
        slot.item.state.finish();
        let index = slot.item.queue.index;
        if slot.place == Place::Deferred {
            slot.place = Place::Ready;
            self.links.push(&mut self.ready, id);
        } else if slot.item.state.is_dead() && !slot.item.state.is_pending() {
            let item = Arc::clone(&slot.item);
            self.dead.push(item);
        }
        self.one_less(index);
    }
}
