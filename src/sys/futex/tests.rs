use std::thread;

use super::*;

#[test]
fn a_word_that_has_changed_is_not_waited_on() {
    let word = AtomicU32::new(1);
    assert_eq!(wait(&word, 0, None), Wait::Changed);
}

#[test]
fn a_past_deadline_times_out_at_once() {
    let word = AtomicU32::new(0);
    assert_eq!(wait(&word, 0, Some(0)), Wait::TimedOut);
    assert_eq!(wait(&word, 0, Some(clock::monotonic_ns())), Wait::TimedOut);
}

#[test]
fn a_wait_does_not_time_out_before_its_deadline() {
    let word = AtomicU32::new(0);
    let deadline = clock::monotonic_ns() + 2_000_000;
    while wait(&word, 0, Some(deadline)) != Wait::TimedOut {}
    assert!(clock::monotonic_ns() >= deadline);
}

#[test]
fn wake_counts_sleepers_and_ends_their_wait() {
    let word = AtomicU32::new(0);
    assert_eq!(wake(&word, 1), 0);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| wait(&word, 0, None));
        // The word never changes, so the sleeper can only be asleep or not there yet.
        let woken = loop {
            match wake(&word, u32::MAX) {
                0 => thread::yield_now(),
                n => break n,
            }
        };
        assert_eq!((woken, sleeper.join().unwrap()), (1, Wait::Woken));
    });
}
