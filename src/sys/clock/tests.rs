use super::*;

#[test]
fn monotonic_never_goes_back() {
    let mut last = monotonic_ns();
    assert_ne!(last, 0);
    for _ in 0..1000 {
        let now = monotonic_ns();
        assert!(now >= last);
        last = now;
    }
}

#[test]
fn tsc_advances() {
    let first = rdtsc();
    let second = (0..1_000_000).map(|_| rdtsc()).find(|&t| t > first);
    assert!(second.is_some());
}

#[test]
fn time_of_day_is_after_this_was_written() {
    let (secs, nanos) = realtime();
    assert!(secs > 1_700_000_000);
    assert!(nanos < 1_000_000_000);
}

#[test]
fn absolute_times_split_into_seconds_and_nanoseconds() {
    let time = timespec(3_000_000_007);
    assert_eq!((time.tv_sec, time.tv_nsec), (3, 7));
    let far = timespec(u64::MAX);
    assert!(far.tv_sec > 0 && far.tv_nsec < 1_000_000_000);
}
