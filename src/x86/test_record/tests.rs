extern crate std;

use std::vec::Vec;

use super::*;

const RECORD: TestRecord<u64> = TestRecord::new("idt.gates", &[1, 26], 0x1122_3344_5566_7788)
    .needs(Needs::AGENT.union(Needs::HPET))
    .cpus(3)
    .modes(Modes::USER.union(Modes::KERNEL))
    .known(Modes::KERNEL, "why: SDM")
    .limit_ms(77);

/// The record as it lies in an image.
fn bytes() -> [u8; RECORD_SIZE] {
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, 0x5566_7788, 0x1122_3344, (1 << 1) | (1 << 26), 0b1_0001, 77] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([3, 0b101, 0b100, 0]);
    bytes.extend(b"idt.gates");
    bytes.resize(32 + NAME_MAX, 0);
    bytes.extend(b"why: SDM");
    bytes.resize(RECORD_SIZE, 0);
    bytes.try_into().unwrap()
}

#[test]
fn the_layout_is_what_readers_of_images_expect() {
    assert_eq!(size_of::<TestRecord<u64>>(), RECORD_SIZE);
    assert_eq!(TestRecord::from_bytes(&bytes()), Some(RECORD));
    assert_eq!((RECORD.name(), RECORD.why_known()), ("idt.gates", "why: SDM"));
    assert_eq!(RECORD.row_numbers().collect::<Vec<_>>(), [1, 26]);
    assert_eq!(RECORD.needed(), Needs::AGENT | Needs::HPET);
}

#[test]
fn what_is_no_record_of_ours_is_refused() {
    for (at, value) in [(0, 0), (4, 9), (32, 0), (32, 0xff)] {
        let mut bad = bytes();
        bad[at] = value;
        assert_eq!(TestRecord::from_bytes(&bad), None, "byte {at} = {value:#x}");
    }
}
