use super::*;

#[test]
fn short_halts_make_the_window_grow_to_the_longest() {
    let mut poll = HaltPoll::new(2, 2);
    assert_eq!(poll.window(), 0, "nothing is known yet");
    let mut windows = Vec::new();
    for _ in 0..8 {
        poll.halted_for(LONGEST);
        windows.push(poll.window());
    }
    assert_eq!(windows, [5_000, 10_000, 20_000, 40_000, 80_000, 100_000, 100_000, 100_000]);
}

#[test]
fn a_window_that_was_long_enough_stays() {
    let mut poll = HaltPoll::new(1, 8);
    poll.halted_for(9_000);
    poll.halted_for(9_000);
    assert_eq!(poll.window(), 10_000);
    for after in [0, 1, 9_999, 10_000] {
        poll.halted_for(after);
        assert_eq!(poll.window(), 10_000);
    }
}

#[test]
fn one_long_halt_ends_the_polling() {
    let mut poll = HaltPoll::new(2, 2);
    (0..5).for_each(|_| poll.halted_for(50_000));
    assert_ne!(poll.window(), 0);
    poll.halted_for(LONGEST + 1);
    assert_eq!(poll.window(), 0);
    poll.halted_for(u64::MAX);
    assert_eq!(poll.window(), 0);
}

#[test]
fn nobody_polls_where_vcpus_outnumber_processors() {
    let mut poll = HaltPoll::new(3, 2);
    for after in [0, 1, 4_999, 50_000, LONGEST, u64::MAX] {
        poll.halted_for(after);
        assert_eq!(poll.window(), 0);
    }
}
