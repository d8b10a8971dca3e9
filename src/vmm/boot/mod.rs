//! Boot protocols: what a boot loader leaves in guest memory, and the register contents it enters the kernel with.
//!
//! [`load_linux`] starts a bzImage at its 64-bit entry point. Everything that can be wrong with the inputs is found
//! before the first byte goes to guest memory. Nothing here knows KVM: [`BootState`] is plain numbers.

mod bzimage;
mod entry;
mod error;
mod file;
mod zero_page;

#[cfg(test)]
mod testing;

pub use bzimage::{LinuxBoot, load_linux};
pub use entry::{BootState, DescriptorTable, Segment};
pub use error::{BootError, ErrorKind, Size};

/// Where the boot structures lie in the guest's first 640 KiB; the kernel copies what it needs before it reuses them.
pub mod layout {
    /// Global descriptor table.
    pub const GDT: u64 = 0x1000;
    /// Initial stack pointer; the stack grows down towards the GDT.
    pub const STACK_TOP: u64 = 0x8000;
    /// Zero page (`struct boot_params`), 4 KiB.
    pub const ZERO_PAGE: u64 = 0x8000;
    /// Page tables: one PML4 page, one page of directory pointers, four page directories.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Kernel command line.
    pub const CMDLINE: u64 = 0x2_0000;
    /// Bytes kept for the command line with its NUL.
    pub const CMDLINE_BYTES: u64 = 0x1_0000;
    /// Extended BIOS data area: the end of usable conventional memory.
    pub const EBDA: u64 = 0x9_fc00;
    /// ACPI tables (end exclusive); the root pointer is at the start, where older kernels search for it as well.
    pub const ACPI: std::ops::Range<u64> = 0xe_0000..0x10_0000;
}
