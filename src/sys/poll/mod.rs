//! What descriptors are ready for, at this moment or after a wait: poll(2).

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready(i16);

impl Ready {
    /// There is something to read, the end included.
    pub const INPUT: Self = Self(libc::POLLIN);
    /// There is room to write.
    pub const OUTPUT: Self = Self(libc::POLLOUT);
    /// The other end is closed.
    pub const HANG_UP: Self = Self(libc::POLLHUP);

    /// It is ready for something, an error included.
    pub fn is_any(self) -> bool {
        self.0 != 0
    }

    /// All of `other` are in.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Looks; a look that fails sees nothing.
pub fn ready(fd: &impl AsFd) -> Ready {
    let look = wait(&[(fd.as_fd(), Ready::INPUT)], Duration::ZERO);
    look.ok().and_then(|found| found.first().copied()).unwrap_or_default()
}

/// Waits until one of them is ready for what is asked of it, or has hung up, for `limit` at most (to the millisecond, rounded up); what
/// each is ready for, in their order. A signal's handler may end it early, with nothing.
pub fn wait(of: &[(BorrowedFd<'_>, Ready)], limit: Duration) -> io::Result<Vec<Ready>> {
    let poll = |(fd, asked): &(BorrowedFd<'_>, Ready)| libc::pollfd { fd: fd.as_raw_fd(), events: asked.0, revents: 0 };
    let mut polls: Vec<_> = of.iter().map(poll).collect();
    let limit = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: as many pollfds as it is told, which live during the call; the descriptors are open.
    let count = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, limit) };
    if count == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        polls.iter_mut().for_each(|poll| poll.revents = 0);
    }
    Ok(polls.into_iter().map(|poll| Ready(poll.revents)).collect())
}
