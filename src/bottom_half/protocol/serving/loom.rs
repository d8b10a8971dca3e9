//! Models of who serves a CPU's softirqs: nothing raised is left behind, never two at once.

use ::loom::sync::Arc;
use ::loom::thread;

use super::super::strength::without;
use super::*;

struct Cpu {
    serving: Serving,
    /// Written before a raise.
    data: AtomicU32,
    /// Changed by whoever serves, in two steps.
    inside: AtomicU32,
}

impl Cpu {
    fn new() -> Arc<Self> {
        Arc::new(Self { serving: Serving::default(), data: AtomicU32::new(0), inside: AtomicU32::new(0) })
    }

    /// Takes and runs once; what was taken.
    fn round(&self) -> u32 {
        let inside = self.inside.load(Ordering::Relaxed);
        self.inside.store(inside + 1, Ordering::Relaxed);
        let taken = self.serving.take();
        if taken & 2 != 0 {
            assert_eq!(self.data.load(Ordering::Relaxed), 1, "raised before it was written");
        }
        taken
    }

    /// As on leaving the top half; what was run, and how many rounds.
    fn leave(&self) -> (u32, u32) {
        let (mut ran, mut rounds) = (0, 0);
        while self.serving.pending() != 0 && self.serving.try_serve() {
            ran |= self.round();
            rounds += 1;
            self.serving.release();
        }
        (ran, rounds)
    }

    /// The softirq thread, from when it is woken until it sleeps.
    fn thread(&self) -> (u32, u32) {
        let (mut ran, mut rounds) = (0, 0);
        loop {
            ran |= self.round();
            rounds += 1;
            match self.serving.release_by_thread() {
                Left::More => {}
                Left::Nothing | Left::ToOwner => return (ran, rounds),
            }
        }
    }
}

/// The owner hands over, and raises again while the thread finishes.
fn a_raise_while_the_thread_finishes() {
    ::loom::model(|| {
        let cpu = Cpu::new();
        assert_eq!(cpu.serving.raise(1), 0);
        assert!(cpu.serving.try_serve());
        cpu.serving.hand_over();
        let softirq = thread::spawn({
            let cpu = cpu.clone();
            move || cpu.thread()
        });
        cpu.data.store(1, Ordering::Relaxed);
        let _ = cpu.serving.raise(2);
        let (here, rounds_here) = cpu.leave();
        let (there, rounds_there) = softirq.join().unwrap();
        assert_eq!(here | there, 3, "raised and left behind");
        assert_eq!(cpu.inside.load(Ordering::Relaxed), rounds_here + rounds_there, "two served at once");
    });
}

/// Another thread raises; it wakes the owner if it turned the word from 0.
fn a_raise_from_elsewhere() {
    ::loom::model(|| {
        let cpu = Cpu::new();
        let raiser = thread::spawn({
            let cpu = cpu.clone();
            move || {
                cpu.data.store(1, Ordering::Relaxed);
                cpu.serving.raise(2) == 0
            }
        });
        let _ = cpu.serving.raise(1);
        let mut ran = cpu.leave().0;
        if raiser.join().unwrap() {
            ran |= cpu.leave().0;
        }
        assert_eq!(ran, 3, "left behind, and nobody was woken");
    });
}

#[test]
fn serving_leaves_nothing_behind() {
    a_raise_while_the_thread_finishes();
}

#[test]
fn serving_without_the_owners_fence_leaves_something_behind() {
    without(Part::OwnerFence, a_raise_while_the_thread_finishes);
}

#[test]
fn serving_without_the_threads_fence_leaves_something_behind() {
    without(Part::ThreadFence, a_raise_while_the_thread_finishes);
}

#[test]
fn serving_without_release_of_the_place_has_two_at_once() {
    without(Part::Release, a_raise_while_the_thread_finishes);
}

#[test]
fn serving_without_acquire_of_the_place_has_two_at_once() {
    without(Part::Serve, a_raise_while_the_thread_finishes);
}

#[test]
fn serving_wakes_the_owner() {
    a_raise_from_elsewhere();
}

#[test]
fn serving_without_release_by_the_raiser_runs_too_early() {
    without(Part::Raise, a_raise_from_elsewhere);
}

#[test]
fn serving_without_acquire_by_the_server_runs_too_early() {
    without(Part::Take, a_raise_from_elsewhere);
}

#[test]
fn serving_gives_the_place_to_an_owner_that_wants_it() {
    ::loom::model(|| {
        let cpu = Cpu::new();
        assert!(cpu.serving.try_serve());
        cpu.serving.hand_over();
        let softirq = thread::spawn({
            let cpu = cpu.clone();
            move || cpu.serving.release_by_thread()
        });
        let free = cpu.serving.want();
        let left = softirq.join().unwrap();
        assert_eq!(left == Left::ToOwner, !free, "the owner waits, and nobody wakes it");
        assert!(cpu.serving.try_serve());
    });
}
