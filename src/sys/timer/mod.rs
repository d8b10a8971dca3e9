//! A timer whose expiry kicks the thread that made it: no helper thread, no file descriptor, one system call to arm.
//!
//! Follows timer_create(2) with SIGEV_THREAD_ID on CLOCK_MONOTONIC. The signal is the kick signal, so a vCPU thread
//! in the guest leaves it at the deadline, and one about to enter does not. A late or merged signal is harmless: the
//! thread looks at its own deadlines on every kick.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use crate::calls::{self, Call};
use crate::kick::{self, ThreadId};
use crate::{check, clock};

#[cfg(test)]
mod tests;

/// A one-shot timer that kicks the thread it was made on. Stays on that thread; dropping it deletes it.
#[derive(Debug)]
pub struct ThreadTimer {
    id: libc::timer_t,
    _stay_on_thread: PhantomData<*const ()>,
}

impl ThreadTimer {
    /// Makes a disarmed timer for the calling thread.
    pub fn new() -> io::Result<Self> {
        kick::install()?;
        let mut event = MaybeUninit::<libc::sigevent>::zeroed();
        let mut id = MaybeUninit::<libc::timer_t>::uninit();
        // SAFETY: an all-zero sigevent is valid; the fields set are those that SIGEV_THREAD_ID reads. `id` is written
        // when the call succeeds and read only then.
        unsafe {
            let event = &mut *event.as_mut_ptr();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = kick::signal_number();
            event.sigev_notify_thread_id = ThreadId::current().as_raw();
            check(libc::timer_create(libc::CLOCK_MONOTONIC, event, id.as_mut_ptr()))?;
            Ok(Self { id: id.assume_init(), _stay_on_thread: PhantomData })
        }
    }

    /// Kicks at the CLOCK_MONOTONIC time `at` (ns), at once if that has passed. Replaces an earlier time.
    pub fn arm(&self, at: u64) -> io::Result<()> {
        // Zero would mean "disarm".
        self.set(clock::timespec(at.max(1)))
    }

    /// No kick any more. One that is already on its way may still land.
    pub fn disarm(&self) -> io::Result<()> {
        self.set(clock::timespec(0))
    }

    fn set(&self, at: libc::timespec) -> io::Result<()> {
        calls::made(Call::Timer);
        let spec = libc::itimerspec { it_interval: clock::timespec(0), it_value: at };
        // SAFETY: the timer exists until drop, `spec` is valid, and the old value is not asked for.
        check(unsafe { libc::timer_settime(self.id, libc::TIMER_ABSTIME, &spec, ptr::null_mut()) }).map(drop)
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: `id` came from timer_create and is deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}

/// Sets by how much the kernel may delay the calling thread's timed sleeps, in ns (1 is the least; 0 means the
/// default). Real deadlines of a guest depend on it: the default is 50,000.
pub fn set_timer_slack(ns: u64) -> io::Result<()> {
    // SAFETY: PR_SET_TIMERSLACK takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns) }).map(drop)
}
