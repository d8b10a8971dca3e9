use std::path::PathBuf;

use super::super::testing::{
    FLAT_BEFORE, LOAD, Scratch, assert_parts, boot, flat, flat_with, multiboot_elf, multiboot_header, read, refused,
};
use super::super::{Boot, layout, load};
use super::*;

const MIB: u64 = 1 << 20;
const AT: u32 = LOAD as u32;
const HEADER: u32 = AT + FLAT_BEFORE as u32;

fn dword(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

/// The string at `address`.
fn string(ram: &GuestRam, address: u64) -> String {
    let bytes = read(ram, address, 300);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap();
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

#[track_caller]
fn image_refused(image: &[u8], parts: &[&str]) {
    let kernel = Scratch::file(image);
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel));
    assert_parts(&line, parts);
}

#[test]
fn a_flat_image_goes_where_its_header_says() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&flat());
    let state = load(&ram, &boot(&kernel)).unwrap();
    assert_eq!(read(&ram, LOAD, 0x1000), flat());
    assert_eq!((state.rip, state.rax, state.cr0), (LOAD + 0x40, 0x2bad_b002, 0x11));
    assert!(state.cs.default_big && !state.cs.long);
}

/// Bytes before what is loaded are skipped; without an end address all of the file is loaded.
#[test]
fn address_fields_may_skip_the_start_and_leave_out_the_end() {
    let kernel = Scratch::file(&flat_with([HEADER, HEADER, 0, 0, HEADER]));
    let ram = GuestRam::new(64 * MIB).unwrap();
    load(&ram, &boot(&kernel)).unwrap();
    let image = flat_with([HEADER, HEADER, 0, 0, HEADER]);
    assert_eq!(read(&ram, HEADER.into(), image.len() - FLAT_BEFORE), image[FLAT_BEFORE..]);
}

#[test]
fn an_elf_image_goes_where_its_segments_say() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&multiboot_elf().bytes());
    let state = load(&ram, &boot(&kernel)).unwrap();
    assert_eq!((state.rip, state.rax), (LOAD, 0x2bad_b002));
    for (address, bytes, _) in &multiboot_elf().segments {
        assert_eq!(&read(&ram, *address, bytes.len()), bytes);
    }
}

#[test]
fn the_information_has_memory_command_line_modules_and_name() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let (kernel, initrd, module) = (Scratch::file(&flat()), Scratch::file(&[0xa5; 5000]), Scratch::file(&[0x5a; 10]));
    let modules = [module.path().to_owned()];
    let boot = Boot { initrd: Some(initrd.path()), modules: &modules, cmdline: Some("one two=3"), ..boot(&kernel) };
    let state = load(&ram, &boot).unwrap();
    let info = read(&ram, state.rbx, 72);

    assert_eq!(dword(&info, 0), 0x24d);
    assert_eq!((dword(&info, 4), dword(&info, 8)), (639, 63 << 10));
    assert_eq!(string(&ram, dword(&info, 16)), format!("{} one two=3", kernel.path().display()));
    assert_eq!(string(&ram, dword(&info, 64)), "Tophalf");
    assert_eq!(dword(&info, 20), 2);
    let list = read(&ram, dword(&info, 24), 32);
    for (at, file, byte, bytes) in [(0, &initrd, 0xa5, 5000), (16, &module, 0x5a, 10)] {
        let (start, end) = (dword(&list, at), dword(&list, at + 4));
        assert_eq!((start % 4096, end - start), (0, bytes));
        assert_eq!(read(&ram, start, bytes as usize), vec![byte; bytes as usize]);
        assert_eq!(string(&ram, dword(&list, at + 8)), file.path().to_string_lossy());
    }
    let map = read(&ram, dword(&info, 48), dword(&info, 44) as usize);
    let entries: Vec<_> = map.chunks(24).map(|e| (dword(e, 0), dword(e, 4), dword(e, 12), dword(e, 20))).collect();
    assert_eq!(entries.len(), 4);
    assert_eq!((entries[0], entries[3]), ((20, 0, 0x9_fc00, 1), (20, MIB, 63 * MIB, 1)));
    // Below the EBDA, and the GDT with it.
    assert!(state.rbx < layout::EBDA && state.gdt.base < layout::EBDA);
}

#[test]
fn without_words_the_command_line_is_the_images_name() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&flat());
    let state = load(&ram, &boot(&kernel)).unwrap();
    let info = read(&ram, state.rbx, 72);
    assert_eq!(string(&ram, dword(&info, 16)), kernel.path().to_string_lossy());
    assert_eq!(dword(&info, 20), 0);
}

/// Images for real mode lie where other protocols have their structures, up to all of conventional memory.
#[test]
fn the_information_keeps_clear_of_images_in_low_memory() {
    for (low, end) in [(0x8000, 0x9_f000), (0x1000, 0x9_fc00), (0, 0x9_fc00), (0x9_e000, 0x9_fc00)] {
        let ram = GuestRam::new(64 * MIB).unwrap();
        let image = flat_with([low + FLAT_BEFORE as u32, low, low + 0x1000, end, low]);
        let kernel = Scratch::file(&image);
        let state = load(&ram, &boot(&kernel)).unwrap();
        let info = state.gdt.base..state.rbx + 300;
        assert!(info.end <= low.into() || info.start >= end.into(), "{info:x?} in {low:#x}-{end:#x}");
        assert!(info.end <= layout::EBDA || info.start >= MIB, "{info:x?}");
        assert_eq!(read(&ram, low.into(), image.len()), image);
    }
}

