//! The mailbox in one thread; `loom.rs` has what threads can do to it.

use x86::apic::TriggerMode::{Edge, Level};

use super::*;

fn take(mailbox: &Mailbox) -> (Vec<(usize, u64, u64)>, Events) {
    let mut requests = Vec::new();
    let events = mailbox.take(|word, edge, level| requests.push((word, edge, level)));
    (requests, events)
}

fn events(mailbox: &Mailbox) -> Events {
    let (requests, events) = take(mailbox);
    assert_eq!(requests, []);
    events
}

/// An application processor's mailbox.
fn waiting() -> Mailbox {
    let mailbox = Mailbox::default();
    mailbox.wait_for_start_up();
    mailbox
}

#[test]
fn every_vector_and_trigger_mode_has_its_own_bit() {
    for vector in 0..=255 {
        for trigger in [Edge, Level] {
            let mailbox = Mailbox::default();
            assert!(mailbox.post(vector, trigger));
            assert!(mailbox.is_pending());
            let bit = 1 << (vector % 64);
            let (edge, level) = if trigger == Edge { (bit, 0) } else { (0, bit) };
            assert_eq!(take(&mailbox), (vec![(usize::from(vector) / 64, edge, level)], Events::default()));
            assert!(!mailbox.is_pending());
        }
    }
}

#[test]
fn only_the_first_post_owes_a_wake_up() {
    let mailbox = waiting();
    assert!(mailbox.post(0x31, Edge));
    assert!(!mailbox.post(0x31, Edge));
    assert!(!mailbox.post(0x31, Level));
    assert!(!mailbox.post(0x99, Edge));
    assert!(!mailbox.post_nmi());
    assert!(!mailbox.post_smi());
    assert!(!mailbox.post_extint());
    assert!(!mailbox.post_attention());
    assert!(!mailbox.post_deferred());
    assert!(!mailbox.post_lint0(true));
    assert!(!mailbox.post_init());
    assert!(!mailbox.post_start_up(7));
    let (requests, events) = take(&mailbox);
    assert_eq!(requests, [(0, 1 << 0x31, 1 << 0x31), (2, 1 << 0x19, 0)]);
    let all = Events {
        nmis: 1,
        smi: true,
        init: true,
        start_up: Some(7),
        extint: true,
        lint0: Some(Lint0 { level: true, rose: true }),
        attention: true,
        deferred: true,
    };
    assert_eq!(events, all);
    assert_eq!(take(&mailbox), (vec![], Events::default()));
    assert!(mailbox.post_nmi(), "after that the next one owes again");
}

#[test]
fn each_kind_of_event_owes_a_wake_up_and_comes_alone() {
    let none = Events::default();
    let high = Some(Lint0 { level: true, rose: true });
    for (post, expected) in [
        (Mailbox::post_nmi as fn(&Mailbox) -> bool, Events { nmis: 1, ..none }),
        (Mailbox::post_smi, Events { smi: true, ..none }),
        (Mailbox::post_extint, Events { extint: true, ..none }),
        (Mailbox::post_attention, Events { attention: true, ..none }),
        (Mailbox::post_deferred, Events { deferred: true, ..none }),
        (Mailbox::post_init, Events { init: true, ..none }),
        (|mailbox| mailbox.post_lint0(true), Events { lint0: high, ..none }),
        (|mailbox| mailbox.post_start_up(9), Events { start_up: Some(9), ..none }),
    ] {
        let mailbox = waiting();
        assert!(post(&mailbox));
        assert_eq!(events(&mailbox), expected);
        assert_eq!(events(&mailbox), none);
    }
}

#[test]
fn of_nmis_that_nobody_has_taken_two_are_kept() {
    let mailbox = Mailbox::default();
    for (posted, kept) in [(1, 1), (2, 2), (3, 2), (7, 2)] {
        let owed = (0..posted).filter(|_| mailbox.post_nmi()).count();
        assert_eq!((owed, events(&mailbox).nmis), (1, kept), "{posted} posted");
        assert_eq!(events(&mailbox).nmis, 0);
    }
}

#[test]
fn a_start_up_that_nobody_waits_for_is_ignored() {
    let bootstrap = Mailbox::default();
    assert!(!bootstrap.post_start_up(7));
    assert!(bootstrap.post_init());
    assert!(!bootstrap.post_start_up(7), "the bootstrap processor goes to its reset vector instead");
    assert_eq!(events(&bootstrap), Events { init: true, ..Events::default() });
    assert!(!bootstrap.post_start_up(7));
    assert!(!bootstrap.is_pending());

    let running = waiting();
    assert!(running.post_start_up(7));
    assert_eq!(events(&running).start_up, Some(7));
    assert!(!running.post_start_up(8), "it runs: the second start-up of the usual two");
    assert!(!running.is_pending());
}

#[test]
fn of_several_start_ups_the_first_counts() {
    let mailbox = waiting();
    assert!(mailbox.post_start_up(7));
    assert!(!mailbox.post_start_up(8));
    assert_eq!(events(&mailbox).start_up, Some(7));
}

#[test]
fn a_start_up_behind_an_init_is_latched_until_both_are_taken() {
    let mailbox = waiting();
    let _ = mailbox.post_start_up(7);
    let _ = events(&mailbox);
    assert!(mailbox.post_init());
    assert!(!mailbox.post_start_up(8));
    assert_eq!(events(&mailbox), Events { init: true, start_up: Some(8), ..Events::default() });
    assert!(!mailbox.post_start_up(9), "it runs");
}

