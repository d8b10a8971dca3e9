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

#[test]
fn the_coarse_clock_is_the_same_clock_a_little_earlier() {
    let coarse = monotonic_coarse_ns();
    assert!(coarse != 0 && coarse <= monotonic_ns());
}

#[test]
fn cpu_time_grows_with_work_and_is_the_threads_own() {
    let before = thread_cpu_ns();
    let mut sum = 0_u64;
    while thread_cpu_ns() < before + 100_000 {
        sum = std::hint::black_box(sum + 1);
    }
    assert!(sum > 0);
    let other = std::thread::spawn(thread_cpu_ns).join().unwrap();
    assert!(other < thread_cpu_ns(), "a new thread has hardly run");
}
