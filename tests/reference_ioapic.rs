//! The I/O APIC against an independent model of it, written from the datasheet (`reference_ioapic/model.rs`).
//!
//! A seeded generator reads and writes the MMIO window, moves the lines, ends interrupts, lets destinations and time
//! change, and answers for the local APICs; after each operation the messages, the entries, the counters and the
//! deadline are compared. `reference_common` says how to choose seed and length.

#[path = "reference_common/mod.rs"]
mod common;
#[path = "reference_ioapic/model.rs"]
mod model;
#[path = "reference_ioapic/rig.rs"]
mod rig;

// All names, so that what a divergence prints can be pasted below.
use rig::Op::{self, *};
use rig::{Deaf, Faithful, IoApicRig};

fn replay(ops: &[Op]) {
    common::replay::<IoApicRig<Faithful>>(ops);
}

#[test]
fn the_io_apic_does_what_the_datasheet_says() {
    common::drive::<IoApicRig<Faithful>>();
}

#[test]
fn a_chip_that_does_not_try_again_is_found_and_the_way_there_is_short() {
    let mut seen = common::Sights::new();
    let found = common::run::<IoApicRig<Deaf>>(1, 100_000, &mut seen).expect_err("destination changes were dropped");
    assert!(found.ops.len() <= 4, "{}", found.report("replay"));
    assert!(found.report("replay").contains("DestinationsChanged("), "{}", found.report("replay"));
}

#[test]
fn a_storm_is_damped_and_goes_on_later() {
    replay(&[
        Write(0x00, 1, 0x20, 0),
        Write(0x10, 4, 0x8031, 0),
        Line(8, true, 1),
        Eois(0x31, 10_001, 1),
        Read(0x10, 4),
        Wait(10_000_000),
        Expire(1),
        Eoi(0x31, 1),
    ]);
}
