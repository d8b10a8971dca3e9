use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use super::*;
use crate::futex::{self, Wait};

struct Slot(AtomicU8);

impl kick::KickTarget for Slot {
    fn immediate_exit(&self) -> &AtomicU8 {
        &self.0
    }
}

fn slot() -> Arc<Slot> {
    Arc::new(Slot(AtomicU8::new(0)))
}

fn wait_for_kick(slot: &Slot) {
    while slot.0.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
}

#[test]
fn an_expiry_kicks_the_thread_that_made_the_timer() {
    let mine = slot();
    let _registration = kick::register(mine.clone()).unwrap();
    let timer = ThreadTimer::new().unwrap();
    let at = clock::monotonic_ns() + 1_000_000;
    timer.arm(at).unwrap();
    wait_for_kick(&mine);
    assert!(clock::monotonic_ns() >= at, "never before the deadline");
}

#[test]
fn a_deadline_in_the_past_fires_at_once() {
    let mine = slot();
    let _registration = kick::register(mine.clone()).unwrap();
    let timer = ThreadTimer::new().unwrap();
    for past in [0, 1, clock::monotonic_ns()] {
        mine.0.store(0, Ordering::SeqCst);
        timer.arm(past).unwrap();
        wait_for_kick(&mine);
    }
}

#[test]
fn rearming_replaces_and_disarming_takes_the_deadline_away() {
    let mine = slot();
    let _registration = kick::register(mine.clone()).unwrap();
    let (far, witness) = (ThreadTimer::new().unwrap(), ThreadTimer::new().unwrap());
    let now = clock::monotonic_ns();
    far.arm(now + 2_000_000).unwrap();
    far.disarm().unwrap();
    far.arm(u64::MAX).unwrap();
    // The witness fires after the replaced deadline; by then only its own kick may have come.
    witness.arm(now + 4_000_000).unwrap();
    wait_for_kick(&mine);
    assert!(clock::monotonic_ns() >= now + 4_000_000);
}

#[test]
fn an_expiry_ends_a_futex_wait() {
    let timer = ThreadTimer::new().unwrap();
    let word = std::sync::atomic::AtomicU32::new(0);
    // The kick may land before the wait begins, so it is sent until a wait has seen it.
    loop {
        timer.arm(clock::monotonic_ns() + 500_000).unwrap();
        match futex::wait(&word, 0, Some(clock::monotonic_ns() + 50_000_000)) {
            Wait::Interrupted => break,
            other => assert_eq!(other, Wait::TimedOut),
        }
    }
}

#[test]
fn slack_can_be_set() {
    thread::spawn(|| {
        set_timer_slack(1).unwrap();
        let slack = std::fs::read_to_string("/proc/thread-self/timerslack_ns").unwrap_or_else(|_| "1".into());
        assert_eq!(slack.trim(), "1");
    })
    .join()
    .unwrap();
}
