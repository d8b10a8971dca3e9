//! SIGINT, SIGTERM, SIGHUP and SIGUSR1 as events on a file descriptor, for the main loop's epoll.
//!
//! Follows signalfd(2). The signals are blocked first, in the calling thread; threads started later inherit that, so
//! make the descriptor before any other thread.

use std::fs::File;
use std::io::{self, Read};
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr;

use crate::check;

#[cfg(test)]
mod tests;

/// What the user or the system asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal has gone.
    HangUp,
    /// SIGUSR1.
    User1,
}

impl Signal {
    /// Every signal that becomes an event.
    pub const ALL: [Self; 4] = [Self::Interrupt, Self::Terminate, Self::HangUp, Self::User1];

    /// The signal's number.
    pub fn number(self) -> i32 {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::HangUp => libc::SIGHUP,
            Self::User1 => libc::SIGUSR1,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| u32::try_from(s.number()) == Ok(number))
    }
}

/// A non-blocking descriptor that is readable while a signal waits.
#[derive(Debug)]
pub struct SignalFd(File);

impl SignalFd {
    /// Blocks the four signals in the calling thread and opens the descriptor.
    pub fn new() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; signalfd returns a new descriptor that
        // the File then owns alone.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in Signal::ALL {
                libc::sigaddset(set.as_mut_ptr(), signal.number());
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) {
                0 => {}
                e => return Err(io::Error::from_raw_os_error(e)),
            }
            let fd = check(libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))?;
            Ok(Self(File::from_raw_fd(fd)))
        }
    }

    /// Takes the next signal; `None` when there is none. Never blocks.
    pub fn read(&mut self) -> io::Result<Option<Signal>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        loop {
            match self.0.read(&mut info) {
                Ok(n) if n == info.len() => {
                    let at = offset_of!(libc::signalfd_siginfo, ssi_signo);
                    let number = info[at..at + 4].iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b));
                    // Only the four are in the set.
                    if let Some(signal) = Signal::from_number(number) {
                        return Ok(Some(signal));
                    }
                }
                Ok(_) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Ends this process as `signal` would by default, so that whoever started it sees what has happened. Returns only if
/// the signal does not end a process.
pub fn die_of(signal: Signal) {
    let number = signal.number();
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: SIG_DFL involves no handler of ours; sigemptyset initialises the set before the other calls read it.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), number);
        libc::raise(number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Makes writing to a closed pipe an error (EPIPE) instead of the end of the program.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN for SIGPIPE involves no handler of ours; the call cannot fail for a valid signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
