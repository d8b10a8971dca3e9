//! Models of an item's state: activations merge, and none is lost.

use ::loom::sync::{Arc, Mutex};
use ::loom::thread;

use super::super::strength::without;
use super::*;

/// An item, its list of one place, and what its callers wrote before they queued it.
struct Item {
    state: ItemState,
    list: Mutex<bool>,
    data: [AtomicU32; 2],
    result: AtomicU32,
}

impl Item {
    fn new() -> Arc<Self> {
        let data = [AtomicU32::new(0), AtomicU32::new(0)];
        Arc::new(Self { state: ItemState::default(), list: Mutex::new(false), data, result: AtomicU32::new(0) })
    }

    fn queue(&self, caller: usize) {
        self.data[caller].store(1, Ordering::Relaxed);
        if let Activation::Mine { .. } = self.state.activate() {
            let was = std::mem::replace(&mut *self.list.lock().unwrap(), true);
            assert!(!was, "on its list twice");
        }
    }

    /// Takes it off the list and runs it: what it sees of each caller.
    fn run_if_listed(&self) -> Option<[u32; 2]> {
        if !std::mem::take(&mut *self.list.lock().unwrap()) {
            return None;
        }
        self.state.start();
        let seen = [0, 1].map(|caller: usize| self.data[caller].load(Ordering::Relaxed));
        self.result.store(1, Ordering::Relaxed);
        self.state.finish();
        Some(seen)
    }
}

fn the_last_run_sees_every_caller() {
    ::loom::model(|| {
        let item = Item::new();
        let callers = [0, 1].map(|caller| {
            let item = item.clone();
            thread::spawn(move || item.queue(caller))
        });
        let mut last = item.run_if_listed().unwrap_or_default();
        for caller in callers {
            caller.join().unwrap();
        }
        if let Some(seen) = item.run_if_listed() {
            last = seen;
        }
        assert_eq!(last, [1, 1], "an activation was merged into a run that did not see it");
        assert!(!item.state.is_pending() && !item.state.is_running());
    });
}

/// Who sees that a run is over sees what it wrote.
fn a_finished_run_is_seen_whole() {
    ::loom::model(|| {
        let item = Item::new();
        item.queue(0);
        let worker = thread::spawn({
            let item = item.clone();
            move || item.run_if_listed()
        });
        if !item.state.is_pending() && !item.state.is_running() {
            assert_eq!(item.result.load(Ordering::Relaxed), 1, "the run is over, but not its writes");
        }
        worker.join().unwrap();
    });
}

#[test]
fn item_loses_no_activation() {
    the_last_run_sees_every_caller();
}

#[test]
fn item_without_release_by_the_caller_loses_its_data() {
    without(Part::ItemActivate, the_last_run_sees_every_caller);
}

#[test]
fn item_without_acquire_by_the_worker_loses_the_callers_data() {
    without(Part::ItemStart, the_last_run_sees_every_caller);
}

#[test]
fn item_end_is_seen_whole() {
    a_finished_run_is_seen_whole();
}

#[test]
fn item_without_release_at_the_end_is_seen_in_part() {
    without(Part::ItemFinish, a_finished_run_is_seen_whole);
}

#[test]
fn item_forbidden_is_not_activated_and_a_buried_one_has_one_undertaker() {
    ::loom::model(|| {
        let item = Item::new();
        let caller = thread::spawn({
            let item = item.clone();
            move || matches!(item.state.activate(), Activation::Mine { .. })
        });
        // True: the caller, who has activated it, buries it; else it can be buried here, and nobody else touches it.
        let left_to_caller = item.state.bury();
        assert_eq!(caller.join().unwrap(), left_to_caller);
        item.state.forbid();
        assert_eq!(item.state.activate(), Activation::Forbidden);
    });
}
