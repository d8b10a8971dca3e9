//! Kernel images of every format, their headers overwritten, cut off and stretched: the loaders say what is wrong in one
//! line, or load.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm::bare::{MEMORY, load_kernel};
use vmm::{Error, exit_code};

use super::op::{Op, Target, check};

/// The longest image, in bytes.
const LONGEST: usize = 0x1_0000;
/// Offsets that some loader reads: multiboot and ELF headers, program headers, the note, the bzImage's.
const OFFSETS: [usize; 48] = [
    0, 4, 5, 8, 12, 16, 18, 20, 24, 28, 32, 40, 42, 44, 48, 52, 54, 56, 60, 64, 68, 72, 76, 80, 84, 88, 96, 104, 112,
    120, 0x1f1, 0x1f4, 0x1fe, 0x200, 0x202, 0x206, 0x211, 0x214, 0x224, 0x228, 0x22c, 0x230, 0x236, 0x238, 0x248,
    0x250, 0x258, 0x260,
];
/// Numbers that are telling for addresses and sizes here.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0xf_ffff,
    0x10_0000,
    0x10_0001,
    0x9_fc00,
    0xa_0000,
    MEMORY - 1,
    MEMORY,
    MEMORY + 1,
    0xcfff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX,
    u64::MAX - 0xfff,
    1 << 63,
];

/// A file that is patched and loaded, over and over.
pub struct Boot {
    image: Vec<u8>,
    file: ScratchFile,
    initrd: ScratchFile,
    loaded: u64,
    refused: u64,
}

impl Target for Boot {
    const LIFE: u64 = 10_000;
    const SIGHTS: &'static [&'static str] = &["loaded", "refused"];

    /// A load maps memory and writes files.
    fn size(op: &Op) -> u64 {
        if op.kind(16) >= 12 { 40 } else { 1 }
    }

    fn new() -> Self {
        let initrd = ScratchFile::new();
        initrd.write(&[0x5a; 5000]);
        Self { image: base(0), file: ScratchFile::new(), initrd, loaded: 0, refused: 0 }
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op.kind(16) {
            0 | 1 => self.image = base(op.place()),
            2..10 => self.patch(op),
            10 => self.image.truncate(op.raw() as usize % (self.image.len() + 1)),
            11 => self.image.resize((self.image.len() + (op.raw() as usize & 0x1fff)).min(LONGEST), op.place()),
            _ => return self.load(op),
        }
        Ok(())
    }

    fn sights(&self) -> Vec<(&'static str, u64)> {
        vec![("loaded", self.loaded), ("refused", self.refused)]
    }
}

impl Boot {
    fn patch(&mut self, op: &Op) {
        let at =
            if op.choice(4) == 0 { op.raw() as usize >> 16 } else { OFFSETS[usize::from(op.place()) % OFFSETS.len()] };
        let value = if op.choice(2) == 0 { op.value() } else { NUMBERS[(op.raw() & 15) as usize] };
        let bytes = [1, 2, 4, 8][usize::from(op.0[2] >> 6)];
        let at = at % self.image.len().max(1);
        for (to, from) in self.image[at..].iter_mut().zip(&value.to_le_bytes()[..bytes]) {
            *to = *from;
        }
    }

    fn load(&mut self, op: &Op) -> Result<(), String> {
        self.file.write(&self.image);
        let initrd = (op.choice(2) == 0).then_some(&self.initrd.0);
        let cmdline = "x".repeat(usize::from(op.place()) * 2);
        match load_kernel(MEMORY, &self.file.0, initrd.map(PathBuf::as_path), &cmdline) {
            Ok(()) => self.loaded += 1,
            Err(error) => {
                self.refused += 1;
                let error = Error::from(error);
                let line = error.to_string();
                check(error.exit_code() == exit_code::USAGE, || format!("not the file's fault: {line}"))?;
                check(line.lines().count() == 1 && line.len() < 600, || format!("not a line: {line:?}"))?;
            }
        }
        Ok(())
    }
}

