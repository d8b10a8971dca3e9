//! Starting a 64-bit ELF kernel without a PVH note by Linux's own protocol.
//!
//! Follows Linux's Documentation/arch/x86/boot.rst, section "64-bit Boot Protocol". A `vmlinux` has no setup header, so one
//! is made up with what a loader fills in; the entry point is the ELF header's, a physical address.
//!
//! Not modelled: relocation (`CONFIG_RELOCATABLE` kernels run where they were linked), kernels that are not Linux.

use linux_loader::loader::bootparam::{LOADED_HIGH, setup_header};

use super::elf::Elf;
use super::entry::{self, BootState};
use super::error::BootError;
use super::modules::Modules;
use super::zero_page::{self, Placement};
use super::{Boot, DEFAULT_CMDLINE, ONE_MIB, cmdline};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

/// `COMMAND_LINE_SIZE` of x86 kernels, less the NUL: what is longer would be cut off.
const CMDLINE_MAX: u64 = 2047;
const BOOT_FLAG: u16 = 0xaa55;
/// The first protocol whose kernels have a 64-bit entry point.
const VERSION: u16 = 0x020c;
/// `CONFIG_PHYSICAL_ALIGN`, as most kernels have it.
const KERNEL_ALIGNMENT: u32 = 2 << 20;

/// Loads the kernel, the initrd and a zero page; gives the BSP's registers.
///
/// # Errors
///
/// Input errors for files and command lines that are wrong or do not fit, before anything was written; host errors when a
/// file cannot be read to its end.
pub fn load(ram: &GuestRam, elf: Elf, boot: &Boot<'_>) -> Result<BootState, BootError> {
    let Elf { entry: at, mut image, .. } = elf;
    image.format = "vmlinux";
    let kernel_end = image.check(ram, ONE_MIB, at.address, at.found_at)?;
    let line = boot.cmdline.unwrap_or(DEFAULT_CMDLINE);
    cmdline::check(line, CMDLINE_MAX)?;
    let mut modules = Modules::of_linux(boot)?;
    modules.place(ram, kernel_end, u64::MAX)?;

    image.load(ram)?;
    modules.load(ram)?;
    cmdline::write(ram, line)?;
    let kernel = image.segments.first().map_or(0, |segment| segment.address);
    let placement = Placement { kernel: kernel as u32, initrd: modules.initrd(), rsdp: boot.rsdp };
    zero_page::write(ram, &header(), &placement)?;
    entry::long_mode(ram.memory(), at.address)
}

/// What the kernel looks at in a header that no boot loader has read from a file.
fn header() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: u32::from_le_bytes(*b"HdrS"),
        version: VERSION,
        loadflags: LOADED_HIGH,
        cmdline_size: CMDLINE_MAX as u32,
        kernel_alignment: KERNEL_ALIGNMENT,
        ..Default::default()
    }
}