#[test]
fn a_wrong_checksum_is_told_from_no_header() {
    let mut image = flat();
    image[FLAT_BEFORE + 8] ^= 1;
    image_refused(&image, &["no bootable multiboot image", "offset 0x18", "checksum 0xe4514ffa", "0 together"]);
    // Another header whose checksum holds counts.
    image.splice(0x800..0x820, multiboot_header(0x1_0000, [AT + 0x800, AT, 0, 0, AT]));
    let kernel = Scratch::file(&image);
    assert!(load(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel)).is_ok());
    // Beyond 8192 bytes there is none.
    let late = [vec![0; 8192 - 8], flat()].concat();
    image_refused(&late, &["no format known"]);
}

#[test]
fn requirements_that_are_not_met_are_refused() {
    let with_flags = |flags: u32| {
        let mut image = flat();
        image.splice(FLAT_BEFORE..FLAT_BEFORE + 32, multiboot_header(flags, [HEADER, AT, 0, 0, AT]));
        image
    };
    image_refused(&with_flags(0x1_0004), &["offset 0x14", "flags 0x10004", "no video"]);
    image_refused(&with_flags(0x1_8000), &["offset 0x14", "no other requirements"]);
    image_refused(&with_flags(0x3), &["offset 0x14", "bit 16, address fields", "not ELF"]);
    // The upper half may ask for what nobody knows.
    let kernel = Scratch::file(&with_flags(0xffff_0000));
    assert!(load(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel)).is_ok());
}

#[test]
fn addresses_that_make_no_sense_are_refused() {
    let refused = |addresses, parts: &[&str]| image_refused(&flat_with(addresses), parts);
    refused([AT, AT + 1, 0, 0, AT], &["offset 0x20", "load_addr 0x1000001", "not above header_addr"]);
    refused([HEADER + 1, AT, 0, 0, AT], &["offset 0x20", "load_addr 0x1000000 with the header at 0x1000011"]);
    refused([HEADER, AT, AT, 0, AT], &["offset 0x24", "load_end_addr 0x1000000", "after the start"]);
    refused([HEADER, AT, AT - 1, 0, AT], &["offset 0x24", "load_end_addr 0xffffff"]);
    refused([HEADER, AT, AT + 0x1001, 0, AT], &["offset 0x20", "4097 bytes from offset 0x0 on", "truncated?"]);
    refused([HEADER, AT, AT + 0x1000, AT + 0xfff, AT], &["offset 0x28", "bss_end_addr 0x1000fff"]);
    refused([HEADER, AT, 0, 0, AT + 0x1000], &["offset 0x2c", "entry point 0x1001000"]);
    refused([HEADER, AT, 0, 0, AT - 1], &["offset 0x2c", "entry point 0xffffff"]);
}

#[test]
fn images_outside_memory_are_refused() {
    let flat_at = |load: u32| flat_with([load.wrapping_add(FLAT_BEFORE as u32), load, 0, 0, load]);
    let before = FLAT_BEFORE as u32;
    image_refused(&flat_at(u32::MAX - before), &["address 0xffffffef for 4096 bytes", "below the device hole"]);
    image_refused(&flat_at(0xcfff_f001), &["below the device hole at 0xd0000000"]);
    image_refused(&flat_at(64 * MIB as u32 - 0xfff), &["needs memory up to 0x4000001", "--memory 65M or more"]);
    for low in [0x9_ec01, 0xa_0000, 0xf_0000, 0xf_f001] {
        image_refused(&flat_at(low), &["outside 0x9fc00-0xfffff", &format!("address {low:#x}")]);
    }
    // All of the address space as zeroed memory.
    image_refused(&flat_with([HEADER, AT, 0, u32::MAX, AT]), &["below the device hole"]);
}

#[test]
fn elf_images_have_the_checks_of_elf_files() {
    let mut file = multiboot_elf();
    file.segments[1].0 = LOAD + 1;
    image_refused(&file.bytes(), &["no bootable multiboot image", "don't overlap"]);
    let mut file = multiboot_elf();
    file.entry = LOAD - 1;
    image_refused(&file.bytes(), &["offset 0x18", "entry point 0xffffff"]);
}

#[test]
fn modules_for_whose_list_there_is_no_room_are_refused() {
    // All but the last 8 KiB of 16 MiB is the image's.
    let end = 16 * MIB as u32 - 0x2000;
    let low = flat_with([FLAT_BEFORE as u32 + 0x1000, 0x1000, 0, 0x9_fc00, 0x1000]);
    let image = flat_with([MIB as u32 + FLAT_BEFORE as u32, MIB as u32, 0, end, MIB as u32]);
    let module = Scratch::file(&[1]);
    let try_with = |image: &[u8], count: usize| {
        let kernel = Scratch::file(image);
        let modules: Vec<PathBuf> = vec![module.path().to_owned(); count];
        let ram = GuestRam::new(16 * MIB).unwrap();
        load(&ram, &Boot { modules: &modules, ..boot(&kernel) }).map(drop).map_err(|e| e.to_string())
    };
    assert!(try_with(&image, 2).is_ok());
    assert_parts(&try_with(&image, 3).unwrap_err(), &["module", "does not fit", "larger --memory"]);
    // Conventional memory is the image's; the modules leave no room for their list above it.
    assert!(try_with(&low, 3000).is_ok());
    let all = (16 * MIB - MIB) as usize / 4096;
    assert_parts(&try_with(&low, all).unwrap_err(), &["no room", "list of 3840 modules", "fewer --module"]);
}
