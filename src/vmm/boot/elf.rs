//! ELF kernels: headers, segments and the PVH note.
//!
//! Follows the ELF specification 1.2 (chapters "ELF Header", "Program Header", "Note Section") and its 64-bit counterpart
//! in the System V ABI. Own code beside linux-loader's: that one has no 32-bit files, forgets a PVH note when another note
//! segment follows, and finds what is wrong with a file when half of it is in guest memory.
//!
//! Not modelled: relocation, dynamic linking, sections, big-endian files, more than [`MAX_HEADERS`] program headers.

use super::error::BootError;
use super::file::InputFile;
use super::image::{Image, Segment};

#[cfg(test)]
mod tests;

const MAGIC: &[u8] = b"\x7fELF";
const HEADER_BYTES: usize = 64;
const IDENT_CLASS: usize = 4;
const IDENT_DATA: usize = 5;
const LITTLE_ENDIAN: u8 = 1;
const TYPE: usize = 16;
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE: usize = 18;
const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const ENTRY: usize = 24;
/// The most program headers that are read: kernels have a handful.
const MAX_HEADERS: u16 = 128;
/// How much of a note segment is read.
const MAX_NOTES: usize = 0x1_0000;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY` (Xen's public/elfnote.h): the entry point of a PVH kernel.
const NOTE_PVH_ENTRY: u32 = 18;
const NOTE_HEADER: usize = 12;
const REMEDY: &str = "give the vmlinux of an x86 kernel build, copied whole";

/// Width of the file's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `ELFCLASS32`
    Elf32,
    /// `ELFCLASS64`
    Elf64,
}

/// Offsets of the fields whose place depends on the class.
struct Fields {
    table: usize,
    entry_bytes: usize,
    count: usize,
    header_bytes: u16,
    offset: usize,
    address: usize,
    file_bytes: usize,
    memory_bytes: usize,
}

impl Class {
    const fn fields(self) -> Fields {
        match self {
            Self::Elf32 => Fields {
                table: 28,
                entry_bytes: 42,
                count: 44,
                header_bytes: 32,
                offset: 4,
                address: 12,
                file_bytes: 16,
                memory_bytes: 20,
            },
            Self::Elf64 => Fields {
                table: 32,
                entry_bytes: 54,
                count: 56,
                header_bytes: 56,
                offset: 8,
                address: 24,
                file_bytes: 32,
                memory_bytes: 40,
            },
        }
    }

    /// The address, offset or size at `at`; 0 beyond the end, which the callers have checked.
    fn word(self, bytes: &[u8], at: usize) -> u64 {
        match self {
            Self::Elf32 => u32_at(bytes, at).into(),
            Self::Elf64 => u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32,
        }
    }
}

/// An entry point and the offset in the file where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPoint {
    /// Guest address.
    pub address: u64,
    /// Offset in the file, for messages.
    pub found_at: u64,
}

/// An ELF file whose headers have been read.
#[derive(Debug)]
pub struct Elf {
    /// Width of its fields.
    pub class: Class,
    /// The ELF header's entry point.
    pub entry: EntryPoint,
    /// The PVH note's entry point.
    pub pvh_entry: Option<EntryPoint>,
    /// The segments to load.
    pub image: Image,
}

/// Whether a file that begins like this is to be taken for an ELF file.
pub fn is_elf(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Reads the headers and notes of `file`, which [`is_elf`].
pub fn read(file: InputFile) -> Result<Elf, BootError> {
    let mut image = Image { file, format: "ELF kernel", remedy: REMEDY, segments: Vec::new() };
    let start = image.file.read_at(0, HEADER_BYTES)?;
    let class = check_header(&image, &start)?;
    let fields = class.fields();
    let (table, count) = (class.word(&start, fields.table), u16_at(&start, fields.count));
    let headers = image.file.read_at(table, usize::from(count) * usize::from(fields.header_bytes))?;
    if headers.len() != usize::from(count) * usize::from(fields.header_bytes) {
        let found = format!("{count} program headers from offset {table:#x} on, of {} bytes", image.file.bytes);
        return Err(image.wrong(fields.table as u64, found, "program headers inside the file (is it truncated?)"));
    }
    let mut pvh_entry = None;
    for (index, header) in headers.chunks_exact(fields.header_bytes.into()).enumerate() {
        let segment = Segment {
            described_at: table + (index * usize::from(fields.header_bytes)) as u64,
            offset: class.word(header, fields.offset),
            address: class.word(header, fields.address),
            file_bytes: class.word(header, fields.file_bytes),
            memory_bytes: class.word(header, fields.memory_bytes),
        };
        match u32_at(header, 0) {
            SEGMENT_LOAD if segment.memory_bytes > 0 || segment.file_bytes > 0 => image.segments.push(segment),
            SEGMENT_NOTE if pvh_entry.is_none() => {
                let length = segment.file_bytes.min(MAX_NOTES as u64) as usize;
                let notes = image.file.read_at(segment.offset, length)?;
                pvh_entry = pvh_note(&notes)
                    .map(|(at, address)| EntryPoint { address: address.into(), found_at: segment.offset + at as u64 });
            }
            _ => {}
        }
    }
    let entry = EntryPoint { address: class.word(&start, ENTRY), found_at: ENTRY as u64 };
    Ok(Elf { class, entry, pvh_entry, image })
}

fn check_header(image: &Image, start: &[u8]) -> Result<Class, BootError> {
    let wrong = |offset: usize, found: String, expected| Err(image.wrong(offset as u64, found, expected));
    let class = match start.get(IDENT_CLASS) {
        Some(1) => Class::Elf32,
        Some(2) => Class::Elf64,
        other => return wrong(IDENT_CLASS, format!("class {other:?}"), "class 1 (32 bits) or 2 (64 bits)"),
    };
    let header_bytes = if class == Class::Elf32 { 52 } else { 64 };
    if start.len() < header_bytes {
        return wrong(start.len(), "the end of the file".to_owned(), "a whole ELF header");
    }
    if start[IDENT_DATA] != LITTLE_ENDIAN {
        return wrong(IDENT_DATA, format!("data encoding {}", start[IDENT_DATA]), "1, little-endian");
    }
    let kind = u16_at(start, TYPE);
    if kind != TYPE_EXECUTABLE {
        return wrong(TYPE, format!("type {kind}"), "2, an executable");
    }
    let machine = u16_at(start, MACHINE);
    let fits = machine == MACHINE_X86_64 || (machine == MACHINE_386 && class == Class::Elf32);
    if !fits {
        return wrong(MACHINE, format!("machine {machine}"), "62 (x86-64), or 3 (80386) with 32 bits");
    }
    let fields = class.fields();
    let entry_bytes = u16_at(start, fields.entry_bytes);
    if entry_bytes != fields.header_bytes {
        let found = format!("program headers of {entry_bytes} bytes");
        return wrong(fields.entry_bytes, found, "32 bytes each, or 56 with 64 bits");
    }
    let count = u16_at(start, fields.count);
    if !(1..=MAX_HEADERS).contains(&count) {
        return wrong(fields.count, format!("{count} program headers"), "1 to 128 program headers");
    }
    Ok(class)
}

/// The entry point in a Xen note of this kind, and its offset in `notes`.
fn pvh_note(notes: &[u8]) -> Option<(usize, u32)> {
    let mut at = 0;
    while let Some(header) = notes.get(at..at + NOTE_HEADER) {
        let (name_bytes, bytes, kind) = (u32_at(header, 0), u32_at(header, 4), u32_at(header, 8));
        let name = at + NOTE_HEADER;
        // Name and contents are padded to 4 bytes each.
        let contents = name.checked_add(usize::try_from(name_bytes.checked_next_multiple_of(4)?).ok()?)?;
        if kind == NOTE_PVH_ENTRY && notes.get(name..name + 4) == Some(b"Xen\0") && name_bytes == 4 && bytes >= 4 {
            notes.get(contents..contents + 4)?;
            return Some((contents, u32_at(notes, contents)));
        }
        at = contents.checked_add(usize::try_from(bytes.checked_next_multiple_of(4)?).ok()?)?;
    }
    None
}

/// Little-endian; 0 beyond the end.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
}
