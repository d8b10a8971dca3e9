//! The kick: a signal aimed at one vCPU thread that takes it out of KVM_RUN, or keeps it from going in.
//!
//! If the signal lands inside KVM_RUN, the call ends with EINTR. If it lands just before, the handler has set the
//! `immediate_exit` byte of that thread's vCPU and KVM_RUN ends at once, so the gap between a vCPU's last look at its
//! mailbox and KVM_RUN is closed. A thread without a registered byte only has a system call interrupted.
//!
//! Protocol for the owner of the byte: clear it, then look at the mailbox, then KVM_RUN; never clear it after the look.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock};

use crate::calls::{self, Call};
use crate::check;

#[cfg(test)]
mod tests;

/// What the handler stores into the registered byte.
pub const KICKED: u8 = 1;

/// Something that holds a vCPU's `immediate_exit` byte for as long as it lives.
pub trait KickTarget: Send + Sync + 'static {
    /// The byte; always the same one.
    fn immediate_exit(&self) -> &AtomicU8;
}

thread_local! {
    // Constant and without a destructor: reading it is a plain load, so the handler may do it at any moment.
    static BYTE: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
    // Likewise.
    static HANDLED: Cell<u64> = const { Cell::new(0) };
}

/// The kick signal's number.
pub fn signal_number() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Installs the handler for the whole process; further calls do nothing. Without it a kick would end the program, so
/// whatever sends kicks ([`ThreadId::signal`], [`crate::timer::ThreadTimer`]) installs it first.
pub fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: an all-zero sigaction is valid (default action, empty mask, no flags: SA_RESTART stays off, so
            // that system calls end). `handler` has the signature of a handler without SA_SIGINFO and does only what
            // signal-safety(7) allows.
            let ret = unsafe {
                (*action.as_mut_ptr()).sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
                libc::sigaction(signal_number(), action.as_ptr(), ptr::null_mut())
            };
            check(ret).map(drop).map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL))
        })
        .map_err(io::Error::from_raw_os_error)
}

/// How many kicks the calling thread has handled: as many returns from a signal handler.
pub fn handled() -> u64 {
    HANDLED.get()
}

/// Runs on the kicked thread between any two of its instructions: thread-local loads, a count, one atomic store.
extern "C" fn handler(_signal: libc::c_int) {
    // The signal is blocked while it is handled, so nobody else counts in between.
    HANDLED.set(HANDLED.get().wrapping_add(1));
    let byte = BYTE.get();
    // SAFETY: the pointer is null or was set on this thread by `register`, whose `Registration` keeps its holder alive
    // and takes the pointer back before it lets go.
    if let Some(byte) = unsafe { byte.as_ref() } {
        byte.store(KICKED, Ordering::SeqCst);
    }
}

/// This thread's byte is registered for as long as this lives. Stays on its thread.
#[must_use = "dropping it takes the registration back"]
pub struct Registration {
    // Keeps the byte's memory alive, even if the registration is leaked.
    _holder: Arc<dyn KickTarget>,
    _stay_on_thread: PhantomData<*const ()>,
}

/// Makes kicks of the calling thread set `holder`'s byte, and unblocks the signal on it.
///
/// Fails with `AlreadyExists` if this thread has a registration, or with the error of the system call.
pub fn register(holder: Arc<dyn KickTarget>) -> io::Result<Registration> {
    install()?;
    if !BYTE.get().is_null() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "this thread already has a byte to be kicked by"));
    }
    let byte: *const AtomicU8 = holder.immediate_exit();
    BYTE.set(byte);
    compiler_fence(Ordering::SeqCst);
    let registration = Registration { _holder: holder, _stay_on_thread: PhantomData };
    set_mask(libc::SIG_UNBLOCK)?;
    Ok(registration)
}

impl Drop for Registration {
    fn drop(&mut self) {
        BYTE.set(ptr::null());
        // The handler runs on this very thread: once the compiler has kept the order, it can no longer see the byte.
        compiler_fence(Ordering::SeqCst);
    }
}

/// Blocks kicks on the calling thread; they wait until [`unblock`] or [`register`].
pub fn block() -> io::Result<()> {
    set_mask(libc::SIG_BLOCK)
}

/// Lets kicks through to the calling thread.
pub fn unblock() -> io::Result<()> {
    set_mask(libc::SIG_UNBLOCK)
}

fn set_mask(how: libc::c_int) -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before the other calls read it.
    let ret = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal_number());
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut())
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(ret)) }
}

/// A thread of this process, as the kernel numbers it. The number may be reused after the thread has ended, which does
/// no harm but a needless kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThreadId {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl ThreadId {
    /// The calling thread.
    pub fn current() -> Self {
        // SAFETY: neither call has arguments or can fail.
        unsafe { Self { process: libc::getpid(), thread: libc::gettid() } }
    }

    /// The number, for logs.
    pub fn as_raw(self) -> i32 {
        self.thread
    }

    /// Kicks the thread; `false` if it has ended. Callable from any thread.
    pub fn signal(&self) -> io::Result<bool> {
        install()?;
        calls::made(Call::Signal);
        // SAFETY: tgkill takes three integers; the handler is installed, so the signal ends nothing.
        let ret = unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal_number()) };
        if ret == 0 {
            return Ok(true);
        }
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            e => Err(e),
        }
    }
}
