//! Adaptive polling before a halted vCPU sleeps: how long to look at the mailbox first.
//!
//! A wake-up out of a futex costs two system calls and a trip through the host's scheduler; a look costs nothing but the
//! processor's time. So a vCPU whose last halts were short polls a little longer each time, one whose halts were long
//! stops polling at once, and none polls longer than [`LONGEST`]. While it polls, posters find it OUTSIDE and owe it no
//! system call. On a host with fewer processors than vCPUs the one that is waited for may need just this processor: there
//! nobody polls.

use x86::Nanos;

#[cfg(test)]
mod tests;

/// The longest poll.
pub const LONGEST: Nanos = 100_000;
/// The first one, after halts that were short without any.
const FIRST: Nanos = 5_000;

/// One vCPU's polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HaltPoll {
    longest: Nanos,
    window: Nanos,
}

impl HaltPoll {
    /// For one of `vcpus` on a host that gives this program `processors`.
    pub fn new(vcpus: usize, processors: usize) -> Self {
        Self { longest: if vcpus > processors { 0 } else { LONGEST }, window: 0 }
    }

    /// How long to poll before the next sleep; 0 is not at all.
    pub fn window(&self) -> Nanos {
        self.window
    }

    /// The halt is over, by an interrupt or a deadline, `after` this long, poll included.
    ///
    /// Ended while it polled: the window was right. Ended soon after: a longer one, at most the longest, would have spared
    /// the sleep. Else polling was wasted: no more of it until halts are short again.
    pub fn halted_for(&mut self, after: Nanos) {
        if after <= self.window {
            return;
        }
        self.window = if after <= self.longest { (self.window * 2).max(FIRST).min(self.longest) } else { 0 };
    }
}
