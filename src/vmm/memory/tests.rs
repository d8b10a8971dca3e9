use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::*;
use crate::boot::ErrorKind;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn sizes_are_read_with_and_without_suffix() {
    for (text, bytes) in [
        ("512M", 512 * MIB),
        ("2G", 2 * GIB),
        ("1048576K", GIB),
        ("64", 64 * MIB),
        ("64m", 64 * MIB),
        ("2g", 2 * GIB),
        ("16388k", 16388 << 10),
        ("0512M", 512 * MIB),
    ] {
        assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
    }
}

#[test]
fn bad_size_syntax_names_the_text_and_an_example() {
    for text in ["", "M", "12X", "1.5G", "-1", "+64M", "512MB", "0x100M", "64 M", " 64M", "é", "6é", "G2"] {
        let error = parse_size(text).unwrap_err();
        assert!(matches!(error, BootError::MemorySyntax { .. }), "{text}: {error}");
        assert_eq!(error.kind(), ErrorKind::Input);
        let line = error.to_string();
        assert!(line.contains(&format!("{text:?}")) && line.contains("512M"), "{line}");
    }
}

#[test]
fn sizes_out_of_range_give_the_bound() {
    for text in ["0", "0K", "15M", "16380K"] {
        let line = parse_size(text).unwrap_err().to_string();
        assert!(line.contains("too small") && line.contains("--memory 16M or more"), "{line}");
    }
    // The last three overflow 64 bits, in the product and in the number itself.
    for text in ["1024G", "1T", "16777216T", "99999999999T", "99999999999999999999999"] {
        let line = parse_size(text).unwrap_err().to_string();
        assert!(line.contains("too large") && line.contains("--memory 1023G or less"), "{line}");
    }
    assert_eq!(parse_size("16M").unwrap(), MIN_BYTES);
    assert_eq!(parse_size("1023G").unwrap(), MAX_BYTES);
}

#[test]
fn a_size_that_is_no_page_multiple_is_refused_with_the_nearest() {
    let line = parse_size("16386K").unwrap_err().to_string();
    assert!(line.contains("16779264 bytes") && line.contains("--memory 16384K"), "{line}");
}

#[test]
fn new_refuses_what_the_parser_refuses() {
    assert!(matches!(GuestRam::new(MIN_BYTES - PAGE_BYTES), Err(BootError::MemoryTooSmall { .. })));
    assert!(matches!(GuestRam::new(MIN_BYTES + 1), Err(BootError::MemoryUnaligned { .. })));
    assert!(matches!(GuestRam::new(MAX_BYTES + PAGE_BYTES), Err(BootError::MemoryTooLarge)));
}

#[test]
fn small_memory_lies_below_the_device_hole() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    assert_eq!((ram.bytes(), ram.low_end(), ram.high_bytes(), ram.end()), (64 * MIB, 64 * MIB, 0, 64 * MIB));
    assert!(ram.memory().address_in_range(GuestAddress(64 * MIB - 1)));
    assert!(!ram.memory().address_in_range(GuestAddress(64 * MIB)));
}

#[test]
fn memory_that_just_fills_the_low_part_has_no_high_part() {
    let ram = GuestRam::new(platform::MMIO_HOLE_START).unwrap();
    assert_eq!((ram.low_end(), ram.high_bytes(), ram.end()), (0xd000_0000, 0, 0xd000_0000));
    assert_eq!(ram.memory().num_regions(), 3);
}

#[test]
fn what_does_not_fit_below_the_hole_goes_above_4_gib() {
    let ram = GuestRam::new(4 * GIB).unwrap();
    assert_eq!((ram.low_end(), ram.high_bytes(), ram.end()), (0xd000_0000, 0x3000_0000, 0x1_3000_0000));
    assert!(!ram.memory().address_in_range(GuestAddress(0xd000_0000)));
    assert!(!ram.memory().address_in_range(GuestAddress(0xffff_ffff)));
    assert!(ram.memory().address_in_range(GuestAddress(0x1_0000_0000)));
    assert!(!ram.memory().address_in_range(GuestAddress(0x1_3000_0000)));
}

#[test]
fn regions_leave_out_the_video_window_and_start_where_huge_pages_can() {
    let ram = GuestRam::new(4 * GIB).unwrap();
    let spans: Vec<_> =
        ram.memory().iter().map(|region| (region.start_addr().0, region.start_addr().0 + region.len())).collect();
    assert_eq!(spans, [(0, 0xa_0000), (0xc_0000, 0x20_0000), (0x20_0000, 0xd000_0000), (0x1_0000_0000, 0x1_3000_0000)]);
    assert!(!ram.memory().address_in_range(GuestAddress(0xb_8000)));
}

#[test]
fn accesses_cross_from_region_to_region() {
    let ram = GuestRam::new(MIN_BYTES).unwrap();
    ram.memory().write_slice(&[1, 2, 3, 4], GuestAddress(0x1f_fffe)).unwrap();
    assert_eq!(ram.memory().read_obj::<[u8; 4]>(GuestAddress(0x1f_fffe)).unwrap(), [1, 2, 3, 4]);
    assert!(ram.memory().write_slice(&[1, 2], GuestAddress(0x9_ffff)).is_err());
}

#[test]
fn clones_share_the_memory() {
    let ram = GuestRam::new(MIN_BYTES).unwrap();
    let clone = ram.clone();
    ram.memory().write_obj(0x1234_5678_u32, GuestAddress(0x1000)).unwrap();
    assert_eq!(clone.memory().read_obj::<u32>(GuestAddress(0x1000)).unwrap(), 0x1234_5678);
}

#[test]
fn a_host_without_room_is_a_host_error() {
    let cause = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), usize::MAX & !0xfff)]).unwrap_err();
    let error = BootError::MemoryMap { bytes: 512 * GIB, cause };
    assert_eq!(error.kind(), ErrorKind::Host);
    let line = error.to_string();
    assert!(line.contains("512G") && line.contains("smaller --memory") && !line.contains('\n'), "{line}");
}
