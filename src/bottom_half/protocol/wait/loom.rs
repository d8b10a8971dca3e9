//! Models of a word to wait on: no wake-up is lost (loom finds a waiter that nobody wakes).

use ::loom::sync::Arc;
use ::loom::thread;

use super::super::strength::without;
use super::*;

fn the_condition_is_seen() {
    ::loom::model(|| {
        let shared = Arc::new((WaitWord::default(), AtomicU32::new(0)));
        let waker = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.1.store(1, Ordering::Relaxed);
                shared.0.wake_all();
            }
        });
        loop {
            let seen = shared.0.value();
            if shared.1.load(Ordering::Relaxed) == 1 {
                break;
            }
            let _ = shared.0.wait(seen, None);
        }
        waker.join().unwrap();
    });
}

#[test]
fn wait_is_never_forgotten() {
    the_condition_is_seen();
}

/// A waiter that has read the changed word must find the condition true: it would sleep with nobody left to wake it.
fn a_changed_word_shows_the_condition() {
    ::loom::model(|| {
        let shared = Arc::new((WaitWord::default(), AtomicU32::new(0)));
        let before = shared.0.value();
        let waker = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.1.store(1, Ordering::Relaxed);
                shared.0.wake_all();
            }
        });
        if shared.0.value() != before {
            assert_eq!(shared.1.load(Ordering::Relaxed), 1, "it would sleep for ever");
        }
        waker.join().unwrap();
    });
}

#[test]
fn wait_word_shows_the_condition() {
    a_changed_word_shows_the_condition();
}

#[test]
fn wait_without_release_sleeps_for_ever() {
    without(Part::Wake, a_changed_word_shows_the_condition);
}

#[test]
fn wait_without_acquire_sleeps_for_ever() {
    without(Part::Wait, a_changed_word_shows_the_condition);
}
