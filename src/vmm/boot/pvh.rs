//! Starting an ELF kernel at the entry point of its PVH note.
//!
//! Follows Xen's docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and public/arch-x86/hvm/start_info.h: 32-bit protected
//! mode without paging, flat segments, `EBX` pointing at the start information of version 1 with memory map, command
//! line, modules and the ACPI root pointer.
//!
//! Not modelled: command lines of modules, the hypercall page (there is no Xen).

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::elf::{Elf, EntryPoint};
use super::entry::{self, BootState};
use super::error::BootError;
use super::modules::Modules;
use super::{Boot, DEFAULT_CMDLINE, ONE_MIB, cmdline, layout, zero_page};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

/// Version 1: with a memory map.
const VERSION: u32 = 1;
/// Memory map and module list follow the start information here.
const MEMORY_MAP: u64 = layout::BOOT_INFO + 0x40;
const MODULE_LIST: u64 = layout::BOOT_INFO + 0x200;
const MODULE_LIST_END: u64 = layout::CMDLINE;

/// Loads the kernel, the modules and the start information; gives the BSP's registers.
///
/// # Errors
///
/// Input errors for files and command lines that are wrong or do not fit, before anything was written; host errors when a
/// file cannot be read to its end.
pub fn load(ram: &GuestRam, elf: Elf, at: EntryPoint, boot: &Boot<'_>) -> Result<BootState, BootError> {
    let mut image = elf.image;
    image.format = "PVH kernel";
    let kernel_end = image.check(ram, ONE_MIB, at.address, at.found_at)?;
    let line = boot.cmdline.unwrap_or(DEFAULT_CMDLINE);
    cmdline::check(line, cmdline::MAX)?;
    let mut modules = Modules::open(boot)?;
    let limit = (MODULE_LIST_END - MODULE_LIST) as usize / size_of::<hvm_modlist_entry>();
    let count = modules.list().len();
    if count > limit {
        return Err(BootError::TooManyModules { count, limit });
    }
    modules.place(ram, kernel_end, u64::MAX)?;

    image.load(ram)?;
    modules.load(ram)?;
    cmdline::write(ram, line)?;
    zero_page::write_bios_data(ram)?;
    write_start_info(ram, &modules, boot.rsdp)?;
    let mut state = entry::protected_mode(ram.memory(), at.address, layout::GDT)?;
    state.rbx = layout::BOOT_INFO;
    Ok(state)
}

fn write_start_info(ram: &GuestRam, modules: &Modules, rsdp: u64) -> Result<(), BootError> {
    let map: Vec<hvm_memmap_table_entry> = zero_page::e820_map(ram)
        .iter()
        // The types are the same numbers.
        .map(|e| hvm_memmap_table_entry { addr: e.start, size: e.end - e.start, type_: e.kind as u32, reserved: 0 })
        .collect();
    let list: Vec<hvm_modlist_entry> = modules
        .list()
        .iter()
        .map(|module| hvm_modlist_entry { paddr: module.start, size: module.bytes(), ..Default::default() })
        .collect();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: list.len() as u32,
        modlist_paddr: if list.is_empty() { 0 } else { MODULE_LIST },
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    write_array(ram, layout::BOOT_INFO, &[info])?;
    write_array(ram, MEMORY_MAP, &map)?;
    write_array(ram, MODULE_LIST, &list)
}

fn write_array<T: ByteValued>(ram: &GuestRam, address: u64, items: &[T]) -> Result<(), BootError> {
    let bytes: Vec<u8> = items.iter().flat_map(|item| item.as_slice().iter().copied()).collect();
    ram.memory()
        .write_slice(&bytes, GuestAddress(address))
        .map_err(|cause| BootError::GuestWrite { what: "the start information", cause })
}
