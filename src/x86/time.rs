//! Units of time.

/// Nanoseconds of the machine's one monotonic clock, 0 when the machine was made.
///
/// Always passed as an argument: chips and devices never read a clock themselves.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;
