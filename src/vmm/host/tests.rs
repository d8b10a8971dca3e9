use super::*;

const GIB: u64 = 1 << 30;
/// What the hole for devices shifts up.
const HOLE: u64 = platform::MMIO_HOLE_END - platform::MMIO_HOLE_START;

fn check(memory: u64, bits: u32) -> Result<(), String> {
    let end = if memory <= platform::MMIO_HOLE_START { memory } else { memory + HOLE };
    check_address_bits(memory, end, bits).map_err(|e| {
        assert_eq!(e.exit_code(), crate::exit_code::USAGE);
        e.to_string()
    })
}

#[test]
fn memory_up_to_the_last_address_is_taken_and_one_page_more_is_not() {
    for bits in [36, 39, 46, 52] {
        let most = (1 << bits) - HOLE;
        assert_eq!(check(most, bits), Ok(()));
        let message = check(most + 4096, bits).unwrap_err();
        assert!(message.contains(&format!("the {bits} physical-address bits")), "{message}");
        assert!(message.ends_with(&format!("give --memory {} or less", Size(most))), "{message}");
    }
}

#[test]
fn memory_that_ends_below_the_hole_needs_32_bits_and_no_more() {
    assert_eq!(check(platform::MMIO_HOLE_START, 32), Ok(()));
    let message = check(4 * GIB, 32).unwrap_err();
    assert!(message.ends_with("give --memory 3328M or less"), "{message}");
}

#[test]
fn what_the_message_proposes_is_taken() {
    assert_eq!(check(63 * GIB, 36), Ok(()));
    let message = check(64 * GIB, 36).unwrap_err();
    assert!(message.contains("memory size 64G ends at 0x1030000000"), "{message}");
    assert!(message.ends_with("give --memory 64768M or less"), "{message}");
    assert_eq!(check(64768 << 20, 36), Ok(()));
}
