//! The zero page (`struct boot_params`), the memory map, and the two BIOS data area words a kernel reads.
//!
//! Follows Linux's Documentation/arch/x86/boot.rst, section "64-bit Boot Protocol", and zero-page.rst. What only the
//! kernel's real-mode code reads (video mode, heap end) stays as the image has it: that code does not run.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};
use x86::platform;

use super::error::BootError;
use super::{ONE_MIB, layout};
use crate::memory::{GuestRam, VIDEO_HOLE};

#[cfg(test)]
mod tests;

/// `type_of_loader` of a loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;

/// BIOS data area: segment of the EBDA (word).
const BDA_EBDA_SEGMENT: u64 = 0x40e;
/// BIOS data area: KiB of conventional memory (word).
const BDA_BASE_MEMORY_KIB: u64 = 0x413;

/// What a range of the memory map is (ACPI specification, section "Address Range Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Type {
    /// RAM free for the operating system.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// A range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// First guest address.
    pub start: u64,
    /// End (exclusive).
    pub end: u64,
    /// What it is.
    pub kind: E820Type,
}

/// The memory map of `ram`, ascending and without overlaps.
///
/// The range of the ACPI and MP tables is reserved rather than reclaimable: the FACS lies in it as well.
pub fn e820_map(ram: &GuestRam) -> Vec<E820Entry> {
    let entry = |start, end, kind| E820Entry { start, end, kind };
    let mut map = vec![
        entry(0, layout::EBDA, E820Type::Ram),
        entry(layout::EBDA, VIDEO_HOLE.start, E820Type::Reserved),
        entry(layout::ACPI.start, layout::MP.end, E820Type::Reserved),
        entry(ONE_MIB, ram.low_end(), E820Type::Ram),
    ];
    if ram.high_bytes() > 0 {
        map.push(entry(platform::MMIO_HOLE_END, ram.end(), E820Type::Ram));
    }
    map
}

/// Where the loader put things.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    /// Address of the loaded protected-mode kernel.
    pub kernel: u32,
    /// Address and bytes of the initrd; 0 and 0 without one.
    pub initrd: (u32, u32),
    /// Address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Writes the zero page with the image's setup `header`, and the BIOS data area words.
pub fn write(ram: &GuestRam, header: &setup_header, placement: &Placement) -> Result<(), BootError> {
    let mut params = boot_params { hdr: *header, acpi_rsdp_addr: placement.rsdp, ..Default::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.code32_start = placement.kernel;
    params.hdr.cmd_line_ptr = layout::CMDLINE as u32;
    (params.hdr.ramdisk_image, params.hdr.ramdisk_size) = placement.initrd;
    // No chain of extra data, whatever the file says.
    params.hdr.setup_data = 0;
    let map = e820_map(ram);
    params.e820_entries = map.len() as u8;
    let mut table = params.e820_table;
    for (slot, entry) in table.iter_mut().zip(&map) {
        *slot = boot_e820_entry { addr: entry.start, size: entry.end - entry.start, r#type: entry.kind as u32 };
    }
    params.e820_table = table;
    let write_error = |cause| BootError::GuestWrite { what: "the zero page", cause };
    ram.memory().write_obj(params, GuestAddress(layout::ZERO_PAGE)).map_err(write_error)?;
    write_bios_data(ram)
}

/// Writes the two words: kernels find the end of conventional memory here, and distrust the area when it is all zero.
pub fn write_bios_data(ram: &GuestRam) -> Result<(), BootError> {
    let ebda_kib = (VIDEO_HOLE.start - layout::EBDA) >> 10;
    let memory = ram.memory();
    memory
        .write_obj((layout::EBDA >> 4) as u16, GuestAddress(BDA_EBDA_SEGMENT))
        .and_then(|()| memory.write_obj((layout::EBDA >> 10) as u16, GuestAddress(BDA_BASE_MEMORY_KIB)))
        .and_then(|()| memory.write_obj(ebda_kib as u8, GuestAddress(layout::EBDA)))
        .map_err(|cause| BootError::GuestWrite { what: "the BIOS data area", cause })
}
