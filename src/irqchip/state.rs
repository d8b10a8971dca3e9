//! What the chips' snapshots share.
//!
//! Each chip has a plain `State` that serialises, a `save` that cannot fail, and a `restore` that takes no state which
//! the chip could not have come into: a snapshot is a file, and files are wrong at times. Restored, a chip has the same
//! future as the one that was saved. Times in a state are those of the machine's clock, which goes on from the snapshot.

use std::fmt;

/// A state that no chip can be in; says what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadState(pub &'static str);

impl fmt::Display for BadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "impossible state of an interrupt controller: {}", self.0)
    }
}

impl std::error::Error for BadState {}

/// `Ok` if `holds`.
pub(crate) fn check(holds: bool, otherwise: &'static str) -> Result<(), BadState> {
    if holds { Ok(()) } else { Err(BadState(otherwise)) }
}
