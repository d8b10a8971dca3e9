use super::*;

const NO_POST: fn(usize) -> bool = |_| false;

/// No device can wake anybody.
fn asleep() -> bool {
    false
}

#[test]
fn the_last_one_to_rest_finds_out() {
    let rest = Rest::new(3);
    assert!(!rest.begin(1, asleep, NO_POST));
    assert!(!rest.begin(0, asleep, NO_POST));
    assert!(rest.begin(2, asleep, NO_POST));
}

#[test]
fn one_that_wakes_does_not_count() {
    let rest = Rest::new(2);
    assert!(!rest.begin(0, asleep, NO_POST));
    rest.end(0);
    assert!(!rest.begin(1, asleep, NO_POST));
    assert!(rest.begin(0, asleep, NO_POST));
}

/// vCPU 1 sends vCPU 0 a start-up and halts before vCPU 0 has woken: the guest is not at its end.
#[test]
fn post_on_its_way_is_no_end() {
    let rest = Rest::new(2);
    assert!(!rest.begin(0, asleep, NO_POST));
    assert!(!rest.begin(1, asleep, |index| index == 0));
    rest.end(0);
    assert!(rest.begin(0, asleep, NO_POST), "it has found nothing that keeps it awake");
}

/// One that fires between the two looks has posted before it is found with nothing left to send.
#[test]
fn devices_are_looked_at_before_the_mailboxes() {
    let rest = Rest::new(1);
    let posted = std::cell::Cell::new(false);
    let fires_now = || {
        posted.set(true);
        false
    };
    assert!(!rest.begin(0, fires_now, |_| posted.get()));
    assert!(!rest.begin(0, || true, NO_POST), "a device can still wake it");
    assert!(rest.begin(0, asleep, NO_POST));
}

/// vCPU 0 has looked at the devices before vCPU 1 has set one up: who rests last looks again.
#[test]
fn only_the_last_one_to_rest_asks_the_devices() {
    let rest = Rest::new(2);
    assert!(!rest.begin(0, || unreachable!("vCPU 1 runs"), NO_POST));
    assert!(!rest.begin(1, || true, NO_POST));
}
