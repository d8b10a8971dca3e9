use vm_memory::{Bytes, GuestAddress};

use super::super::queue::Queue;
use super::super::testing::{Ring, agree, go, memory};
use super::*;

fn rig(source: Source) -> (Rng, Common, Ring) {
    let mut rng = Rng::new(source);
    let mut common = Common::new(&rng, memory());
    let ring = Ring::new(common.memory(), 0x1_0000, 64);
    agree(&mut common, &mut rng, 0, 0);
    ring.set_up_in(&mut common, REQUESTS);
    go(&mut common, &mut rng);
    (rng, common, ring)
}

#[test]
fn buffers_are_filled_as_far_as_one_gets() {
    let (mut rng, mut common, mut ring) = rig(|bytes| {
        bytes.fill(7);
        true
    });
    ring.chain(&[(0x100, 10, false), (0x200, 3, true), (0x300, 2, true)]);
    ring.chain(&[(0x4000, 0x2000, true)]);
    ring.chain(&[(0x100, 10, false)]);
    assert_eq!(rng.fill(&mut common), Turn::Done);
    assert_eq!(ring.used(), [(0, 5), (3, 4096), (4, 0)]);
    let mut data = [0; 4];
    common.memory().read_slice(&mut data, GuestAddress(0x200)).expect("memory");
    assert_eq!(data, [7, 7, 7, 0]);
    assert_eq!(common.take_owed().queues, 1);
}

#[test]
fn a_source_that_has_nothing_gives_nothing() {
    let (mut rng, mut common, mut ring) = rig(|_| false);
    ring.chain(&[(0x200, 3, true)]);
    assert_eq!(rng.fill(&mut common), Turn::Done);
    assert_eq!(ring.used(), [(0, 0)]);
}

#[test]
fn a_turn_has_a_budget() {
    let (mut rng, mut common, mut ring) = rig(|_| true);
    for _ in 0..BUDGET + 1 {
        ring.chain(&[(0x200, 3, true)]);
    }
    assert_eq!(rng.fill(&mut common), Turn::Again);
    assert_eq!(rng.fill(&mut common), Turn::Done);
    assert_eq!(ring.used().len(), BUDGET + 1);
    assert_eq!(common.queue(REQUESTS).map(Queue::outstanding), Some(0));
}
