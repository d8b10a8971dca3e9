//! Models of parking: it ends once it is unparked, and what was written before is seen.

use ::loom::sync::Arc;
use ::loom::thread;

use super::super::strength::without;
use super::*;

fn parking_ends_and_sees_why() {
    ::loom::model(|| {
        let shared = Arc::new((Parker::default(), AtomicU32::new(0)));
        let other = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.1.store(1, Ordering::Relaxed);
                shared.0.unpark();
            }
        });
        shared.0.park();
        assert_eq!(shared.1.load(Ordering::Relaxed), 1, "unparked, and it does not see why");
        other.join().unwrap();
    });
}

#[test]
fn park_ends() {
    parking_ends_and_sees_why();
}

#[test]
fn park_without_release_does_not_see_why() {
    without(Part::Unpark, parking_ends_and_sees_why);
}

#[test]
fn park_without_acquire_does_not_see_why() {
    without(Part::Park, parking_ends_and_sees_why);
}
