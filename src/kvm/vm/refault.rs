//! Dropping the mapping of one page of guest memory, so that the guest's next access to it faults in the host.

use std::io;

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

#[cfg(test)]
mod tests;

/// Pages are dropped in this size, in bytes.
pub const PAGE: u64 = 4096;

/// Drops the mapping of the page with guest address `address`, its contents untouched. `false` if there is no memory.
///
/// The page's protection changes and changes back; the kernel tells KVM of both, and KVM drops its own mapping. It only
/// ever gains a right (execution, which nothing uses), so no thread that happens to be at the page can fail.
///
/// # Errors
///
/// When the host refuses, as some do memory that can be written and executed.
pub fn refault(memory: &GuestMemoryMmap, address: GuestAddress) -> io::Result<bool> {
    let start = GuestAddress(address.raw_value() / PAGE * PAGE);
    let Some(region) = memory.find_region(start) else { return Ok(false) };
    let offset = start.raw_value() - region.start_addr().raw_value();
    // Regions are made of whole pages: where one begins, all of it is there.
    let Ok(page) = region.get_host_address(MemoryRegionAddress(offset)) else { return Ok(false) };
    let plain = libc::PROT_READ | libc::PROT_WRITE;
    for protection in [plain | libc::PROT_EXEC, plain] {
        // SAFETY: the page is part of a mapping of guest memory, which `memory` keeps alive and which has these rights
        // already; no reference into guest memory exists, and reading and writing stay allowed throughout.
        let failed = unsafe { libc::mprotect(page.cast(), PAGE as usize, protection) } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(true)
}
