//! What the tests of this module share: scratch files, and images that are only headers and a pattern.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::{Boot, ErrorKind, layout, load};
use crate::memory::GuestRam;

/// A scratch file or directory name, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn file(contents: &[u8]) -> Self {
        let scratch = Self::name();
        std::fs::write(&scratch.0, contents).unwrap();
        scratch
    }

    pub fn sparse(bytes: u64) -> Self {
        let scratch = Self::name();
        std::fs::File::create(&scratch.0).unwrap().set_len(bytes).unwrap();
        scratch
    }

    pub fn directory() -> Self {
        let scratch = Self::name();
        std::fs::create_dir(&scratch.0).unwrap();
        scratch
    }

    /// A name with nothing there.
    pub fn name() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("tophalf-boot-{}-{number}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.is_dir() {
            let _ = std::fs::remove_dir(&self.0);
        } else {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Bytes of the fake kernel's protected-mode part.
pub const PAYLOAD: usize = 0x3000;
/// Its preferred address.
pub const LOAD: u64 = 0x100_0000;
/// The memory it says it needs from there.
pub const INIT_SIZE: u32 = 0x50_0000;
/// The longest command line it says it takes.
pub const CMDLINE_SIZE: u32 = 64;
/// Bytes of its real-mode part: a boot sector and two setup sectors.
pub const SETUP: usize = 3 * 512;

/// A well-formed bzImage of protocol 2.15 with a 64-bit entry point.
pub fn bzimage() -> Vec<u8> {
    let mut image = vec![0; SETUP];
    image.extend((0..PAYLOAD).map(|i| (i % 251) as u8));
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1f4, &((PAYLOAD / 16) as u32).to_le_bytes());
    put(0x1fa, &0xffff_u16.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[0x01]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1, 21]);
    put(0x236, &0x007f_u16.to_le_bytes());
    put(0x238, &CMDLINE_SIZE.to_le_bytes());
    put(0x250, &0xdead_beef_u64.to_le_bytes());
    put(0x258, &LOAD.to_le_bytes());
    put(0x260, &INIT_SIZE.to_le_bytes());
    put(0x268, &0x1234_u32.to_le_bytes());
    image
}

/// [`bzimage`] with some bytes replaced.
pub fn bzimage_with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = bzimage();
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    image
}

/// An ELF executable to be written.
pub struct ElfFile {
    /// Fields of 64 bits.
    pub wide: bool,
    /// The header's entry point.
    pub entry: u64,
    /// Address, contents, and bytes in memory of each segment.
    pub segments: Vec<(u64, Vec<u8>, u64)>,
    /// Contents of each note segment.
    pub notes: Vec<Vec<u8>>,
}

