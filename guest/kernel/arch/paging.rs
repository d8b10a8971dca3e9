//! Page tables: four levels, changed by hand.
//!
//! The kernel's part, memory one to one, is made at build time ([`crate::boot`]) and never changes. Above it there is room for ring 3
//! ([`USER_BASE`]) and for mappings of the kernel that come and go ([`KERNEL_BASE`]). Who takes a mapping away must make every CPU forget
//! it: [`crate::smp::tlb`].
//!
//! To read more: Intel SDM vol. 3A, "4-Level Paging", "Invalidation of TLBs and Paging-Structure Caches".

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::tlb;

use crate::boot::boot_pml4;
use crate::sync::IrqLock;

/// Where ring 3's half begins.
pub const USER_BASE: u64 = 1 << 39;
/// Where it ends (exclusive).
pub const USER_END: u64 = 2 << 39;
/// Where the kernel's changing mappings begin.
pub const KERNEL_BASE: u64 = 2 << 39;
/// Where they end (exclusive).
pub const KERNEL_END: u64 = 3 << 39;
/// Bytes in a page.
pub const PAGE: u64 = 4096;

bitflags::bitflags! {
    /// Bits of a page-table entry.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u64 {
        /// There is a page.
        const PRESENT = 1 << 0;
        /// It can be written.
        const WRITABLE = 1 << 1;
        /// Ring 3 can use it.
        const USER = 1 << 2;
        /// It was used.
        const ACCESSED = 1 << 5;
        /// It was written.
        const DIRTY = 1 << 6;
        /// No instructions are fetched from it.
        const NO_EXECUTE = 1 << 63;
    }
}

/// Physical address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries above the last level allow everything: the page's own entry decides.
const TABLE: u64 = 7;

/// One change at a time.
static TABLES: IrqLock<()> = IrqLock::new(());

/// The entry for `address`, with the tables above it made if `make`.
fn entry(address: u64, make: bool) -> Option<&'static AtomicU64> {
    if !(USER_BASE..KERNEL_END).contains(&address) {
        return None;
    }
    let mut table = (&raw const boot_pml4) as u64;
    for level in [39, 30, 21, 12] {
        let index = address >> level & 511;
        // SAFETY: tables lie in memory that is mapped one to one, are never freed, and are only touched as atomics.
        let entry = unsafe { &*((table + index * 8) as *const AtomicU64) };
        if level == 12 {
            return Some(entry);
        }
        if entry.load(Ordering::Relaxed) & Flags::PRESENT.bits() == 0 {
            if !make {
                return None;
            }
            entry.store(allocate_page()? | TABLE, Ordering::Release);
        }
        table = entry.load(Ordering::Relaxed) & ADDRESS;
    }
    None
}

/// A page of zeros: its physical address. `None` when the heap is exhausted.
pub fn allocate_page() -> Option<u64> {
    let layout = Layout::from_size_align(PAGE as usize, PAGE as usize).ok()?;
    // SAFETY: the layout is not empty.
    let page = unsafe { alloc_zeroed(layout) };
    (!page.is_null()).then_some(page as u64)
}

/// Gives a page back.
///
/// # Safety
///
/// It came from [`allocate_page`], and nobody uses it: no CPU knows a mapping of it.
pub unsafe fn free_page(page: u64) {
    if let Ok(layout) = Layout::from_size_align(PAGE as usize, PAGE as usize) {
        // SAFETY: by the contract of this function; the layout is the one that it was allocated with.
        unsafe { dealloc(page as *mut u8, layout) };
    }
}

/// Maps the page at `address` (between [`USER_BASE`] and [`KERNEL_END`]) to `physical`, replacing what was there; gives the old entry.
/// `None` if the address is out of range or there is no memory. Other CPUs may know the old mapping.
pub fn map(address: u64, physical: u64, flags: Flags) -> Option<u64> {
    let _tables = TABLES.lock();
    let old = entry(address, true)?.swap((physical & ADDRESS) | flags.bits(), Ordering::AcqRel);
    flush(address);
    Some(old)
}

/// Maps a fresh page.
pub fn map_new(address: u64, flags: Flags) -> Option<u64> {
    let page = allocate_page()?;
    map(address, page, flags | Flags::PRESENT).map(|_| page)
}

/// Takes the mapping away, on this CPU; gives the old entry. Other CPUs may still know it.
pub fn unmap(address: u64) -> Option<u64> {
    let _tables = TABLES.lock();
    let old = entry(address, false)?.swap(0, Ordering::AcqRel);
    flush(address);
    Some(old)
}

/// The entry for `address`: physical address and flags.
pub fn lookup(address: u64) -> Option<(u64, Flags)> {
    let value = entry(address, false)?.load(Ordering::Acquire);
    (value & Flags::PRESENT.bits() != 0).then(|| (value & ADDRESS, Flags::from_bits_truncate(value)))
}

/// Forgets the translation of one page on this CPU.
pub fn flush(address: u64) {
    tlb::flush(VirtAddr::new_truncate(address));
}
