//! Doorbells: writes of the guest that reach a device without an exit of the vCPU to this program.
//!
//! Defined here, implemented by the machine. A doorbell's ring is a top half of the main loop's CPU: it raises, and
//! returns; no lock of the device is needed for it.

use bottom_half::TopHalf;

/// Which writes to an address ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Those of any size and value.
    Anything,
    /// Those of 16 bits with this value.
    U16(u16),
    /// Those of 32 bits with this value.
    U32(u32),
}

/// What a ring does: it schedules something, and returns. It must not keep its device alive (`Weak`), nor block.
pub type Ring = Box<dyn Fn(&TopHalf<'_>) + Send + Sync>;

/// Connects doorbells.
pub trait Doorbells: Send + Sync {
    /// Writes to guest-physical `address` that match ring from now on, and are no accesses of the device any more; several
    /// may merge into one ring. `None`: the host does not do it (or not there), and they are accesses as before.
    ///
    /// Any thread, with the device's lock held; never waits for a ring.
    fn connect(&self, address: u64, written: Written, ring: Ring) -> Option<Box<dyn Connection>>;
}

/// A connected doorbell. Dropping it disconnects it: with the device's lock held, from any thread, without waiting for a
/// ring that is under way. A write just before may not ring any more: whoever disconnects while the guest may have written
/// looks for work himself.
pub trait Connection: Send + Sync {}
