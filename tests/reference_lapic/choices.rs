//! Where the manual leaves a choice, or the program deliberately departs from it: one named constant each, with the
//! reason. The reference reads them, so one that the program no longer makes fails the test.

/// LVT entries in ExtINT mode work at both LINT pins: the format allows it, "only one processor in the system should"
/// use it, and no rule says which pin.
pub const EXTINT_ON_LINT1: bool = true;

/// PPR's sub-class when TPR and ISR are of one class: the table for PPR[3:0] gives TPR[3:0].
pub const PPR_SUBCLASS_IS_TPRS_ON_A_TIE: bool = true;

/// The version register has bit 24 and SVR bit 12 works: our I/O APIC has the EOI register that it needs.
pub const EOI_SUPPRESSION_OFFERED: bool = true;

/// INIT and a global disable forget an NMI and an ExtINT that the APIC holds: they are requests like those in IRR.
pub const INIT_KEEPS_LATCHED_NMI: bool = false;

/// The BSP flag says how the processor came up: writes of it do nothing (the manual has it read/write).
pub const BSP_FLAG_IS_WRITABLE: bool = false;

/// A new LVT timer mode disarms the timer only across the border of TSC-deadline mode; between one-shot and periodic
/// the count goes on (section "TSC-Deadline Mode" says "disarms" of any; processors and guests know better).
pub const ONE_SHOT_TO_PERIODIC_DISARMS: bool = false;

/// Crossing that border also shows an initial count of 0: the counter was disarmed, and 0 is how that reads.
pub const CROSSING_CLEARS_INITIAL_COUNT: bool = true;

/// A periodic timer's shortest period in ns: a guest can't keep its host busy with nothing but expiries.
pub const SHORTEST_PERIOD: u64 = 100_000;

/// A divide configuration written after a count has ended, but before anybody noticed, makes it end now: the phase of
/// a periodic timer starts there. (The machine looks at the timer before it handles an exit.)
pub const LATE_DIVIDE_MOVES_THE_END: bool = true;

/// An LVT LINT0 that is no longer fixed and level loses its remote IRR, whose "meaning is undefined" then.
pub const REMOTE_IRR_NEEDS_FIXED_LEVEL: bool = true;

/// An IPI with an illegal vector is noted by its sender and sent all the same: each receiver notes it too.
pub const ILLEGAL_VECTOR_IS_SENT: bool = true;

/// Bit 12 of an x2APIC ICR or LVT write, and 14 of a LINT entry, are read-only rather than reserved, as processors
/// have it: no #GP.
pub const STATUS_BITS_ARE_NOT_RESERVED: bool = true;

/// Entering x2APIC mode clears the destination half of ICR, which "is not preserved" (section "State Changes From xAPIC Mode
/// to x2APIC Mode").
pub const X2APIC_CLEARS_DESTINATION: bool = true;

/// Every write of LDR or DFR, and the firmware's set-up, reports a changed address, even of an equal value.
pub const EQUAL_ADDRESS_IS_REPORTED: bool = true;

/// Accesses other than of 32 bits on a 16-byte boundary are undefined: reads show the bytes that they name (0 between
/// registers, an error for each absent register that they touch), writes do nothing.
pub const NARROW_READS_WORK: bool = true;

/// An edge and a level request of one vector in one look at the mailbox make a level one: its source waits for the EOI.
pub const LEVEL_BEATS_EDGE: bool = true;

/// Illegal vectors in one look at the mailbox are noted once, after the legal ones are accepted.
pub const ILLEGAL_VECTORS_ARE_NOTED_LAST: bool = true;

/// A logical model that is neither flat nor cluster matches nothing ("all other values are reserved").
pub const RESERVED_MODEL_MATCHES_NOTHING: bool = true;
