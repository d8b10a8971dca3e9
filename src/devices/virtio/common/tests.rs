use super::super::status;
use super::super::testing::{Plain, Ring, agree, go, memory};
use super::*;

fn device() -> (Plain, Common) {
    let device = Plain::default();
    let common = Common::new(&device, memory());
    (device, common)
}

/// Ready, with queue 0 enabled.
fn running() -> (Plain, Common, Ring) {
    let (mut device, mut common) = device();
    agree(&mut common, &mut device, 0, 0);
    let ring = Ring::new(common.memory(), 0x1_0000, 8);
    ring.set_up_in(&mut common, 0);
    go(&mut common, &mut device);
    assert!(common.is_running());
    (device, common, ring)
}

#[test]
fn features_are_agreed_on_once() {
    let (mut device, mut common) = device();
    assert_eq!((common.offered(0), common.offered(1), common.offered(2)), (0x3000_0008, 0x101, 0));
    common.accept(0, 8);
    common.write_status(status::FEATURES_OK, &mut device);
    assert_eq!(common.status() & status::FEATURES_OK, 0, "without version 1");
    common.accept(1, 1);
    common.accept(0, 8 | 1);
    common.write_status(status::FEATURES_OK, &mut device);
    assert_eq!(common.status() & status::FEATURES_OK, 0, "what is not offered");
    common.accept(0, 8);
    common.accept(2, u32::MAX);
    common.write_status(status::FEATURES_OK, &mut device);
    assert_eq!(common.status(), status::FEATURES_OK);
    common.accept(0, 0);
    assert!(common.has(8), "too late");
}

#[test]
fn the_driver_is_ready_only_after_features() {
    let (mut device, mut common) = device();
    common.write_status(status::DRIVER_OK, &mut device);
    assert_eq!((common.status(), device.started), (0, 0));
    agree(&mut common, &mut device, 0, 0);
    go(&mut common, &mut device);
    go(&mut common, &mut device);
    assert_eq!((common.status(), device.started), (0xf, 1));
    // Bits are not taken back, and the device's own is not the driver's.
    common.write_status(status::ACKNOWLEDGE | status::NEEDS_RESET, &mut device);
    assert_eq!(common.status(), 0xf);
    common.write_status(status::FAILED, &mut device);
    assert!(!common.is_running());
    common.write_status(0, &mut device);
    assert_eq!((common.status(), common.accepted(1), device.forgotten), (0, 0, vec![0, 1]));
}

#[test]
fn queues_are_set_up_between_features_and_enabling() {
    let (mut device, mut common) = device();
    common.set_queue_size(0, 4);
    assert_eq!(common.queue(0).map(Queue::size), Some(16), "before features");
    agree(&mut common, &mut device, 0, 0);
    common.set_queue_size(0, 4);
    common.set_queue_size(7, 4);
    assert_eq!(common.queue(0).map(Queue::size), Some(4));
    let ring = Ring::new(common.memory(), 0x1_0000, 8);
    ring.set_up_in(&mut common, 0);
    common.set_queue_size(0, 2);
    common.set_queue_part(0, Part::Device, false, 0);
    assert_eq!(common.queue(0).map(Queue::size), Some(8), "enabled");
    assert_eq!(common.queue(0).map(|queue| queue.part(Part::Device)), Some(0x1_2000));
    assert_eq!(common.status() & status::NEEDS_RESET, 0);
}

#[test]
fn a_queue_that_is_not_in_memory_breaks_the_device() {
    let (mut device, mut common) = device();
    agree(&mut common, &mut device, 0, 0);
    common.set_queue_part(0, Part::Device, true, 1);
    common.enable_queue(0);
    assert_eq!(common.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    assert_eq!(common.take_owed(), Interrupts::default(), "nobody is there to hear of it");
    go(&mut common, &mut device);
    assert_eq!(device.started, 0);
    common.write_status(0, &mut device);
    agree(&mut common, &mut device, 0, 0);
    go(&mut common, &mut device);
    assert_eq!(device.started, 1, "after a reset all is well");
}

#[test]
fn only_an_enabled_queue_of_a_running_device_is_notified_of() {
    let (mut device, mut common, _ring) = running();
    for queue in [0, 1, 2, u16::MAX, 0] {
        common.notify(queue, &mut device);
    }
    assert_eq!((device.notified.as_slice(), common.stray()), (&[0, 0][..], 3));
    common.write_status(0, &mut device);
    common.notify(0, &mut device);
    assert_eq!((device.notified.len(), common.stray()), (2, 4));
}

#[test]
fn a_bad_chain_breaks_the_device_and_nothing_goes_on() {
    let (mut device, mut common, mut ring) = running();
    ring.chain(&[(0x100, 16, false)]);
    ring.chain(&[(u64::MAX, 16, false)]);
    ring.chain(&[(0x100, 16, false)]);
    let first = common.pop(0).expect("the first is good");
    assert_eq!(common.pop(0), None);
    assert_eq!(common.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    assert_eq!(common.take_owed(), Interrupts { queues: 0, config: true });
    assert_eq!(common.pop(0), None, "not even the good one behind");
    common.push(0, first.head(), 0);
    common.done(0);
    common.notify(0, &mut device);
    assert_eq!((ring.used(), common.take_owed(), device.notified.len()), (vec![], Interrupts::default(), 0));
}

#[test]
fn interrupts_are_owed_for_what_was_given_back() {
    let (_device, mut common, mut ring) = running();
    ring.chain(&[(0x100, 16, true)]);
    let chain = common.pop(0).expect("a chain");
    common.push(0, chain.head(), 16);
    common.done(0);
    common.done(5);
    assert_eq!((ring.used(), common.take_owed()), (vec![(0, 16)], Interrupts { queues: 1, config: false }));
    assert_eq!(common.take_owed(), Interrupts::default());
    let before = common.generation();
    common.config_changed();
    assert_eq!(common.take_owed(), Interrupts { queues: 0, config: true });
    assert_eq!(common.generation(), before.wrapping_add(1));
}

#[test]
fn one_queue_can_be_reset_alone() {
    let (mut device, mut common, mut ring) = running();
    assert!(!common.may_reset_queues(), "not agreed on");
    common.write_status(0, &mut device);
    agree(&mut common, &mut device, 0, 1 << 8);
    ring.set_up_in(&mut common, 0);
    go(&mut common, &mut device);
    assert!(common.may_reset_queues());
    ring.chain(&[(0x100, 16, true)]);
    device.forgotten.clear();
    common.reset_queue(0, &mut device);
    common.reset_queue(9, &mut device);
    assert_eq!(device.forgotten, [0]);
    assert_eq!((common.pop(0), common.queue(0).map(Queue::is_enabled)), (None, Some(false)));
    // And enabled anew, with rings of its own.
    let mut ring = Ring::new(common.memory(), 0x2_0000, 4);
    ring.set_up_in(&mut common, 0);
    ring.chain(&[(0x200, 16, true)]);
    assert!(common.pop(0).is_some());
}
