use std::path::PathBuf;

use super::super::testing::{ElfFile, LOAD, PAYLOAD, Scratch, assert_parts, boot, pvh, read, refused, xen_note};
use super::super::{Boot, load};
use super::*;

const MIB: u64 = 1 << 20;

fn dword(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

fn qword(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn the_start_information_has_all_the_abi_asks_for() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&pvh(LOAD as u32 + 0x10).bytes());
    let (initrd, module) = (Scratch::file(&[0xa5; 5000]), Scratch::file(&[0x5a; 10]));
    let modules = [module.path().to_owned()];
    let boot = Boot { initrd: Some(initrd.path()), modules: &modules, cmdline: Some("a b=c"), ..boot(&kernel) };
    let state = load(&ram, &boot).unwrap();

    assert_eq!(read(&ram, LOAD, PAYLOAD), ElfFile::new(true).segments[0].1);
    assert_eq!(read(&ram, LOAD + 0x4000, 100), ElfFile::new(true).segments[1].1);
    assert_eq!((state.rip, state.cr0, state.efer), (LOAD + 0x10, 0x11, 0));
    let info = read(&ram, state.rbx, 56);
    assert_eq!((dword(&info, 0), dword(&info, 4), dword(&info, 8), dword(&info, 12)), (0x336e_c578, 1, 0, 2));
    assert_eq!(read(&ram, qword(&info, 24), 6), b"a b=c\0");
    assert_eq!(qword(&info, 32), layout::ACPI.start);

    let list = read(&ram, qword(&info, 16), 64);
    let entry = |at: usize| (qword(&list, at), qword(&list, at + 8), qword(&list, at + 16));
    assert_eq!(entry(0), (64 * MIB - 0x2000, 5000, 0));
    assert_eq!(entry(32), (64 * MIB - 0x3000, 10, 0));
    assert_eq!(read(&ram, entry(0).0, 5001), [&[0xa5; 5000][..], &[0]].concat());
    assert_eq!(read(&ram, entry(32).0, 11), [&[0x5a; 10][..], &[0]].concat());

    let map = read(&ram, qword(&info, 40), dword(&info, 48) as usize * 24);
    let entries: Vec<_> = map.chunks(24).map(|e| (qword(e, 0), qword(e, 8), dword(e, 16))).collect();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[0], (0, 0x9_fc00, 1));
    assert_eq!(entries[3], (MIB, 63 * MIB, 1));
}

#[test]
fn a_kernel_without_modules_has_an_empty_list() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&pvh(LOAD as u32).bytes());
    let state = load(&ram, &boot(&kernel)).unwrap();
    let info = read(&ram, state.rbx, 56);
    assert_eq!((dword(&info, 12), qword(&info, 16)), (0, 0));
    assert_eq!(read(&ram, qword(&info, 24), 14), b"console=ttyS0\0");
}

#[test]
fn a_32_bit_file_will_do() {
    let notes = vec![xen_note(18, &(LOAD as u32).to_le_bytes())];
    let kernel = Scratch::file(&ElfFile { notes, ..ElfFile::new(false) }.bytes());
    let ram = GuestRam::new(64 * MIB).unwrap();
    assert_eq!(load(&ram, &boot(&kernel)).unwrap().rip, LOAD);
    assert_eq!(read(&ram, LOAD, PAYLOAD), ElfFile::new(false).segments[0].1);
}

#[test]
fn an_entry_point_outside_the_kernel_is_refused_at_its_place_in_the_file() {
    let file = pvh(LOAD as u32 - 1).bytes();
    let kernel = Scratch::file(&file);
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel));
    let at = file.windows(4).position(|w| w == (LOAD as u32 - 1).to_le_bytes()).unwrap();
    assert_parts(&line, &["no bootable PVH kernel", &format!("offset {at:#x}"), "entry point 0xffffff"]);
}

#[test]
fn more_modules_than_the_list_has_room_for_are_refused() {
    let kernel = Scratch::file(&pvh(LOAD as u32).bytes());
    let module = Scratch::file(&[1]);
    let modules: Vec<PathBuf> = vec![module.path().to_owned(); 3057];
    let ram = GuestRam::new(64 * MIB).unwrap();
    let line = refused(&ram, &Boot { modules: &modules, ..boot(&kernel) });
    assert_parts(&line, &["a list of 3056 modules, and there are 3057", "fewer --module"]);
    assert!(load(&ram, &Boot { modules: &modules[1..], ..boot(&kernel) }).is_ok());
}

#[test]
fn a_module_that_does_not_fit_is_named() {
    let kernel = Scratch::file(&pvh(LOAD as u32).bytes());
    let (initrd, module) = (Scratch::sparse(30 * MIB), Scratch::sparse(18 * MIB));
    let modules = [module.path().to_owned()];
    let boot = Boot { initrd: Some(initrd.path()), modules: &modules, ..boot(&kernel) };
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot);
    assert_parts(&line, &[&format!("module {:?}", module.path()), "does not fit", "0x2200000", "a larger --memory"]);
}
