use std::sync::mpsc;
use std::thread;

use super::*;

struct Slot(AtomicU8);

impl KickTarget for Slot {
    fn immediate_exit(&self) -> &AtomicU8 {
        &self.0
    }
}

fn slot() -> Arc<Slot> {
    Arc::new(Slot(AtomicU8::new(0)))
}

#[test]
fn a_kick_sets_the_byte_of_its_thread_and_no_other() {
    let (mine, other) = (slot(), slot());
    let _registration = register(mine.clone()).unwrap();
    let (ready, wait_ready) = mpsc::channel();
    let (stop, wait_stop) = mpsc::channel::<()>();
    let their_slot = other.clone();
    let thread = thread::spawn(move || {
        let _registration = register(their_slot).unwrap();
        ready.send(()).unwrap();
        let _ = wait_stop.recv();
    });
    wait_ready.recv().unwrap();
    // A signal a thread sends itself is delivered before the call returns.
    assert!(ThreadId::current().signal().unwrap());
    assert_eq!(mine.0.load(Ordering::SeqCst), KICKED);
    assert_eq!(other.0.load(Ordering::SeqCst), 0);
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn a_kick_from_another_thread_arrives() {
    let mine = slot();
    let _registration = register(mine.clone()).unwrap();
    let me = ThreadId::current();
    thread::spawn(move || me.signal().unwrap()).join().unwrap();
    while mine.0.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(mine.0.load(Ordering::SeqCst), KICKED);
}

#[test]
fn after_unregistering_a_kick_touches_nothing_and_the_holder_is_let_go() {
    let mine = slot();
    drop(register(mine.clone()).unwrap());
    assert_eq!(Arc::strong_count(&mine), 1);
    assert!(ThreadId::current().signal().unwrap());
    assert_eq!(mine.0.load(Ordering::SeqCst), 0);
}

#[test]
fn a_second_registration_on_a_thread_is_refused_and_the_first_stays() {
    let (first, second) = (slot(), slot());
    let _registration = register(first.clone()).unwrap();
    let refused = register(second.clone()).map(drop);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    ThreadId::current().signal().unwrap();
    assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (KICKED, 0));
}

#[test]
fn a_blocked_kick_waits_until_unblocked() {
    let mine = slot();
    let _registration = register(mine.clone()).unwrap();
    block().unwrap();
    ThreadId::current().signal().unwrap();
    assert_eq!(mine.0.load(Ordering::SeqCst), 0);
    unblock().unwrap();
    assert_eq!(mine.0.load(Ordering::SeqCst), KICKED);
}

#[test]
fn kicking_a_thread_that_has_ended_is_no_error() {
    let gone = thread::spawn(ThreadId::current).join().unwrap();
    // The join may return a moment before the kernel has dropped the thread.
    while gone.signal().unwrap() {
        thread::yield_now();
    }
    assert!(!gone.signal().unwrap());
}
