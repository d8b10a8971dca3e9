//! The information structure and what it points at.

use vm_memory::{Bytes, GuestAddress};

use super::super::image::Image;
use super::super::modules::Modules;
use super::super::{BootError, ONE_MIB, entry, layout, zero_page};
use crate::memory::{GuestRam, PAGE_BYTES};

const NAME: &[u8] = b"Tophalf\0";
/// Which fields are valid: memory sizes, command line, modules, memory map, the loader's name.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
/// Bytes up to and with the loader's name and the APM table, which is not there.
const STRUCTURE: usize = 72;
const MEMORY_MAP_ENTRY: u32 = 24;
const MODULE_ENTRY: usize = 16;
/// The lowest place: above the BIOS data area.
const LOWEST: u64 = PAGE_BYTES;

/// What goes to memory, and where.
#[derive(Debug)]
pub struct Info {
    address: u64,
    bytes: Vec<u8>,
}

impl Info {
    /// Makes the structure and finds a place for it and a GDT, clear of the image and the modules.
    pub fn place(ram: &GuestRam, image: &Image, modules: &Modules, line: &str) -> Result<Self, BootError> {
        let bytes = entry::GDT_BYTES + contents(ram, modules, line, 0).len() as u64;
        let no_room = BootError::NoRoomForInfo { bytes, modules: modules.list().len() };
        let address = place(bytes, ram, image, modules).ok_or(no_room)?;
        Ok(Self { address, bytes: contents(ram, modules, line, address + entry::GDT_BYTES) })
    }

    /// Where the GDT goes.
    pub fn gdt(&self) -> u64 {
        self.address
    }

    /// Where the structure is.
    pub fn address(&self) -> u64 {
        self.address + entry::GDT_BYTES
    }

    /// Writes it.
    pub fn write(&self, ram: &GuestRam) -> Result<(), BootError> {
        ram.memory()
            .write_slice(&self.bytes, GuestAddress(self.address()))
            .map_err(|cause| BootError::GuestWrite { what: "the multiboot information", cause })
    }
}

/// The highest page below the EBDA from which `bytes` fit; failing that, the lowest one after the image.
fn place(bytes: u64, ram: &GuestRam, image: &Image, modules: &Modules) -> Option<u64> {
    let down = |end: u64| end.checked_sub(bytes).map(|start| start / PAGE_BYTES * PAGE_BYTES);
    let mut low = down(layout::EBDA);
    // By address, so one look at each is enough on the way down.
    for segment in image.segments.iter().rev() {
        if low.is_some_and(|start| start < segment.end() && segment.address < start + bytes) {
            low = down(segment.address);
        }
    }
    if let Some(start) = low.filter(|&start| start >= LOWEST) {
        return Some(start);
    }
    let image_end = image.segments.last().map_or(0, |segment| segment.end());
    let start = image_end.max(ONE_MIB).next_multiple_of(PAGE_BYTES);
    let end = modules.list().iter().map(|module| module.start).min().unwrap_or(ram.low_end());
    (start + bytes <= end).then_some(start)
}

/// The structure, for `address`, and behind it memory map, module list and strings.
fn contents(ram: &GuestRam, modules: &Modules, line: &str, address: u64) -> Vec<u8> {
    let map: Vec<u8> = zero_page::e820_map(ram)
        .iter()
        .flat_map(|entry| {
            // Its own size field does not count.
            let head = (MEMORY_MAP_ENTRY - 4).to_le_bytes();
            let (start, bytes) = (entry.start.to_le_bytes(), (entry.end - entry.start).to_le_bytes());
            // The types are the same numbers.
            [&head[..], &start, &bytes, &(entry.kind as u32).to_le_bytes()].concat()
        })
        .collect();
    let list = modules.list();
    let list_bytes = list.len() * MODULE_ENTRY;
    // All of it is below 4 GiB.
    let at = |offset: usize| (address + offset as u64) as u32;
    let (map_at, list_at) = (STRUCTURE, STRUCTURE + map.len());
    let strings_at = list_at + list_bytes;

    let mut strings = [line.as_bytes(), &[0]].concat();
    let name_at = strings_at + strings.len();
    strings.extend(NAME);
    let mut entries = Vec::with_capacity(list_bytes);
    for module in list {
        let string = at(strings_at + strings.len());
        let (start, end) = (module.start as u32, (module.start + module.bytes()) as u32);
        entries.extend([start, end, string, 0].into_iter().flat_map(u32::to_le_bytes));
        // A file's name has no NUL.
        strings.extend(module.name().bytes().chain([0]));
    }

    let mut fields = [0_u32; STRUCTURE / 4];
    fields[0] = FLAGS;
    fields[1] = (layout::EBDA >> 10) as u32;
    fields[2] = ((ram.low_end() - ONE_MIB) >> 10) as u32;
    fields[4] = at(strings_at);
    fields[5] = list.len() as u32;
    fields[6] = at(list_at);
    fields[11] = map.len() as u32;
    fields[12] = at(map_at);
    fields[16] = at(name_at);
    [fields.into_iter().flat_map(u32::to_le_bytes).collect(), map, entries, strings].concat()
}