impl ElfFile {
    /// A segment with a pattern at [`LOAD`], and one behind it that has more memory than bytes; entry at [`LOAD`].
    pub fn new(wide: bool) -> Self {
        let pattern = |len: usize| (0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>();
        let segments = vec![(LOAD, pattern(PAYLOAD), PAYLOAD as u64), (LOAD + 0x4000, pattern(100), 0x8000)];
        Self { wide, entry: LOAD, segments, notes: Vec::new() }
    }

    /// The file: headers, then everything in its order.
    pub fn bytes(&self) -> Vec<u8> {
        let mut ident = b"\x7fELF\x01\x01\x01".to_vec();
        ident[4] += u8::from(self.wide);
        ident.resize(16, 0);
        let count = self.segments.len() + self.notes.len();
        let (header, entry) = if self.wide { (64, 56) } else { (52, 32) };
        let mut fields = Fields { bytes: ident, wide: self.wide };
        fields.u16(2).u16(if self.wide { 62 } else { 3 }).u32(1);
        fields.word(self.entry).word(header).word(0).u32(0);
        fields.u16(header as u16).u16(entry as u16).u16(count as u16).u16(0).u16(0).u16(0);

        let mut contents: Vec<u8> = Vec::new();
        let start = header + entry * count as u64;
        let loads = self.segments.iter().map(|(address, bytes, memory)| (1, *address, bytes, *memory));
        let notes = self.notes.iter().map(|bytes| (4, 0, bytes, bytes.len() as u64));
        for (kind, address, bytes, memory) in loads.chain(notes) {
            let offset = start + contents.len() as u64;
            fields.u32(kind);
            if self.wide {
                fields.u32(7);
            }
            fields.word(offset).word(0xffff_8000 | address).word(address).word(bytes.len() as u64).word(memory);
            if !self.wide {
                fields.u32(7);
            }
            fields.word(4);
            contents.extend(bytes);
        }
        fields.bytes.extend(contents);
        fields.bytes
    }
}

/// A multiboot header with these flags and address fields: header, load, load end, bss end, entry.
pub fn multiboot_header(flags: u32, addresses: [u32; 5]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    [magic, flags, checksum].into_iter().chain(addresses).flat_map(u32::to_le_bytes).collect()
}

/// Bytes before the header of [`flat`].
pub const FLAT_BEFORE: usize = 16;

/// A flat multiboot image of 0x1000 bytes that loads at [`LOAD`], with as much zeroed memory behind it.
pub fn flat() -> Vec<u8> {
    let load = LOAD as u32;
    flat_with([load + FLAT_BEFORE as u32, load, load + 0x1000, load + 0x2000, load + 0x40])
}

/// [`flat`] with other address fields.
pub fn flat_with(addresses: [u32; 5]) -> Vec<u8> {
    let mut image = vec![0x90; FLAT_BEFORE];
    image.extend(multiboot_header(0x1_0003, addresses));
    image.extend((image.len()..0x1000).map(|i| (i % 251) as u8));
    image
}

/// A 32-bit ELF file with a multiboot header in its first segment.
pub fn multiboot_elf() -> ElfFile {
    let mut file = ElfFile::new(false);
    file.segments[0].1.splice(..32, multiboot_header(0, [0; 5]));
    file
}

/// A note of Xen's with these contents.
pub fn xen_note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut fields = Fields { bytes: Vec::new(), wide: false };
    fields.u32(4).u32(contents.len() as u32).u32(kind);
    fields.bytes.extend(b"Xen\0");
    fields.bytes.extend(contents);
    fields.bytes.resize(fields.bytes.len().next_multiple_of(4), 0);
    fields.bytes
}

/// An ELF file whose PVH note names `entry`.
pub fn pvh(entry: u32) -> ElfFile {
    let property = xen_note(6, b"some other note");
    let note = [xen_note(5, b"linux-2.6"), xen_note(18, &entry.to_le_bytes())].concat();
    // The note that counts is neither the first nor in the last segment.
    ElfFile { notes: vec![property.clone(), note, property], ..ElfFile::new(true) }
}

struct Fields {
    bytes: Vec<u8>,
    wide: bool,
}

impl Fields {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u64) -> &mut Self {
        let bytes = if self.wide { 8 } else { 4 };
        self.bytes.extend(&value.to_le_bytes()[..bytes]);
        self
    }
}

/// [`Boot`] with an ACPI root pointer and nothing else but the kernel.
pub fn boot(kernel: &Scratch) -> Boot<'_> {
    Boot { kernel: kernel.path(), initrd: None, overlay: &[], modules: &[], cmdline: None, rsdp: layout::ACPI.start }
}

/// Guest memory.
pub fn read(ram: &GuestRam, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// Loads what must be refused as bad input; gives the message after checking that guest memory was left alone.
pub fn refused(ram: &GuestRam, boot: &Boot<'_>) -> String {
    let error = load(ram, boot).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    assert_eq!(read(ram, 0, 0x3_0000), vec![0; 0x3_0000], "low memory was written");
    if ram.memory().address_in_range(GuestAddress(LOAD)) {
        assert_eq!(read(ram, LOAD, 64), vec![0; 64], "the kernel was loaded");
    }
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

/// Checks that `line` has all of `parts`.
#[track_caller]
pub fn assert_parts(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
}
