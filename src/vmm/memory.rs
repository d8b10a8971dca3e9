//! Guest RAM: how much, where it appears, and the anonymous memory behind it.
//!
//! RAM starts at address 0 and runs up to the device hole below 4 GiB ([`platform::MMIO_HOLE_START`]); what does not
//! fit below goes on at 4 GiB. There is none in the legacy video window ([`VIDEO_HOLE`]): a kernel that probes there for
//! a text screen must find, as on any machine without one, nothing.
//!
//! Not modelled: memory hot-plug, NUMA, file-backed or shared memory, ROM shadowing.

use std::ops::Range;

use vm_memory::{GuestAddress, GuestMemoryMmap};
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
/// Guest addresses (end exclusive) of the legacy video window, where there is no RAM.
pub const VIDEO_HOLE: Range<u64> = 0xa_0000..0xc_0000;
/// Where the region with most of the low RAM starts. KVM can use huge pages in it when the host places it on such a
/// boundary too, which it could not if the region started at the end of [`VIDEO_HOLE`].
const HUGE_PAGE: u64 = 2 << 20;

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
        let ranges = ranges(bytes)
            .into_iter()
            // A length that does not fit a usize is more than the address space holds: mmap refuses it.
            .map(|range| (GuestAddress(range.start), usize::try_from(range.end - range.start).unwrap_or(usize::MAX)))
            .collect::<Vec<_>>();
        let memory = GuestMemoryMmap::from_ranges(&ranges).map_err(|cause| BootError::MemoryMap { bytes, cause })?;
        Ok(Self { memory, bytes })
    }

    /// The memory, for devices, loaders and KVM's memory slots. Neighbouring regions need not be neighbours in this
    /// process, so an access that may cross 2 MiB is to go through vm-memory's reads and writes, not through one slice.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Size in bytes, [`VIDEO_HOLE`] included, as on any PC.
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
}

/// The guest addresses that have RAM, ascending.
fn ranges(bytes: u64) -> Vec<Range<u64>> {
    let low = bytes.min(platform::MMIO_HOLE_START);
    let mut ranges = vec![0..VIDEO_HOLE.start, VIDEO_HOLE.end..HUGE_PAGE, HUGE_PAGE..low];
    if bytes > low {
        ranges.push(platform::MMIO_HOLE_END..platform::MMIO_HOLE_END + (bytes - low));
    }
    ranges
}

/// Reads a memory size as the command line gives it and checks it; the result is in bytes.
///
/// A number with a suffix K, M, G or T (either case, powers of 1024); a plain number means MiB, as in QEMU.
///
/// # Errors
///
/// An input error that names the text, or the same as making the memory for a size out of range.
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
