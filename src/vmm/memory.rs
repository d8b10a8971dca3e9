//! Guest RAM: how much, where it appears, and the anonymous memory behind it.
//!
//! RAM starts at address 0 and runs up to the device hole below 4 GiB ([`platform::MMIO_HOLE_START`]); what does not
//! fit below goes on at 4 GiB. The guest does not see RAM in the legacy video window ([`VIDEO_HOLE`]), so that a kernel
//! that probes for a VGA text buffer finds, as on any machine without one, nothing.
//!
//! Not modelled: memory hot-plug, NUMA, file-backed or shared memory, ROM shadowing.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use x86::platform;

use crate::boot::BootError;

#[cfg(test)]
mod tests;

/// The least memory, in bytes: the low megabyte, the boot structures, and some room for a small guest kernel.
pub const MIN_BYTES: u64 = 16 << 20;
/// The most memory, in bytes: with the hole it ends below 2^40, the smallest physical address space of a server CPU.
pub const MAX_BYTES: u64 = 1023 << 30;
/// The size of memory is a multiple of this, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Guest addresses (end exclusive) of the legacy video window, where the guest sees no RAM.
pub const VIDEO_HOLE: std::ops::Range<u64> = 0xa_0000..0xc_0000;

/// A contiguous piece of guest RAM, to be handed to KVM as one memory slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamSlot {
    /// First guest physical address.
    pub guest_address: u64,
    /// Address in this process that backs it.
    pub host_address: u64,
    /// Length in bytes, a multiple of the page size.
    pub bytes: u64,
}

/// The guest's RAM. Cloning shares the memory; it is unmapped with the last clone.
#[derive(Debug, Clone)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    bytes: u64,
}

impl GuestRam {
    /// Maps `bytes` of zeroed memory.
    ///
    /// # Errors
    ///
    /// An input error when `bytes` is outside [`MIN_BYTES`]`..=`[`MAX_BYTES`] or no multiple of [`PAGE_BYTES`]; a host
    /// error when the host does not give that much address space.
    pub fn new(bytes: u64) -> Result<Self, BootError> {
        check_size(bytes)?;
        let low = bytes.min(platform::MMIO_HOLE_START);
        let mut ranges = vec![(0, low)];
        if bytes > low {
            ranges.push((platform::MMIO_HOLE_END, bytes - low));
        }
        let ranges = ranges
            .into_iter()
            // A length that does not fit a usize is more than the address space holds: mmap refuses it.
            .map(|(start, len)| (GuestAddress(start), usize::try_from(len).unwrap_or(usize::MAX)))
            .collect::<Vec<_>>();
        let memory = GuestMemoryMmap::from_ranges(&ranges).map_err(|cause| BootError::MemoryMap { bytes, cause })?;
        Ok(Self { memory, bytes })
    }

    /// The memory, for devices and loaders: everything but [`VIDEO_HOLE`] is what the guest sees.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// End (exclusive) of the RAM below the device hole.
    pub fn low_end(&self) -> u64 {
        self.bytes.min(platform::MMIO_HOLE_START)
    }

    /// Bytes of RAM that start at 4 GiB; 0 when all of it fits below the hole.
    pub fn high_bytes(&self) -> u64 {
        self.bytes - self.low_end()
    }

    /// End (exclusive) of the highest RAM: the guest's physical address width must hold it.
    pub fn end(&self) -> u64 {
        match self.high_bytes() {
            0 => self.low_end(),
            high => platform::MMIO_HOLE_END + high,
        }
    }

    /// The pieces of RAM the guest sees, in ascending order; valid while this object (or a clone) lives.
    pub fn slots(&self) -> Vec<RamSlot> {
        let mut slots = Vec::with_capacity(3);
        for region in self.memory.iter() {
            // Host addresses stay congruent to guest addresses across the video hole, so KVM can still use huge pages.
            let Ok(host) = region.get_host_address(vm_memory::MemoryRegionAddress(0)) else { continue };
            let (start, end, host) = (region.start_addr().0, region.start_addr().0 + region.len(), host as u64);
            let mut push = |from: u64, to: u64| {
                if from < to {
                    let host_address = host + (from - start);
                    slots.push(RamSlot { guest_address: from, host_address, bytes: to - from });
                }
            };
            push(start, end.min(VIDEO_HOLE.start));
            push(start.max(VIDEO_HOLE.end), end);
        }
        slots
    }
}

/// Reads a memory size as the command line gives it and checks it; the result is in bytes.
///
/// A number with a suffix K, M, G or T (either case, powers of 1024); a plain number means MiB, as in QEMU.
///
/// # Errors
///
/// An input error that names the text, or the same as [`GuestRam::new`] for a size out of range.
pub fn parse_size(text: &str) -> Result<u64, BootError> {
    let syntax = || BootError::MemorySyntax { text: text.to_owned() };
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 20),
    };
    // u64's own parser would take a leading '+'.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(syntax());
    }
    // All digits: only overflow is left, and that is too much memory rather than bad syntax.
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    let bytes = number.saturating_mul(1 << shift);
    check_size(bytes).map(|()| bytes)
}

fn check_size(bytes: u64) -> Result<(), BootError> {
    if bytes < MIN_BYTES {
        Err(BootError::MemoryTooSmall { bytes })
    } else if bytes > MAX_BYTES {
        Err(BootError::MemoryTooLarge)
    } else if !bytes.is_multiple_of(PAGE_BYTES) {
        Err(BootError::MemoryUnaligned { bytes })
    } else {
        Ok(())
    }
}
