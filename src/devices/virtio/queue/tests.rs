use super::super::testing::{INDIRECT, MEMORY, NEXT, Ring, WRITE, memory};
use super::*;

const BASE: u64 = 0x1_0000;
const SIZE: u16 = 8;

fn queue(event_index: bool) -> (Memory, Ring, Queue) {
    let memory = memory();
    let ring = Ring::new(&memory, BASE, SIZE);
    let mut queue = Queue::new(16);
    ring.set_up(&mut queue);
    queue.enable(&memory, event_index).expect("a good queue");
    (memory, ring, queue)
}

fn buffer(address: u64, len: u32) -> Buffer {
    Buffer { address: GuestAddress(address), len }
}

/// Why the next chain is none.
#[track_caller]
fn broken(memory: &Memory, queue: &mut Queue) -> String {
    queue.pop(memory).expect_err("a bad chain").0
}

#[test]
fn a_chain_is_taken_and_given_back() {
    let (memory, mut ring, mut queue) = queue(false);
    assert_eq!(queue.pop(&memory), Ok(None));
    ring.chain(&[(0x100, 16, false), (0x200, 0, false), (0x300, 512, true), (0x500, 1, true)]);
    let chain = queue.pop(&memory).expect("a good chain").expect("one");
    assert_eq!(chain.readable(), [buffer(0x100, 16), buffer(0x200, 0)]);
    assert_eq!(chain.writable(), [buffer(0x300, 512), buffer(0x500, 1)]);
    assert_eq!((total(chain.writable()), queue.outstanding()), (513, 1));
    assert_eq!(queue.pop(&memory), Ok(None));
    queue.push(&memory, chain.head(), 7).expect("a used ring");
    assert_eq!((ring.used(), queue.outstanding()), (vec![(0, 7)], 0));
}

#[test]
fn an_indirect_table_is_followed() {
    let (memory, mut ring, mut queue) = queue(false);
    let table = 0x8000;
    ring.describe(table, 0, (0x100, 16), NEXT, 1);
    ring.describe(table, 1, (0x200, 32), WRITE, 0);
    ring.describe(ring.part(Part::Descriptors), 3, (table, 32), INDIRECT, 0);
    ring.offer(3);
    let chain = queue.pop(&memory).expect("a good chain").expect("one");
    assert_eq!(
        (chain.head(), chain.readable(), chain.writable()),
        (3, &[buffer(0x100, 16)][..], &[buffer(0x200, 32)][..])
    );
}

