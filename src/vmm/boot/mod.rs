//! Boot protocols: what a boot loader leaves in guest memory, and the register contents it enters the kernel with.
//!
//! [`load`] knows a kernel by its file: a bzImage and a `vmlinux` start at their 64-bit entry points, an ELF file with a PVH
//! note and a multiboot image at a 32-bit one. Everything that can be wrong with the inputs is found before the first byte
//! goes to guest memory. Nothing here knows KVM: [`BootState`] is plain numbers.

mod bzimage;
mod cmdline;
mod elf;
mod entry;
mod error;
mod file;
mod image;
mod modules;
mod multiboot;
mod pvh;
mod vmlinux;
mod zero_page;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use entry::{BootState, DescriptorTable, Segment};
use error::InputKind;
pub use error::{BootError, ErrorKind, Size};
use file::InputFile;
pub use zero_page::e820_map;

use crate::memory::GuestRam;

const ONE_MIB: u64 = 1 << 20;

/// A kernel and what it is started with.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The kernel image.
    pub kernel: &'a Path,
    /// The initial RAM disk, which is the first module where a kernel takes modules.
    pub initrd: Option<&'a Path>,
    /// What comes in front of the initial RAM disk, or is it; a multiple of four bytes.
    pub overlay: &'a [u8],
    /// Further modules.
    pub modules: &'a [PathBuf],
    /// The kernel command line, without a NUL; `None` for [`DEFAULT_CMDLINE`], or nothing for multiboot images.
    pub cmdline: Option<&'a str>,
    /// Guest address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Command line of Linux and PVH kernels when none is given: their console on the serial port.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0";

/// Loads the kernel, the modules and all that its boot protocol asks for into `ram`; gives the BSP's registers.
///
/// # Errors
///
/// Input errors for files and command lines that are wrong or do not fit, host errors when a file cannot be read to its
/// end. On an input error nothing was written to `ram`.
pub fn load(ram: &GuestRam, boot: &Boot<'_>) -> Result<BootState, BootError> {
    let mut kernel = InputFile::open(InputKind::Kernel, boot.kernel)?;
    let start = kernel.read_at(0, multiboot::SEARCH)?;
    if bzimage::is_bzimage(&start) {
        return bzimage::load(ram, kernel, boot);
    }
    let multiboot = multiboot::find_header(&start);
    if !elf::is_elf(&start) {
        return match multiboot {
            Some(header) => multiboot::load(ram, kernel, header, &start, boot),
            None => Err(BootError::UnknownFormat { path: kernel.path() }),
        };
    }
    let elf = elf::read(kernel)?;
    match (elf.pvh_entry, elf.class, multiboot) {
        (Some(entry), ..) => pvh::load(ram, elf, entry, boot),
        (None, elf::Class::Elf64, _) => vmlinux::load(ram, elf, boot),
        (None, elf::Class::Elf32, Some(header)) => multiboot::load(ram, elf.image.file, header, &start, boot),
        (None, elf::Class::Elf32, None) => {
            let found = "a 32-bit file without PVH note and multiboot header".to_owned();
            Err(elf.image.wrong(4, found, "one of these, or 64 bits"))
        }
    }
}

/// Where the boot structures lie in the guest's first 640 KiB; the kernel copies what it needs before it reuses them.
pub mod layout {
    /// Global descriptor table.
    pub const GDT: u64 = 0x1000;
    /// Initial stack pointer; the stack grows down towards the GDT.
    pub const STACK_TOP: u64 = 0x8000;
    /// Linux's zero page (`struct boot_params`), 4 KiB.
    pub const ZERO_PAGE: u64 = 0x8000;
    /// The start information of a PVH kernel; such a kernel gets no page tables, and has their place for it as well.
    pub const BOOT_INFO: u64 = ZERO_PAGE;
    /// Page tables: one PML4 page, one page of directory pointers, four page directories.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Kernel command line.
    pub const CMDLINE: u64 = 0x2_0000;
    /// Bytes kept for the command line with its NUL.
    pub const CMDLINE_BYTES: u64 = 0x1_0000;
    /// Extended BIOS data area: the end of usable conventional memory.
    pub const EBDA: u64 = 0x9_fc00;
    /// ACPI tables (end exclusive); the root pointer is at the start, where older kernels search for it as well.
    pub const ACPI: std::ops::Range<u64> = 0xe_0000..0xf_e000;
    /// MP floating pointer and configuration table (end exclusive), in the 64 KiB where kernels search for the pointer.
    pub const MP: std::ops::Range<u64> = 0xf_e000..0x10_0000;
}