/// An image that loads, of the format that `which` chooses.
fn base(which: u8) -> Vec<u8> {
    match which % 5 {
        0 => bzimage(),
        1 => flat_multiboot(),
        2 => elf(1, [&multiboot_header(3)[..], &[0xf4; 64]].concat()),
        3 => elf(2, vec![0xf4; 128]),
        // A PVH note, in its own segment of the same bytes.
        _ => elf(2, [note(), vec![0xf4; 128]].concat()),
    }
}

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Linux's Documentation/arch/x86/boot.rst, section "The Real-Mode Kernel Header".
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 0x600];
    for (offset, bytes) in [
        (0x1f1, &[1][..]),
        (0x1f4, &0x20_u32.to_le_bytes()),
        (0x1fe, &[0x55, 0xaa]),
        (0x202, b"HdrS"),
        (0x206, &0x020f_u16.to_le_bytes()),
        (0x211, &[1]),
        (0x22c, &0x7fff_ffff_u32.to_le_bytes()),
        (0x236, &1_u16.to_le_bytes()),
        (0x238, &255_u32.to_le_bytes()),
        (0x258, &0x20_0000_u64.to_le_bytes()),
        (0x260, &0x1_0000_u32.to_le_bytes()),
    ] {
        put(&mut image, offset, bytes);
    }
    image
}

/// Multiboot Specification 0.6.96, section "The layout of Multiboot header".
fn multiboot_header(flags: u32) -> [u8; 12] {
    let magic = 0x1bad_b002_u32;
    let words = [magic, flags, 0_u32.wrapping_sub(magic).wrapping_sub(flags)];
    let mut bytes = [0; 12];
    words.iter().zip(bytes.chunks_mut(4)).for_each(|(word, chunk)| chunk.copy_from_slice(&word.to_le_bytes()));
    bytes
}

fn flat_multiboot() -> Vec<u8> {
    let mut image = vec![0xf4; 0x400];
    put(&mut image, 0, &multiboot_header(1 << 16));
    for (at, address) in [0x20_0000_u32, 0x20_0000, 0, 0, 0x20_0020].iter().enumerate() {
        put(&mut image, 12 + 4 * at, &address.to_le_bytes());
    }
    image
}

/// An executable of this class with `contents` at 2 MiB; what begins it is a note, too.
fn elf(class: u8, contents: Vec<u8>) -> Vec<u8> {
    let wide = class == 2;
    let (header, entry) = if wide { (64_usize, 56_usize) } else { (52, 32) };
    let start = header + 2 * entry;
    let word = |value: u64| value.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
    let half = |value: usize| (value as u16).to_le_bytes().to_vec();
    let full = |value: u32| value.to_le_bytes().to_vec();
    let segment = |kind: u32| {
        let (offset, address, bytes) = (word(start as u64), word(0x20_0000), word(contents.len() as u64));
        let fields = if wide {
            vec![full(kind), full(7), offset, address.clone(), address, bytes.clone(), bytes, word(4)]
        } else {
            vec![full(kind), offset, address.clone(), address, bytes.clone(), bytes, full(7), word(4)]
        };
        fields.concat()
    };
    let machine = if wide { 62 } else { 3 };
    [
        [&b"\x7fELF"[..], &[class, 1, 1], &[0; 9]].concat(),
        [half(2), half(machine), full(1), word(0x20_0000), word(header as u64), word(0), full(0)].concat(),
        [half(header), half(entry), half(2), half(0), half(0), half(0)].concat(),
        segment(1),
        segment(4),
        contents,
    ]
    .concat()
}

/// `XEN_ELFNOTE_PHYS32_ENTRY` (Xen's public/elfnote.h).
fn note() -> Vec<u8> {
    [&4_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), &18_u32.to_le_bytes(), b"Xen\0", &0x20_0000_u32.to_le_bytes()]
        .concat()
}

/// A file of this target alone, removed when dropped.
struct ScratchFile(PathBuf);

impl ScratchFile {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("tophalf-fuzz-{}-{number}", std::process::id())))
    }

    fn write(&self, contents: &[u8]) {
        fs::write(&self.0, contents).unwrap_or_else(|e| panic!("{}: {e}", self.0.display()));
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}
