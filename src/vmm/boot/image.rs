//! What ELF and multiboot images come to: pieces of a file, their places in guest memory, and an entry point.

use x86::platform;

use super::error::BootError;
use super::file::InputFile;
use super::{ONE_MIB, layout};
use crate::memory::GuestRam;

/// A piece of the file and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file of the header that describes it, for messages.
    pub described_at: u64,
    /// Where it starts in the file.
    pub offset: u64,
    /// Where it goes.
    pub address: u64,
    /// How much of it is in the file, in bytes.
    pub file_bytes: u64,
    /// How much memory it takes; what is not in the file is zero.
    pub memory_bytes: u64,
}

impl Segment {
    /// First address after it. Valid after [`Image::check`]; the largest there is if it wraps.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_bytes)
    }
}

/// An image whose headers have been read.
#[derive(Debug)]
pub struct Image {
    /// The file.
    pub file: InputFile,
    /// What it is, for messages.
    pub format: &'static str,
    /// What to do when it is wrong, for messages.
    pub remedy: &'static str,
    /// What is to be loaded, by address once [`Image::check`] has seen it.
    pub segments: Vec<Segment>,
}

impl Image {
    /// The error for what was found at `offset`.
    pub fn wrong(&self, offset: u64, found: String, expected: &'static str) -> BootError {
        let path = self.file.path();
        BootError::BadImage { path, format: self.format, offset, found, expected, remedy: self.remedy }
    }

    /// Checks that every segment is in the file, has a place of its own in RAM at `lowest` or above, and that `entry`,
    /// which was read at `entry_at`, is in one of them. Gives the first address after the highest segment.
    pub fn check(&mut self, ram: &GuestRam, lowest: u64, entry: u64, entry_at: u64) -> Result<u64, BootError> {
        self.segments.sort_by_key(|segment| segment.address);
        for segment in &self.segments {
            self.check_segment(segment, lowest)?;
        }
        for pair in self.segments.windows(2) {
            if let [low, high] = pair
                && low.end() > high.address
            {
                let found =
                    format!("a segment at {:#x} inside that of {:#x}-{:#x}", high.address, low.address, low.end());
                return Err(self.wrong(high.described_at, found, "segments that don't overlap"));
            }
        }
        let Some(last) = self.segments.last() else {
            return Err(self.wrong(0, "nothing to load".to_owned(), "at least one segment to load"));
        };
        let end = last.end();
        if end > ram.low_end() {
            let (path, bytes) = (self.file.path(), self.file.bytes);
            return Err(BootError::KernelTooLarge { path, bytes, end, memory: ram.bytes() });
        }
        if !self.segments.iter().any(|segment| (segment.address..segment.end()).contains(&entry)) {
            return Err(self.wrong(entry_at, format!("entry point {entry:#x}"), "an address in what is loaded"));
        }
        Ok(end)
    }

    fn check_segment(&self, segment: &Segment, lowest: u64) -> Result<(), BootError> {
        let Segment { described_at, offset, address, file_bytes, memory_bytes } = *segment;
        let wrong = |found, expected| Err(self.wrong(described_at, found, expected));
        if offset.checked_add(file_bytes).is_none_or(|end| end > self.file.bytes) {
            let found = format!("{file_bytes} bytes from offset {offset:#x} on, of {} in the file", self.file.bytes);
            return wrong(found, "a segment inside the file (is it truncated?)");
        }
        if file_bytes > memory_bytes {
            let found = format!("{file_bytes} bytes in the file for {memory_bytes} in memory");
            return wrong(found, "at least as much memory as there is in the file");
        }
        let found = || format!("address {address:#x} for {memory_bytes} bytes");
        if address.checked_add(memory_bytes).is_none_or(|end| end > platform::MMIO_HOLE_START) {
            return wrong(found(), "a place below the device hole at 0xd0000000");
        }
        if address < lowest {
            return wrong(found(), "a place in memory that is the kernel's (1 MiB or above)");
        }
        if address < ONE_MIB && segment.end() > layout::EBDA {
            return wrong(found(), "a place outside 0x9fc00-0xfffff, where there is BIOS data, video and ACPI tables");
        }
        Ok(())
    }

    /// Copies the segments to memory that is still zero.
    pub fn load(&mut self, ram: &GuestRam) -> Result<(), BootError> {
        for segment in &self.segments {
            self.file.copy_to(ram, segment.offset, segment.file_bytes, segment.address)?;
        }
        Ok(())
    }
}
