use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::join_all;

/// Takes its time to go.
struct Late(Arc<AtomicBool>);

impl Drop for Late {
    fn drop(&mut self) {
        (0..10_000).for_each(|_| thread::yield_now());
        self.0.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

/// Fifty resets left the program one thread's stack larger: a vCPU's thread of the machine before had not yet left its own
/// when the next machine's was made.
///
/// Red when: somebody relies on the scope, which does not wait for what ends with a thread.
#[test]
fn threads_are_over_when_they_are_joined() {
    let over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let late = Late(Arc::clone(&over));
        let thread = scope.spawn(move || LATE.set(Some(late)));
        join_all(vec![thread]);
        assert!(over.load(Ordering::Relaxed));
    });
}

/// Red when: a vCPU's panic is lost.
#[test]
#[should_panic = "of the second"]
fn a_panic_of_one_goes_on_when_all_have_ended() {
    thread::scope(|scope| {
        let threads = ["first", "second", "third"].map(|name| {
            scope.spawn(move || {
                if name == "second" {
                    panic!("of the {name}");
                }
            })
        });
        join_all(Vec::from(threads));
    });
}
