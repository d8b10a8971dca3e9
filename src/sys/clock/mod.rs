//! Clocks: the monotonic clock that all deadlines are in, the time of day for the RTC, and the host's TSC.

#[cfg(test)]
mod tests;

/// CLOCK_MONOTONIC in nanoseconds since some point before the program started. Never goes back.
pub fn monotonic_ns() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC);
    seconds(&time) * 1_000_000_000 + nanos(&time)
}

/// CLOCK_MONOTONIC_COARSE: the same clock as of the kernel's last tick (a few ms ago at most), for a fraction of the cost.
pub fn monotonic_coarse_ns() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC_COARSE);
    seconds(&time) * 1_000_000_000 + nanos(&time)
}

/// CPU time of the calling thread in nanoseconds: what it has run, however long it has waited for a processor.
pub fn thread_cpu_ns() -> u64 {
    let time = read(libc::CLOCK_THREAD_CPUTIME_ID);
    seconds(&time) * 1_000_000_000 + nanos(&time)
}

/// The host's time-stamp counter, in TSC ticks. Not serialising.
pub fn rdtsc() -> u64 {
    // SAFETY: RDTSC has no memory operands and exists on every x86-64 processor.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Whether the kernel trusts the host's TSC: it counts at one rate, alike on all processors. If it is not known, it is
/// not trusted.
pub fn tsc_is_steady() -> bool {
    std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/available_clocksource")
        .is_ok_and(|list| list.split_whitespace().any(|source| source == "tsc"))
}

/// Time of day: seconds since 1970-01-01 UTC and nanoseconds (below 1,000,000,000). May jump either way.
pub fn realtime() -> (u64, u32) {
    let time = read(libc::CLOCK_REALTIME);
    (seconds(&time), nanos(&time) as u32)
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to. The call cannot fail: these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}

/// Seconds of a clock; a time of day before 1970 counts as 1970.
fn seconds(time: &libc::timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0)
}

fn nanos(time: &libc::timespec) -> u64 {
    u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `ns` as the kernel wants an absolute time. A deadline too far for `time_t` does not exist: u64 ns is 584 years.
pub(crate) fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}
