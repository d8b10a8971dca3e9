//! Futexes: a halted vCPU waits on a word of its own until somebody posts to it or its next deadline comes.
//!
//! Follows futex(2), FUTEX_WAIT_BITSET (its timeout is absolute) and FUTEX_WAKE, both process-private.

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

use crate::calls::{self, Call};
use crate::clock;

#[cfg(test)]
mod tests;

/// How a wait ended. The word says what happened; this only says why the thread runs again.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Somebody called [`wake`] (or the kernel woke us for no reason: look at the word).
    Woken,
    /// The word did not hold the expected value, so there was no wait.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Sleeps while `word` holds `expected`, until [`wake`] or until the CLOCK_MONOTONIC time `deadline` (ns, absolute).
/// A deadline in the past ends at once, after the look at the word.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Wait {
    let timeout = deadline.map(clock::timespec);
    let timeout_ptr = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    calls::made(Call::FutexWait);
    // SAFETY: `word` and, if there is one, `timeout` live across the call; the kernel reads both and writes neither.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout_ptr,
            ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if ret == 0 {
        return Wait::Woken;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Wait::Changed,
        Some(libc::ETIMEDOUT) => Wait::TimedOut,
        // EINTR; the other documented errors need arguments that this function never passes.
        _ => {
            calls::count_signals();
            Wait::Interrupted
        }
    }
}

/// Wakes up to `n` threads that wait on `word`; returns how many it woke. Callable from any thread.
pub fn wake(word: &AtomicU32, n: u32) -> u32 {
    let n = n.min(i32::MAX as u32);
    calls::made(Call::FutexWake);
    // SAFETY: the kernel uses the address of `word` as a key only.
    let ret = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, n) };
    u32::try_from(ret).unwrap_or(0)
}
