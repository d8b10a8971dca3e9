use std::sync::atomic::AtomicU32;
use std::thread;

use super::*;
use crate::kick::ThreadId;
use crate::timer::ThreadTimer;
use crate::{clock, futex};

/// Runs `body` on a thread that is counted, and gives its counts in the order of [`Call::ALL`].
fn counted(body: impl FnOnce() + Send) -> [u64; Call::ALL.len()] {
    let calls = Arc::new(Calls::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            count_in(Arc::clone(&calls));
            body();
            count_signals();
        });
    });
    Call::ALL.map(|call| calls.get(call))
}

fn expected(counts: &[(Call, u64)]) -> [u64; Call::ALL.len()] {
    Call::ALL.map(|call| counts.iter().find(|(kind, _)| *kind == call).map_or(0, |(_, count)| *count))
}

#[test]
fn the_kinds_are_numbered_in_their_order() {
    for (at, call) in Call::ALL.into_iter().enumerate() {
        assert_eq!(call as usize, at, "{call:?}");
    }
}

#[test]
fn each_wrapper_counts_its_call_on_the_thread_that_makes_it() {
    let counts = counted(|| {
        let word = AtomicU32::new(0);
        futex::wake(&word, 1);
        assert_eq!(futex::wait(&word, 1, None), futex::Wait::Changed);
        let timer = ThreadTimer::new().expect("a timer");
        timer.arm(clock::monotonic_ns() + 3_600_000_000_000).expect("it can be set");
        timer.disarm().expect("it can be stopped");
        // To itself: handled before the call returns.
        ThreadId::current().signal().expect("it is there");
    });
    let all =
        [(Call::FutexWake, 1), (Call::FutexWait, 1), (Call::Timer, 2), (Call::Signal, 1), (Call::SignalReturn, 1)];
    assert_eq!(counts, expected(&all));
}

#[test]
fn a_thread_counts_in_its_first_counters_only_and_others_in_none() {
    made(Call::Run);
    let second = Arc::new(Calls::default());
    let counts = counted(|| {
        count_in(Arc::clone(&second));
        made(Call::Inject);
    });
    assert_eq!(counts, expected(&[(Call::Inject, 1)]));
    assert_eq!(second.get(Call::Inject), 0);
}