#[test]
fn an_init_alone_leaves_an_application_processor_waiting() {
    let mailbox = waiting();
    let _ = mailbox.post_start_up(7);
    let _ = events(&mailbox);
    let _ = mailbox.post_init();
    assert!(events(&mailbox).init);
    // The owner has not moved since: a start-up that comes now must find the door open.
    assert!(mailbox.post_start_up(8));
    assert_eq!(events(&mailbox), Events { start_up: Some(8), ..Events::default() });
}

#[test]
fn init_undoes_a_start_up_that_nobody_has_taken() {
    let mailbox = waiting();
    let _ = mailbox.post_start_up(7);
    let _ = mailbox.post_init();
    assert_eq!(events(&mailbox), Events { init: true, ..Events::default() });
    let _ = mailbox.post_start_up(7);
    let _ = mailbox.post_init();
    let _ = mailbox.post_start_up(8);
    assert_eq!(events(&mailbox), Events { init: true, start_up: Some(8), ..Events::default() });
}

#[test]
fn other_events_leave_a_waiting_processor_waiting() {
    let mailbox = waiting();
    let _ = mailbox.post_nmi();
    let _ = mailbox.post(0x31, Edge);
    let _ = take(&mailbox);
    let _ = mailbox.post_init();
    let _ = take(&mailbox);
    assert!(mailbox.post_start_up(7));
}

#[test]
fn every_start_up_vector_gets_through() {
    for vector in 0..=255 {
        let mailbox = waiting();
        let _ = mailbox.post_start_up(vector);
        assert_eq!(events(&mailbox).start_up, Some(vector));
    }
}

#[test]
fn lint0_tells_its_level_and_whether_it_rose_since() {
    let mailbox = Mailbox::default();
    let pin = |level, rose| Some(Lint0 { level, rose });
    assert!(mailbox.post_lint0(true));
    assert_eq!(events(&mailbox).lint0, pin(true, true));
    assert!(mailbox.post_lint0(false));
    assert_eq!(events(&mailbox).lint0, pin(false, false));
    assert!(mailbox.post_lint0(true));
    assert!(!mailbox.post_lint0(false));
    assert_eq!(events(&mailbox).lint0, pin(false, true), "a short pulse");
    assert!(mailbox.post_lint0(true));
    let _ = events(&mailbox);
    assert!(mailbox.post_lint0(false));
    assert!(!mailbox.post_lint0(true));
    assert_eq!(events(&mailbox).lint0, pin(true, true), "a short gap");
    assert_eq!(events(&mailbox).lint0, None, "no news");
}

#[test]
fn a_lint0_level_that_is_there_already_is_no_news() {
    let mailbox = Mailbox::default();
    assert!(!mailbox.post_lint0(false));
    assert!(!mailbox.is_pending());
    let _ = mailbox.post_lint0(true);
    let _ = events(&mailbox);
    assert!(!mailbox.post_lint0(true));
    assert!(!mailbox.is_pending(), "no second edge is made of it");
}

#[test]
fn an_owner_outside_needs_no_wake_up() {
    let mailbox = Mailbox::default();
    assert!(mailbox.post(0x31, Edge));
    assert_eq!(mailbox.wake(), Wake::Nobody);
    assert!(!mailbox.enter_guest(), "it looks before it goes anywhere");
    assert!(!mailbox.halt());
    let _ = take(&mailbox);
    assert!(mailbox.enter_guest());
    mailbox.leave();
    assert!(mailbox.post(0x31, Edge));
    assert_eq!(mailbox.wake(), Wake::Nobody, "it has left");
}

#[test]
fn an_owner_that_was_refused_is_outside_again() {
    let mailbox = Mailbox::default();
    let _ = mailbox.post(0x31, Edge);
    assert!(!mailbox.enter_guest());
    assert_eq!(mailbox.wake(), Wake::Nobody);
    assert!(!mailbox.halt());
    assert_eq!(mailbox.wake(), Wake::Nobody);
}

#[test]
fn an_owner_in_the_guest_needs_a_signal() {
    let mailbox = Mailbox::default();
    assert!(mailbox.enter_guest());
    assert!(mailbox.post(0x31, Edge));
    assert_eq!(mailbox.wake(), Wake::Signal);
    assert!(!mailbox.post(0x32, Edge), "one signal is enough");
}

#[test]
fn a_sleeping_owner_is_woken_by_its_futex_once() {
    let mailbox = Mailbox::default();
    assert!(mailbox.halt());
    let (word, asleep) = mailbox.futex();
    assert_eq!(word.load(Ordering::Relaxed), asleep, "it would sleep");
    assert!(mailbox.post(0x31, Edge));
    assert_eq!(mailbox.wake(), Wake::Futex);
    assert_ne!(word.load(Ordering::Relaxed), asleep, "it would not, should it only be about to");
    assert_eq!(mailbox.wake(), Wake::Nobody);
}

#[test]
fn the_priority_is_what_was_published_last() {
    let mailbox = Mailbox::default();
    assert_eq!(mailbox.priority(), 0);
    mailbox.publish_priority(0x5a);
    mailbox.publish_priority(0x40);
    assert_eq!(mailbox.priority(), 0x40);
}
