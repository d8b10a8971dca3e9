use vm_memory::Bytes;

use super::*;

#[test]
fn contents_stay_and_only_memory_is_touched() {
    let ranges = [(GuestAddress(0x1000), 0x2000), (GuestAddress(1 << 32), 0x1000)];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap();
    memory.write_obj(0x1234_u64, GuestAddress(0x1ff8)).unwrap();
    for (address, there) in [
        (0, false),
        (0xfff, false),
        (0x1000, true),
        (0x1fff, true),
        (0x2fff, true),
        (0x3000, false),
        (1 << 32, true),
        (u64::MAX, false),
    ] {
        assert_eq!(refault(&memory, GuestAddress(address)).unwrap(), there, "{address:#x}");
    }
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1ff8)).unwrap(), 0x1234);
    memory.write_obj(1_u64, GuestAddress(0x1ff8)).unwrap();
}