#[test]
fn the_data_of_a_chain_is_one_stream() {
    let memory = memory();
    let buffers = [buffer(0x100, 3), buffer(0x400, 0), buffer(0x200, 5)];
    assert_eq!(write(&memory, &buffers, 2, &[1, 2, 3, 4, 5, 6, 7, 8]), 6, "as far as there is room");
    let mut data = [0; 8];
    assert_eq!(read(&memory, &buffers, 0, &mut data), 8);
    assert_eq!(data, [0, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((read(&memory, &buffers, 7, &mut data), data[0]), (1, 6));
    assert_eq!(read(&memory, &buffers, u64::MAX, &mut data), 0);
}

#[test]
fn chains_that_do_not_end_are_none() {
    let (memory, mut ring, mut queue) = queue(false);
    let table = ring.part(Part::Descriptors);
    // A loop.
    ring.describe(table, 0, (0x100, 1), NEXT, 1);
    ring.describe(table, 1, (0x100, 1), NEXT, 0);
    ring.offer(0);
    assert!(broken(&memory, &mut queue).contains("does not end"));
    // To itself, in an indirect table that says it is longer than the queue.
    ring.describe(0x8000, 0, (0x100, 1), NEXT, 0);
    ring.describe(table, 2, (0x8000, 16 * 64), INDIRECT, 0);
    ring.offer(2);
    assert!(broken(&memory, &mut queue).contains("longer than the queue"));
    // To a descriptor that is not there.
    ring.describe(table, 3, (0x100, 1), NEXT, SIZE);
    ring.offer(3);
    assert!(broken(&memory, &mut queue).contains("does not end"));
    // An indirect table in an indirect table.
    ring.describe(0x8000, 0, (0x9000, 16), INDIRECT, 0);
    ring.describe(table, 4, (0x8000, 16), INDIRECT, 0);
    ring.offer(4);
    assert!(broken(&memory, &mut queue).contains("does not end"));
    // Indirect tables that are empty, no multiple of a descriptor, or nowhere.
    for (address, len) in [(0x8000, 0), (0x8000, 17), (MEMORY, 16), (u64::MAX - 15, 16), (0x8000, !15)] {
        ring.describe(table, 5, (address, len), INDIRECT, 0);
        ring.offer(5);
        assert!(broken(&memory, &mut queue).contains("does not end"), "{address:#x} {len:#x}");
    }
}

#[test]
fn buffers_that_are_not_in_memory_are_none() {
    let bad =
        [(MEMORY, 1), (MEMORY - 1, 2), (u64::MAX, 1), (u64::MAX - 10, 100), (0xfec0_0000, 4), (0x100, u32::MAX - 0xff)];
    for (address, len) in bad {
        for writable in [false, true] {
            let (memory, mut ring, mut queue) = queue(false);
            ring.chain(&[(0x100, 16, false), (address, len, writable)]);
            assert!(broken(&memory, &mut queue).contains("not in memory"), "{address:#x} {len:#x}");
        }
    }
    // More than 4 GiB in all.
    let (memory, mut ring, mut queue) = queue(false);
    ring.chain(&[(0x100, 16, false), (0x100, u32::MAX, false)]);
    assert!(queue.pop(&memory).is_err());
}

#[test]
fn what_is_to_be_read_comes_before_what_is_to_be_written() {
    let (memory, mut ring, mut queue) = queue(false);
    ring.chain(&[(0x100, 16, true), (0x200, 16, false)]);
    assert!(broken(&memory, &mut queue).contains("after to be written"));
}

#[test]
fn more_than_the_queue_holds_is_refused() {
    let (memory, mut ring, mut queue) = queue(false);
    ring.set_available(SIZE + 1);
    assert!(queue.pop(&memory).is_err(), "an index too far ahead");
    let (memory, mut ring, mut queue) = self::queue(false);
    ring.offer(SIZE);
    assert!(broken(&memory, &mut queue).contains("chain at 8 of 8"));
    // The same chain again and again, without waiting for it.
    let (memory, mut ring, mut queue) = self::queue(false);
    ring.chain(&[(0x100, 1, false)]);
    for _ in 0..SIZE {
        assert!(matches!(queue.pop(&memory), Ok(Some(_))));
        ring.offer(0);
    }
    assert!(broken(&memory, &mut queue).contains("more chains than"));
}

#[test]
fn a_queue_must_be_set_up_before_it_is_enabled() {
    let memory = memory();
    let ring = Ring::new(&memory, BASE, SIZE);
    let good = || {
        let mut queue = Queue::new(16);
        ring.set_up(&mut queue);
        queue
    };
    let enable = |change: &dyn Fn(&mut Queue)| {
        let mut queue = good();
        change(&mut queue);
        let enabled = queue.enable(&memory, false).is_ok();
        assert_eq!(enabled, queue.is_enabled());
        enabled
    };
    assert!(enable(&|_| {}));
    for size in [0, 3, 32, u16::MAX] {
        assert!(!enable(&|queue| queue.set_size(size)), "{size}");
    }
    for (part, address) in [
        (Part::Descriptors, BASE + 8),
        (Part::Driver, BASE + 1),
        (Part::Device, BASE + 2),
        (Part::Descriptors, MEMORY - 16),
        (Part::Driver, MEMORY),
        (Part::Device, !3),
    ] {
        assert!(!enable(&|queue| queue.set_part(part, u64::MAX, address)), "{part:?} {address:#x}");
    }
    let mut queue = good();
    queue.enable(&memory, false).expect("a good queue");
    queue.set_size(4);
    queue.set_part(Part::Device, u64::MAX, 0);
    assert_eq!((queue.size(), queue.part(Part::Device)), (SIZE, ring.part(Part::Device)), "too late");
    queue.reset();
    assert_eq!((queue.is_enabled(), queue.size(), queue.part(Part::Device)), (false, 16, 0));
    assert_eq!(queue.pop(&memory), Ok(None));
}

#[test]
fn the_driver_says_when_it_wants_an_interrupt() {
    let (memory, mut ring, mut queue) = queue(false);
    ring.chain(&[(0x100, 1, false)]);
    queue.push(&memory, 0, 0).expect("a used ring");
    assert_eq!(queue.wants_interrupt(&memory), Ok(true));
    ring.set_flags(1);
    assert_eq!(queue.wants_interrupt(&memory), Ok(false));

    let (memory, ring, mut queue) = self::queue(true);
    ring.set_used_event(1);
    queue.push(&memory, 0, 0).expect("a used ring");
    assert_eq!(queue.wants_interrupt(&memory), Ok(false), "it waits for the second");
    queue.push(&memory, 0, 0).expect("a used ring");
    assert_eq!(queue.wants_interrupt(&memory), Ok(true));
    queue.push(&memory, 0, 0).expect("a used ring");
    assert_eq!(queue.wants_interrupt(&memory), Ok(false), "it has not looked yet");
    ring.set_flags(1);
    ring.set_used_event(3);
    queue.push(&memory, 0, 0).expect("a used ring");
    assert_eq!(queue.wants_interrupt(&memory), Ok(true), "flags don't count with an event index");
}

#[test]
fn the_device_says_when_it_wants_a_notification() {
    let (memory, mut ring, mut queue) = queue(false);
    queue.no_notification(&memory).expect("a used ring");
    assert_eq!(ring.used_flags(), 1);
    ring.chain(&[(0x100, 1, false)]);
    assert_eq!(queue.want_notification(&memory), Ok(true), "there is one already");
    assert_eq!(ring.used_flags(), 0);

    let (memory, mut ring, mut queue) = self::queue(true);
    ring.chain(&[(0x100, 1, false)]);
    assert!(matches!(queue.pop(&memory), Ok(Some(_))));
    assert_eq!(queue.want_notification(&memory), Ok(false));
    assert_eq!(ring.available_event(), 1);
}
