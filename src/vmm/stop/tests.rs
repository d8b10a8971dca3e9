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

#[test]
fn a_crash_kernel_at_work_is_no_reason_to_stop() {
    let doorbell = Doorbell::new().expect("an eventfd");
    let stopper = Stopper::new(Arc::clone(&doorbell));
    for _ in 0..3 {
        stopper.request(MachineEvent::CrashLoaded);
    }
    assert!(!stopper.is_stopped() && !doorbell.take().contains(Request::Stop));
    stopper.request(MachineEvent::Panicked);
    assert!(matches!(stopper.take_reason(), StopReason::GuestPanic));
}

#[test]
fn a_watchdog_that_expires_does_what_the_user_wants() {
    let expired = |action: &str| {
        let doorbell = Doorbell::new().expect("an eventfd");
        let stopper = Stopper::with_watchdog(Arc::clone(&doorbell), action.parse().expect("an action"));
        stopper.request(MachineEvent::WatchdogExpired);
        let dumped = doorbell.take().contains(Request::Dump);
        (stopper.is_stopped().then(|| stopper.take_reason()), dumped)
    };
    assert!(matches!(expired("reset"), (Some(StopReason::Reset), false)));
    assert!(matches!(expired("poweroff"), (Some(StopReason::PowerOff), false)));
    assert!(matches!(expired("dump"), (None, true)));
    assert!(matches!(expired("none"), (None, false)));
    let refused = "bark".parse::<WatchdogAction>();
    assert!(
        matches!(&refused, Err(Error::Usage(line)) if line.contains("reset, poweroff, dump or none")),
        "{refused:?}"
    );
}

/// A guest can let it expire as often as it likes.
#[test]
fn a_watchdog_that_expires_over_and_over_does_not_flood_the_log() {
    let doorbell = Doorbell::new().expect("an eventfd");
    let stopper = Stopper::with_watchdog(Arc::clone(&doorbell), WatchdogAction::Dump);
    let dumps = (0..100).filter(|_| {
        stopper.request(MachineEvent::WatchdogExpired);
        doorbell.take().contains(Request::Dump)
    });
    assert_eq!(dumps.count(), WATCHDOG_NOTES as usize);
}
