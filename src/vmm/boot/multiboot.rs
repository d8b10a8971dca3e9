//! Starting a multiboot image (version 1): flat, or an ELF32 file.
//!
//! Follows the Multiboot Specification 0.6.96, sections "The layout of Multiboot header", "Machine state" and "Boot
//! information format": the header in the first 8192 bytes, 32-bit protected mode without paging, `EAX` the loader's
//! signature, `EBX` the information structure with memory sizes, memory map, command line, modules and the loader's name.
//! What the structure points at lies beside it, below the EBDA or, where the image leaves no room there, after the image.
//! The command line begins with the image's name, as with the boot loaders that the specification grew up with.
//!
//! Not modelled: video modes (an image that asks for one is refused), ELF section headers, drive tables, APM, the a.out
//! symbol table.

mod info;

use super::elf::{self, Class};
use super::entry::{self, BootState};
use super::error::BootError;
use super::file::InputFile;
use super::image::{Image, Segment};
use super::modules::Modules;
use super::{Boot, cmdline, zero_page};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

/// The header lies within so many bytes, on a 4-byte boundary.
pub const SEARCH: usize = 8192;
const MAGIC: u32 = 0x1bad_b002;
/// `EAX` at the entry point.
const SIGNATURE: u64 = 0x2bad_b002;
const FORMAT: &str = "multiboot image";
const REMEDY: &str = "check how the image was linked";

const FLAGS: usize = 4;
const CHECKSUM: usize = 8;
const HEADER_ADDR: usize = 12;
const LOAD_ADDR: usize = 16;
const LOAD_END_ADDR: usize = 20;
const BSS_END_ADDR: usize = 24;
const ENTRY_ADDR: usize = 28;
/// End of the header with its address fields.
const WITH_ADDRESSES: usize = 32;

/// The image needs modules on page boundaries (they always are), or the memory fields (which are always there).
const FLAGS_KNOWN: u32 = 0b11;
/// The lower half of the flags must be understood.
const FLAGS_REQUIRED: u32 = 0xffff;
const FLAG_ADDRESSES: u32 = 1 << 16;

/// A header in the first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset in the file.
    at: usize,
    /// The sum of magic, flags and checksum is zero.
    checksum_holds: bool,
}

/// Finds the header: the first whose checksum holds, else the first with the magic number.
pub fn find_header(start: &[u8]) -> Option<Header> {
    let start = &start[..start.len().min(SEARCH)];
    let fields = |at| (field(start, at), field(start, at + FLAGS), field(start, at + CHECKSUM));
    let mut found = None;
    for at in (0..start.len()).step_by(4) {
        if let (Some(MAGIC), Some(flags), Some(checksum)) = fields(at) {
            let checksum_holds = MAGIC.wrapping_add(flags).wrapping_add(checksum) == 0;
            let header = Header { at, checksum_holds };
            if checksum_holds {
                return Some(header);
            }
            found = found.or(Some(header));
        }
    }
    found
}

/// Loads the image in `file` with this header, found in its first bytes `start`; gives the BSP's registers.
///
/// # Errors
///
/// Input errors for files and command lines that are wrong or do not fit, before anything was written; host errors when a
/// file cannot be read to its end.
pub fn load(
    ram: &GuestRam,
    file: InputFile,
    header: Header,
    start: &[u8],
    boot: &Boot<'_>,
) -> Result<BootState, BootError> {
    let Loadable { mut image, entry, entry_at } = read(file, header, start)?;
    let kernel_end = image.check(ram, 0, entry, entry_at)?;
    let line = format!("{} {}", boot.kernel.display(), boot.cmdline.unwrap_or_default());
    let line = line.trim_end();
    cmdline::check(line, cmdline::MAX)?;
    let mut modules = Modules::open(boot)?;
    modules.place(ram, kernel_end, u64::MAX)?;
    let info = info::Info::place(ram, &image, &modules, line)?;

    // First, since the image may lie there.
    zero_page::write_bios_data(ram)?;
    image.load(ram)?;
    modules.load(ram)?;
    info.write(ram)?;
    let state = entry::protected_mode(ram.memory(), entry, info.gdt())?;
    Ok(BootState { rax: SIGNATURE, rbx: info.address(), ..state })
}

