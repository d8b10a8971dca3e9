use super::super::error::ErrorKind;
use super::super::testing::{ElfFile, LOAD, PAYLOAD, Scratch, assert_parts, boot, pvh, refused, xen_note};
use super::super::{BootError, InputKind};
use super::*;
use crate::memory::GuestRam;

const MIB: u64 = 1 << 20;

fn parsed(bytes: &[u8]) -> Result<Elf, BootError> {
    let file = Scratch::file(bytes);
    read(InputFile::open(InputKind::Kernel, file.path()).unwrap())
}

fn with(mut bytes: Vec<u8>, offset: usize, patch: &[u8]) -> Vec<u8> {
    bytes[offset..offset + patch.len()].copy_from_slice(patch);
    bytes
}

#[test]
fn both_classes_say_the_same() {
    for wide in [false, true] {
        let elf = parsed(&ElfFile::new(wide).bytes()).unwrap();
        assert_eq!(elf.class, if wide { Class::Elf64 } else { Class::Elf32 });
        assert_eq!((elf.entry.address, elf.entry.found_at), (LOAD, 24));
        assert_eq!(elf.pvh_entry, None);
        let places = elf.image.segments.iter().map(|s| (s.address, s.file_bytes, s.memory_bytes));
        assert_eq!(places.collect::<Vec<_>>(), [(LOAD, PAYLOAD as u64, PAYLOAD as u64), (LOAD + 0x4000, 100, 0x8000)]);
    }
}

/// Several note segments, several notes in each, names and contents that need padding.
#[test]
fn the_pvh_note_is_found_wherever_it_is() {
    let file = pvh(0x123_4567).bytes();
    let entry = parsed(&file).unwrap().pvh_entry.unwrap();
    assert_eq!(entry.address, 0x123_4567);
    assert_eq!(file[entry.found_at as usize..][..4], 0x123_4567_u32.to_le_bytes());
}

#[test]
fn notes_that_are_garbled_are_no_pvh_notes() {
    let good = xen_note(18, &[1, 2, 3, 4]);
    let gnu = with(good.clone(), 12, b"GNU\0");
    let short = xen_note(18, &[1, 2, 3]);
    let endless = with(xen_note(5, b""), 4, &[0xff; 4]);
    let named = with(xen_note(5, b""), 0, &[0xff; 4]);
    for note in [&gnu, &short, &endless, &named, &good[..good.len() - 1], &good[..11]] {
        let file = ElfFile { notes: vec![note.to_vec()], ..ElfFile::new(true) };
        assert_eq!(parsed(&file.bytes()).unwrap().pvh_entry, None, "{note:x?}");
    }
}

#[test]
fn a_header_that_is_wrong_is_named_with_its_offset() {
    let good = ElfFile::new(true).bytes();
    for (offset, patch, parts) in [
        (4, &[3][..], &["offset 0x4", "class Some(3)"][..]),
        (5, &[2], &["offset 0x5", "data encoding 2", "little-endian"]),
        (16, &[3], &["offset 0x10", "type 3", "an executable"]),
        (18, &[183], &["offset 0x12", "machine 183", "62 (x86-64)"]),
        (18, &[3], &["offset 0x12", "machine 3"]),
        (54, &[32], &["offset 0x36", "program headers of 32 bytes", "56 with 64 bits"]),
        (56, &[0], &["offset 0x38", "0 program headers"]),
        (56, &[129], &["offset 0x38", "129 program headers", "1 to 128"]),
        (32, &[0xff; 8], &["offset 0x20", "0xffffffffffffffff", "inside the file"]),
        (33, &[0xff], &["offset 0x20", "program headers inside the file"]),
    ] {
        let error = parsed(&with(good.clone(), offset, patch)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        assert_parts(&error.to_string(), parts);
        assert_parts(&error.to_string(), &["no bootable ELF kernel", "give the vmlinux"]);
    }
    assert_parts(&parsed(&good[..63]).unwrap_err().to_string(), &["offset 0x3f", "the end of the file"]);
    assert_parts(&parsed(&good[..4]).unwrap_err().to_string(), &["offset 0x4", "class None"]);
}

/// Segments of this kernel are refused with these words, by their own protocol and by PVH.
#[track_caller]
fn segments_refused(segments: Vec<(u64, Vec<u8>, u64)>, memory: u64, parts: &[&str]) {
    for file in [ElfFile { segments: segments.clone(), ..ElfFile::new(true) }, ElfFile { segments, ..pvh(LOAD as u32) }]
    {
        let file = Scratch::file(&file.bytes());
        assert_parts(&refused(&GuestRam::new(memory).unwrap(), &boot(&file)), parts);
    }
}

#[test]
fn segments_that_overlap_wrap_or_lie_outside_memory_are_refused() {
    let some = vec![0x90; 0x100];
    let first = (LOAD, some.clone(), 0x2000);
    let refused = |second: (u64, u64), parts: &[&str]| {
        segments_refused(vec![first.clone(), (second.0, some.clone(), second.1)], 64 * MIB, parts);
    };
    refused((LOAD + 0x1fff, 0x100), &["at 0x1001fff inside that of 0x1000000-0x1002000", "don't overlap"]);
    refused((LOAD, 0x100), &["don't overlap"]);
    refused((u64::MAX - 0x10, 0x100), &["address 0xffffffffffffffef for 256 bytes", "below the device hole"]);
    refused((0xcfff_ff80, 0x100), &["below the device hole at 0xd0000000"]);
    refused((0x9_0000, 0x100), &["address 0x90000", "1 MiB or above"]);
    refused((LOAD + 0x2000, 0xff), &["256 bytes in the file for 255 in memory"]);
    refused((64 * MIB - 0x80, 0x100), &["needs memory up to 0x4000080", "--memory 65M or more"]);
    let nothing = Scratch::file(&ElfFile { segments: Vec::new(), ..pvh(LOAD as u32) }.bytes());
    assert_parts(
        &super::super::testing::refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&nothing)),
        &["nothing to load"],
    );
    segments_refused(vec![(LOAD + 1, some.clone(), 0x100)], 64 * MIB, &["entry point 0x1000000", "in what is loaded"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let good = ElfFile::new(true).bytes();
    let file = Scratch::file(&good[..good.len() - 1]);
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&file));
    assert_parts(&line, &["100 bytes from offset", "inside the file (is it truncated?)"]);
}

#[test]
fn a_32_bit_file_needs_a_pvh_note_or_a_multiboot_header() {
    let file = Scratch::file(&ElfFile::new(false).bytes());
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&file));
    assert_parts(&line, &["offset 0x4", "32-bit file without PVH note and multiboot header"]);
}
