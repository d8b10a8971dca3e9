use super::super::testing::{ElfFile, LOAD, PAYLOAD, Scratch, assert_parts, boot, read, refused};
use super::super::{Boot, layout, load};
use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn the_zero_page_has_a_header_although_the_file_has_none() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let (kernel, initrd) = (Scratch::file(&ElfFile::new(true).bytes()), Scratch::file(&[0xa5; 5000]));
    let boot = Boot { initrd: Some(initrd.path()), cmdline: Some("quiet"), ..boot(&kernel) };
    let state = load(&ram, &boot).unwrap();

    assert_eq!((state.rip, state.rsi, state.efer), (LOAD, layout::ZERO_PAGE, 0x500));
    assert_eq!(read(&ram, LOAD, PAYLOAD), ElfFile::new(true).segments[0].1);
    let page = read(&ram, layout::ZERO_PAGE, 4096);
    assert_eq!((&page[0x1fe..0x200], &page[0x202..0x206]), (&[0x55, 0xaa][..], &b"HdrS"[..]));
    let dword = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    assert_eq!((dword(0x218), dword(0x21c)), (64 * MIB as u32 - 0x2000, 5000));
    assert_eq!(read(&ram, dword(0x228).into(), 6), b"quiet\0");
    assert_eq!(dword(0x238), 2047);
    // The number of memory map entries, and the root pointer.
    assert_eq!((page[0x1e8], dword(0x70)), (4, layout::ACPI.start as u32));
}

#[test]
fn what_linux_would_cut_off_or_not_see_is_refused() {
    let kernel = Scratch::file(&ElfFile::new(true).bytes());
    let ram = GuestRam::new(64 * MIB).unwrap();
    let cmdline = "x".repeat(2048);
    let line = refused(&ram, &Boot { cmdline: Some(&cmdline), ..boot(&kernel) });
    assert_parts(&line, &["2048 bytes", "at most 2047"]);
    let modules = [kernel.path().to_owned()];
    let line = refused(&ram, &Boot { modules: &modules, ..boot(&kernel) });
    assert_parts(&line, &["no modules", "leave out --module"]);
}

#[test]
fn the_initrd_keeps_clear_of_the_memory_after_the_file() {
    let mut file = ElfFile::new(true);
    file.segments[1].2 = 40 * MIB;
    let (kernel, initrd) = (Scratch::file(&file.bytes()), Scratch::sparse(9 * MIB));
    let ram = GuestRam::new(64 * MIB).unwrap();
    let line = refused(&ram, &Boot { initrd: Some(initrd.path()), ..boot(&kernel) });
    assert_parts(&line, &["needs memory up to 0x3804000", "does not fit"]);
}
