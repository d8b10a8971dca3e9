//! Faults to build the program with, so that it can be seen that the guest's tests find them: `cargo xtask mutate`, and
//! docs/mutate.md.
//!
//! [`Fault`] lists them. Chips, devices and vCPUs ask [`is`] at the place that a fault is about, in one line beside what is
//! right. Without the feature `faults` the answer is the constant `false`, and nothing of this gets into a program. With it,
//! the program chooses one at its start (`choose`); without a choice it has none.

#![no_std]

#[cfg(feature = "faults")]
mod chosen;
mod table;

#[cfg(feature = "faults")]
pub use chosen::{Unknown, choose, is, now_and_then};
pub use table::Fault;
#[cfg(feature = "faults")]
pub use table::Record;

/// How many times [`now_and_then`] says no before it says yes.
pub const NOW_AND_THEN: u32 = 64;

/// Whether the program has this fault.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn is(_: Fault) -> bool {
    false
}

/// As [`is`], but true only once in [`NOW_AND_THEN`] calls: for what goes wrong rarely, and is lost for good.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn now_and_then(_: Fault) -> bool {
    false
}
