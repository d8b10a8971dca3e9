//! Page faults decoded: the address from CR2, the reason from the error code.
//!
//! To read more: Intel SDM vol. 3A, "Page-Fault Exceptions", figure "Page-Fault Error Code".

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::registers::control::Cr2;

bitflags::bitflags! {
    /// The error code of a page fault.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Reason: u64 {
        /// The page is there and the access is not allowed; else nothing is mapped.
        const PRESENT = 1 << 0;
        /// It was a write.
        const WRITE = 1 << 1;
        /// It came from ring 3.
        const USER = 1 << 2;
        /// A reserved bit is set in a paging-structure entry.
        const RESERVED = 1 << 3;
        /// It was an instruction fetch.
        const FETCH = 1 << 4;
    }
}

/// A page fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFault {
    /// The address that was accessed.
    pub address: u64,
    /// Why it faulted.
    pub reason: Reason,
}

static LAST_ADDRESS: [AtomicU64; super::percpu::MAX_CPUS] = [const { AtomicU64::new(0) }; super::percpu::MAX_CPUS];

impl PageFault {
    /// The fault that is being handled. CR2 must be read before anything else can fault.
    pub(super) fn current(error: u64) -> Self {
        let address = Cr2::read_raw();
        LAST_ADDRESS[super::percpu::this_cpu().number()].store(address, Ordering::Relaxed);
        Self { address, reason: Reason::from_bits_truncate(error) }
    }

    /// What [`Self::last_address`] gives from here on: the last one of the thread that is switched to.
    pub(crate) fn set_last_address(address: u64) {
        LAST_ADDRESS[super::percpu::this_cpu().number()].store(address, Ordering::Relaxed);
    }

    /// Address of this CPU's last page fault.
    pub fn last_address() -> u64 {
        LAST_ADDRESS[super::percpu::this_cpu().number()].load(Ordering::Relaxed)
    }
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.reason.contains(Reason::USER) { "user" } else { "supervisor" };
        let what = if self.reason.contains(Reason::FETCH) {
            "instruction fetch"
        } else if self.reason.contains(Reason::WRITE) {
            "write access"
        } else {
            "read access"
        };
        let why = if self.reason.contains(Reason::RESERVED) {
            "reserved bit violation"
        } else if self.reason.contains(Reason::PRESENT) {
            "permissions violation"
        } else {
            "not-present page"
        };
        write!(f, "{who} {what} at {:#018x}, {why}", self.address)
    }
}

/// What CR2 holds.
pub fn current_cr2() -> u64 {
    Cr2::read_raw()
}
