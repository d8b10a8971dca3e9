//! Models of the inbox.

use ::loom::cell::UnsafeCell;
use ::loom::sync::Arc;
use ::loom::thread;

use super::super::strength::without;
use super::*;

/// Entries with something written in them before they are pushed.
struct Entries {
    inbox: Inbox,
    links: [AtomicU32; 2],
    payload: [AtomicU32; 2],
    closed: AtomicU32,
}

impl Entries {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inbox: Inbox::default(),
            links: [AtomicU32::new(0), AtomicU32::new(0)],
            payload: [AtomicU32::new(0), AtomicU32::new(0)],
            closed: AtomicU32::new(0),
        })
    }

    fn push(&self, id: u32) -> Pushed {
        self.payload[id as usize].store(1, Ordering::Relaxed);
        self.inbox.push(id, &self.links[id as usize])
    }

    fn take(&self) -> Vec<u32> {
        let mut taken = Vec::new();
        // Loom does not explore what a plain look alone depends on.
        let mut chain = self.inbox.take_for_certain(|id| &self.links[id as usize]);
        while let Some(id) = chain.next(|id| &self.links[id as usize]) {
            assert_eq!(self.payload[id as usize].load(Ordering::Relaxed), 1, "taken before it was written");
            taken.push(id);
        }
        taken
    }
}

/// Two threads push, a third takes meanwhile and once more at the end.
fn nothing_is_lost_or_taken_twice() {
    ::loom::model(|| {
        let entries = Entries::new();
        let pushers = [0, 1].map(|id| {
            let entries = entries.clone();
            thread::spawn(move || entries.push(id))
        });
        let mut taken = entries.take();
        let pushed = pushers.map(|pusher| pusher.join().unwrap());
        taken.extend(entries.take());
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        assert!(pushed.contains(&Pushed::First), "nobody was first: {pushed:?}");
    });
}

/// The taker sleeps when it may; whoever is told to wake it does.
fn a_sleeping_taker_is_woken() {
    ::loom::model(|| {
        let entries = Entries::new();
        let pushers = [0, 1].map(|id| {
            let entries = entries.clone();
            thread::spawn(move || entries.push(id))
        });
        let mut taken = entries.take();
        let asleep = entries.inbox.ask();
        let wakes = pushers.map(|pusher| pusher.join().unwrap()).iter().filter(|p| **p == Pushed::Wake).count();
        let left = entries.take();
        taken.extend(left.iter());
        assert_eq!(taken.len(), 2);
        assert_eq!(wakes, usize::from(asleep && !left.is_empty()), "asleep {asleep}, left {left:?}");
    });
}

/// Who takes for certain and finds nothing is seen by whoever pushes later.
fn a_late_push_sees_what_the_taker_did_before() {
    ::loom::model(|| {
        let entries = Entries::new();
        let pusher = thread::spawn({
            let entries = entries.clone();
            move || {
                let _ = entries.push(0);
                entries.closed.load(Ordering::Relaxed)
            }
        });
        entries.closed.store(1, Ordering::Relaxed);
        let mut chain = entries.inbox.take_for_certain(|id| &entries.links[id as usize]);
        let found = chain.next(|id| &entries.links[id as usize]).is_some();
        let saw_closed = pusher.join().unwrap();
        assert!(found || saw_closed == 1, "neither saw the other");
    });
}

/// The links belong to one side at a time.
#[test]
fn links_are_owned_by_one_side() {
    ::loom::model(|| {
        let shared = Arc::new((Entries::new(), UnsafeCell::new(0)));
        let pusher = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.1.with_mut(|_| ());
                let _ = shared.0.push(0);
            }
        });
        if shared.0.take() == [0] {
            shared.1.with(|_| ());
        }
        pusher.join().unwrap();
    });
}

#[test]
fn inbox_loses_nothing() {
    nothing_is_lost_or_taken_twice();
}

#[test]
fn inbox_without_release_gives_entries_unwritten() {
    without(Part::InboxPush, nothing_is_lost_or_taken_twice);
}

#[test]
fn inbox_without_acquire_gives_entries_unwritten() {
    without(Part::InboxTake, nothing_is_lost_or_taken_twice);
}

#[test]
fn inbox_wakes_its_taker_exactly_once() {
    a_sleeping_taker_is_woken();
}

#[test]
fn inbox_is_closed_for_certain() {
    a_late_push_sees_what_the_taker_did_before();
}

#[test]
fn inbox_with_a_plain_look_is_not_closed() {
    without(Part::InboxCertain, a_late_push_sees_what_the_taker_did_before);
}
