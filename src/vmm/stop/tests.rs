use std::thread;

use super::*;

#[test]
fn the_first_reason_wins_and_wakes_the_main_loop() {
    let doorbell = Doorbell::new().expect("an eventfd");
    let stopper = Stopper::new(Arc::clone(&doorbell));
    assert!(!stopper.is_stopped());
    stopper.request(MachineEvent::DebugExit(7));
    assert!(stopper.is_stopped());
    assert!(doorbell.take().contains(Request::Stop));
    stopper.request(MachineEvent::PowerOff);
    stopper.stop(StopReason::Panic);
    assert!(!doorbell.take().contains(Request::Stop), "what follows from the end is no news");
    assert!(matches!(stopper.take_reason(), StopReason::DebugExit(7)));
}

#[test]
fn a_later_reason_does_not_fill_the_place_of_one_that_was_taken() {
    let stopper = Stopper::new(Doorbell::new().expect("an eventfd"));
    stopper.request(MachineEvent::Reset);
    assert!(matches!(stopper.take_reason(), StopReason::Reset));
    stopper.request(MachineEvent::PowerOff);
    assert!(!matches!(stopper.take_reason(), StopReason::PowerOff));
}

#[test]
fn of_several_threads_one_gives_the_reason() {
    for _ in 0..100 {
        let stopper = Stopper::new(Doorbell::new().expect("an eventfd"));
        thread::scope(|scope| {
            for value in 0..4 {
                let stopper = &stopper;
                scope.spawn(move || {
                    stopper.stop(StopReason::DebugExit(value));
                    assert!(stopper.is_stopped());
                });
            }
        });
        assert!(matches!(stopper.take_reason(), StopReason::DebugExit(0..4)));
    }
}
