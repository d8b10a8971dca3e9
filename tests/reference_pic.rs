//! The 8259A pair against an independent model of it, written from the datasheet (`reference_pic/model.rs`).
//!
//! A seeded generator reads and writes all ports, moves the lines, acknowledges and resets; after each operation all
//! that can be seen of both is compared. `reference_common` says how to choose seed and length.

#[path = "reference_common/mod.rs"]
mod common;
#[path = "reference_pic/model.rs"]
mod model;
#[path = "reference_pic/rig.rs"]
mod rig;

// All names, so that what a divergence prints can be pasted below.
use irqchip::pic::PicPort::*;
use rig::Op::{self, *};
use rig::{Deaf, Faithful, PicRig};

fn replay(ops: &[Op]) {
    common::replay::<PicRig<Faithful>>(ops);
}

#[test]
fn the_pair_does_what_the_datasheet_says() {
    common::drive::<PicRig<Faithful>>();
}

#[test]
fn a_chip_that_forgets_level_mode_is_found_and_the_way_there_is_short() {
    let mut seen = common::Sights::new();
    let found = common::run::<PicRig<Deaf>>(1, 100_000, &mut seen).expect_err("the ELCR's writes were dropped");
    assert_eq!(found.ops.len(), 1, "{}", found.report("replay"));
    assert!(found.report("replay").contains("Write(Elcr"), "{}", found.report("replay"));
}

#[test]
fn a_level_input_asks_again_after_its_eoi() {
    replay(&[
        Write(MasterCommand, 0x11),
        Write(MasterData, 0x20),
        Write(MasterData, 0x04),
        Write(MasterData, 0x01),
        Write(ElcrMaster, 0x20),
        Line(5, true),
        Acknowledge,
        Write(MasterCommand, 0x20),
        Acknowledge,
    ]);
}
