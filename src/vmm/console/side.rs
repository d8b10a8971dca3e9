//! The descriptors that the main loop watches for the console.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// Which descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// What is typed.
    Input,
    /// What the guest says.
    Output,
    /// News of somebody who comes.
    Arrival,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// The end alone.
    HangUp,
}

/// A change in what the main loop is to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// The descriptor.
    pub fd: RawFd,
    /// What it is.
    pub place: Place,
    /// What was watched until now.
    pub from: Option<Interest>,
    /// What is to be watched from now on.
    pub to: Option<Interest>,
}

/// One direction of a connection.
pub(super) struct Side {
    pub file: File,
    pub watched: Watched,
}

impl Side {
    pub fn new(file: File) -> Self {
        Self { file, watched: Watched::default() }
    }

    /// What changes when `to` is wanted from now on.
    pub fn want(&mut self, place: Place, to: Option<Interest>) -> Option<Watch> {
        self.watched.change(self.file.as_raw_fd(), place, to)
    }
}

/// What the main loop watches a descriptor for.
#[derive(Debug, Default)]
pub(super) struct Watched {
    now: Option<Interest>,
    /// It can't be watched (a regular file): it never blocks, either.
    pub never: bool,
}

impl Watched {
    /// What changes when `to` is wanted from now on.
    pub fn change(&mut self, fd: RawFd, place: Place, to: Option<Interest>) -> Option<Watch> {
        let to = to.filter(|_| !self.never);
        let from = std::mem::replace(&mut self.now, to);
        (from != to).then_some(Watch { fd, place, from, to })
    }

    /// Nothing would change if `to` is wanted.
    pub fn is(&self, to: Option<Interest>) -> bool {
        self.now == to.filter(|_| !self.never)
    }

    /// A new main loop watches nothing yet.
    pub fn forget(&mut self) {
        self.now = None;
    }
}
