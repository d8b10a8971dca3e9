//! SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGPWR and SIGWINCH as events on a file descriptor, for who waits for descriptors.
//!
//! Follows signalfd(2). The signals are blocked first, in the calling thread; threads started later inherit that, so
//! make the descriptor before any other thread.

use std::fs::File;
use std::io::{self, Read};
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
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
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGPWR: the power is about to fail.
    Power,
    /// SIGWINCH: the terminal has another size.
    Window,
}

impl Signal {
    /// Those that mean something to a machine.
    pub const ALL: [Self; 7] =
        [Self::Interrupt, Self::Terminate, Self::HangUp, Self::Quit, Self::User1, Self::Power, Self::Window];
    /// Those that mean something to a screen: all but [`Signal::Window`] end it.
    pub const OF_A_SCREEN: [Self; 5] = [Self::Interrupt, Self::Terminate, Self::HangUp, Self::Quit, Self::Window];

    /// The signal's number.
    pub fn number(self) -> i32 {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::HangUp => libc::SIGHUP,
            Self::Quit => libc::SIGQUIT,
            Self::User1 => libc::SIGUSR1,
            Self::Power => libc::SIGPWR,
            Self::Window => libc::SIGWINCH,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| u32::try_from(s.number()) == Ok(number))
    }
}

/// A non-blocking descriptor that is readable while a signal waits.
#[derive(Debug)]
pub struct SignalFd {
    file: File,
    signals: Vec<Signal>,
}

impl SignalFd {
    /// Blocks the signals of a machine ([`Signal::ALL`]) in the calling thread and opens the descriptor.
    pub fn new() -> io::Result<Self> {
        Self::of(&Signal::ALL)
    }

    /// Blocks these signals in the calling thread and opens the descriptor.
    pub fn of(signals: &[Signal]) -> io::Result<Self> {
        let set = set_of(signals);
        // SAFETY: the set is initialised; signalfd returns a new descriptor that the File then owns alone.
        let file = unsafe {
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) {
                0 => {}
                e => return Err(io::Error::from_raw_os_error(e)),
            }
            let fd = check(libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))?;
            File::from_raw_fd(fd)
        };
        Ok(Self { file, signals: signals.to_vec() })
    }

    /// Has these signals do again what they do by default, in the calling thread; those that wait do it at once.
    pub fn release(self) {
        // SAFETY: the set is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set_of(&self.signals), ptr::null_mut()) };
    }

    /// Takes the next signal; `None` when there is none. Never blocks.
    pub fn read(&mut self) -> io::Result<Option<Signal>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        loop {
            match self.file.read(&mut info) {
                Ok(n) if n == info.len() => {
                    let at = offset_of!(libc::signalfd_siginfo, ssi_signo);
                    let number = info[at..at + 4].iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b));
                    // No others are in the set.
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
        self.file.as_raw_fd()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.number());
        }
        set.assume_init()
    }
}

/// Ends this process as `signal` would by default, so that whoever started it sees what has happened. Returns only if
/// the signal does not end a process.
pub fn die_of(signal: Signal) {
    let number = signal.number();
    let set = set_of(&[signal]);
    // SAFETY: SIG_DFL involves no handler of ours; the set is initialised.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
    }
}

/// Sends `signal` to the process `pid`.
///
/// # Errors
///
/// If there is no such process, or it is not ours to signal.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    if pid == 0 {
        // That would be our whole group.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes two integers.
    check(unsafe { libc::kill(pid, signal.number()) }).map(|_| ())
}

/// Makes writing to a closed pipe an error (EPIPE) instead of the end of the program.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN for SIGPIPE involves no handler of ours; the call cannot fail for a valid signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Has a file that grows beyond the limit on files' sizes (RLIMIT_FSIZE) give an error, and not end the process.
pub fn ignore_sigxfsz() {
    // SAFETY: SIG_IGN for SIGXFSZ involves no handler of ours; the call cannot fail for a valid signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
