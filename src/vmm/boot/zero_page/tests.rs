use super::E820Type::{Ram, Reserved};
use vm_memory::GuestMemoryBackend;

use super::*;

const MIB: u64 = 1 << 20;

fn map(bytes: u64) -> Vec<(u64, u64, E820Type)> {
    e820_map(&GuestRam::new(bytes).unwrap()).into_iter().map(|entry| (entry.start, entry.end, entry.kind)).collect()
}

#[test]
fn e820_of_memory_below_the_hole() {
    assert_eq!(
        map(512 * MIB),
        [
            (0, 0x9_fc00, Ram),
            (0x9_fc00, 0xa_0000, Reserved),
            (0xe_0000, 0x10_0000, Reserved),
            (0x10_0000, 512 * MIB, Ram),
        ]
    );
}

#[test]
fn e820_at_the_hole_has_no_empty_high_range() {
    let map = map(platform::MMIO_HOLE_START);
    assert_eq!(map.len(), 4);
    assert_eq!(map[3], (0x10_0000, 0xd000_0000, Ram));
}

#[test]
fn e820_of_memory_beyond_the_hole_goes_on_at_4_gib() {
    let map = map(platform::MMIO_HOLE_START + 4096);
    assert_eq!(map[3], (0x10_0000, 0xd000_0000, Ram));
    assert_eq!(map[4], (0x1_0000_0000, 0x1_0000_1000, Ram));
}

#[test]
fn every_range_of_the_map_is_backed_by_memory() {
    let ram = GuestRam::new(4096 * MIB).unwrap();
    for entry in e820_map(&ram) {
        let backed = ram.memory().check_range(GuestAddress(entry.start), (entry.end - entry.start) as usize);
        assert!(backed, "{entry:x?}");
    }
}

#[test]
fn the_zero_page_has_header_map_and_pointers_at_the_protocols_offsets() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let header = setup_header {
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        loadflags: 1,
        setup_data: 0xdead_beef,
        ..Default::default()
    };
    let placement = Placement { kernel: 0x100_0000, initrd: (0x3f0_0000, 0x1234), rsdp: 0xe_0000 };
    write(&ram, &header, &placement).unwrap();

    let byte = |offset: u64| ram.memory().read_obj::<u8>(GuestAddress(layout::ZERO_PAGE + offset)).unwrap();
    let dword = |offset: u64| ram.memory().read_obj::<u32>(GuestAddress(layout::ZERO_PAGE + offset)).unwrap();
    let qword = |offset: u64| ram.memory().read_obj::<u64>(GuestAddress(layout::ZERO_PAGE + offset)).unwrap();
    assert_eq!(qword(0x070), 0xe_0000, "acpi_rsdp_addr");
    assert_eq!(byte(0x1e8), 4, "e820_entries");
    assert_eq!(byte(0x1ef), 0, "sentinel");
    assert_eq!(dword(0x202), u32::from_le_bytes(*b"HdrS"));
    assert_eq!(byte(0x210), 0xff, "type_of_loader");
    assert_eq!(byte(0x211), 1, "loadflags");
    assert_eq!(dword(0x214), 0x100_0000, "code32_start");
    assert_eq!((dword(0x218), dword(0x21c)), (0x3f0_0000, 0x1234), "ramdisk");
    assert_eq!(dword(0x228), layout::CMDLINE as u32, "cmd_line_ptr");
    assert_eq!(qword(0x250), 0, "setup_data of the file must not be followed");
    // The fourth entry, of 20 bytes each: RAM above 1 MiB.
    let fourth = 0x2d0 + 3 * 20;
    assert_eq!((qword(fourth), qword(fourth + 8), dword(fourth + 16)), (MIB, 63 * MIB, 1));
    assert_eq!(qword(fourth + 20 + 8), 0);
}

#[test]
fn the_bios_data_area_agrees_with_the_map() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let placement = Placement { kernel: 0x100_0000, initrd: (0, 0), rsdp: 0xe_0000 };
    write(&ram, &setup_header::default(), &placement).unwrap();
    let word = |address| u64::from(ram.memory().read_obj::<u16>(GuestAddress(address)).unwrap());
    let conventional = e820_map(&ram)[0];
    assert_eq!(word(0x40e) << 4, conventional.end);
    assert_eq!(word(0x413) << 10, conventional.end);
    assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(conventional.end)).unwrap(), 1);
}