struct Loadable {
    image: Image,
    entry: u64,
    entry_at: u64,
}

fn read(file: InputFile, header: Header, start: &[u8]) -> Result<Loadable, BootError> {
    let image = Image { file, format: FORMAT, remedy: REMEDY, segments: Vec::new() };
    let at = header.at as u64;
    // It was found, so it is there.
    let flags = field(start, header.at + FLAGS).unwrap_or(0);
    if !header.checksum_holds {
        let checksum = field(start, header.at + CHECKSUM).unwrap_or(0);
        let expected = "a checksum that makes magic, flags and checksum 0 together";
        return Err(image.wrong(at + CHECKSUM as u64, format!("checksum {checksum:#x}"), expected));
    }
    if flags & FLAGS_REQUIRED & !FLAGS_KNOWN != 0 {
        let found = format!("flags {flags:#x}");
        return Err(image.wrong(
            at + FLAGS as u64,
            found,
            "no other requirements than bits 0 and 1 (there is no video)",
        ));
    }
    if flags & FLAG_ADDRESSES != 0 {
        return flat(image, header.at, start);
    }
    if !elf::is_elf(start) {
        let expected = "bit 16, address fields, in a file that is not ELF";
        return Err(image.wrong(at + FLAGS as u64, format!("flags {flags:#x}"), expected));
    }
    let elf = elf::read(image.file)?;
    let image = Image { format: FORMAT, remedy: REMEDY, ..elf.image };
    if elf.class != Class::Elf32 {
        return Err(image.wrong(4, "a 64-bit ELF file".to_owned(), "a 32-bit one, or address fields in the header"));
    }
    Ok(Loadable { image, entry: elf.entry.address, entry_at: elf.entry.found_at })
}

/// The one segment that the header's address fields describe.
fn flat(mut image: Image, at: usize, start: &[u8]) -> Result<Loadable, BootError> {
    if at + WITH_ADDRESSES > start.len() {
        let found = "the end of the file".to_owned();
        return Err(image.wrong(start.len() as u64, found, "a whole header with address fields"));
    }
    let value = |offset| u64::from(field(start, at + offset).unwrap_or(0));
    let wrong = |offset: usize, found, expected| Err(image.wrong((at + offset) as u64, found, expected));
    let (header, load, load_end) = (value(HEADER_ADDR), value(LOAD_ADDR), value(LOAD_END_ADDR));
    let (bss_end, entry) = (value(BSS_END_ADDR), value(ENTRY_ADDR));
    // The header lies in what is loaded, so many bytes after its start.
    let offset = header.checked_sub(load).and_then(|before| (at as u64).checked_sub(before));
    let Some(offset) = offset else {
        let found = format!("load_addr {load:#x} with the header at {header:#x}, offset {at:#x} in the file");
        return wrong(LOAD_ADDR, found, "a load_addr not above header_addr that is in the file");
    };
    let file_bytes = match load_end {
        0 => image.file.bytes.saturating_sub(offset),
        end if end > load => end - load,
        _ => {
            let found = format!("load_end_addr {load_end:#x} with load_addr {load:#x}");
            return wrong(LOAD_END_ADDR, found, "an end after the start");
        }
    };
    let memory_bytes = match bss_end {
        0 => file_bytes,
        end if end >= load + file_bytes => end - load,
        _ => {
            let found = format!("bss_end_addr {bss_end:#x} with {file_bytes} bytes to load at {load:#x}");
            return wrong(BSS_END_ADDR, found, "an end that is not before the end of what is loaded");
        }
    };
    let described_at = (at + LOAD_ADDR) as u64;
    image.segments = vec![Segment { described_at, offset, address: load, file_bytes, memory_bytes }];
    Ok(Loadable { image, entry, entry_at: (at + ENTRY_ADDR) as u64 })
}

/// The 32-bit field at `at`; `None` beyond the end.
fn field(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}
