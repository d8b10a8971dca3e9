//! Nonsense: whatever a driver puts into its rings and registers, the device does not panic or spin, stays within the memory and
//! the disk, and works after a reset.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::testing::MEMORY;
use super::tests::{BYTES, DATA, HEADER, RING, Rig, STATUS};
use super::*;

/// One thing that a driver does.
#[derive(Debug, Clone)]
enum Step {
    /// A descriptor: table, index, address, length, flags, next.
    Describe(u64, u16, u64, u32, u16, u16),
    /// A header: type, sector.
    Header(u32, u64),
    /// A word anywhere in the rings or the data.
    Poke(u64, u64),
    /// A head made available.
    Offer(u16),
    /// The available index.
    Jump(u16),
    Submit,
    Lanes,
    Complete,
    Status(u8),
    ResetQueue,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => prop_oneof![Just(HEADER), Just(DATA), Just(STATUS)],
        2 => 0..MEMORY,
        1 => MEMORY - 32..MEMORY + 32,
        1 => any::<u64>(),
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop_oneof![Just(0u32), Just(1), Just(15), Just(16), Just(512), Just(513), Just(4096)],
        1 => any::<u32>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let table = prop_oneof![3 => Just(RING), 1 => Just(DATA)];
    let index = prop_oneof![8 => 0u16..8, 1 => any::<u16>()];
    let flags = prop_oneof![8 => 0u16..8, 1 => any::<u16>()];
    let kind = prop_oneof![prop_oneof![Just(0u32), Just(1), Just(4), Just(8), Just(11), Just(13)], any::<u32>()];
    let sector = prop_oneof![3 => 0..BYTES / SECTOR + 2, 1 => any::<u64>()];
    prop_oneof![
        8 => (table, 0u16..16, address(), len(), flags, index.clone())
            .prop_map(|(t, i, a, l, f, n)| Step::Describe(t, i, a, l, f, n)),
        2 => (kind, sector).prop_map(|(k, s)| Step::Header(k, s)),
        2 => (RING..DATA + 0x100, any::<u64>()).prop_map(|(at, v)| Step::Poke(at & !7, v)),
        6 => index.prop_map(Step::Offer),
        1 => any::<u16>().prop_map(Step::Jump),
        4 => Just(Step::Submit),
        4 => Just(Step::Lanes),
        4 => Just(Step::Complete),
        1 => any::<u8>().prop_map(Step::Status),
        1 => Just(Step::ResetQueue),
    ]
}

fn run(rig: &mut Rig, step: &Step) {
    match *step {
        Step::Describe(table, index, address, len, flags, next) => {
            rig.ring.describe(table, index, (address, len), flags, next);
        }
        Step::Header(kind, sector) => rig.header(kind, sector),
        Step::Poke(at, value) => rig.put(at, &value.to_le_bytes()),
        Step::Offer(head) => rig.ring.offer(head),
        Step::Jump(index) => rig.ring.set_available(index),
        // A turn has a budget, so this ends.
        Step::Submit => _ = rig.blk.submit(&mut rig.common),
        Step::Lanes => _ = rig.run_lanes(),
        Step::Complete => _ = rig.blk.complete(&mut rig.common),
        Step::Status(status) => rig.common.write_status(status, &mut rig.blk),
        Step::ResetQueue => rig.common.reset_queue(REQUESTS, &mut rig.blk),
    }
    let outstanding = rig.common.queue(REQUESTS).map_or(0, |queue| queue.outstanding());
    assert!(outstanding <= QUEUE_SIZE, "{outstanding} chains are out");
    assert!(rig.blk.io.waiting() <= usize::from(QUEUE_SIZE), "{} requests wait", rig.blk.io.waiting());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nonsense_does_no_harm(steps in vec(step(), 1..120)) {
        let mut rig = Rig::new(false, FLUSH);
        for step in &steps {
            run(&mut rig, step);
        }
        rig.restart(FLUSH);
        rig.put(DATA, &[0x5a; 512]);
        prop_assert_eq!(rig.request(1, 7, Some((512, false))), (result::OK, 1));
        prop_assert_eq!(rig.disk.bytes.lock()[7 * 512..8 * 512].to_vec(), vec![0x5a; 512]);
        prop_assert_eq!(rig.disk.bytes.lock().len() as u64, BYTES);
    }
}
