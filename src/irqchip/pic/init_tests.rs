//! Initialisation, reset and ELCR.

use super::PicPort::*;
use super::tests::*;
use super::*;

#[test]
fn before_the_first_icw1_it_is_quiet_but_has_an_imr() {
    let mut pic = PicPair::new();
    raise(&mut pic, &[0, 9]);
    assert!(!pic.output());
    // What Linux does to find out whether there is a PIC at all.
    pic.write(MasterData, 0xfb);
    assert_eq!(pic.read(MasterData), 0xfb);
}

#[test]
fn an_unfinished_initialisation_keeps_intr_low() {
    let mut pic = linux();
    pic.set_line(3, true);
    assert!(pic.output());
    pic.write(MasterCommand, 0x11);
    pic.set_line(3, false);
    pic.set_line(3, true);
    for word in [0x40, 0x04, 0x01] {
        assert!(!pic.output());
        pic.write(MasterData, word);
    }
    assert_eq!(pic.acknowledge(), 0x43);
}

#[test]
fn icw4_is_expected_only_if_icw1_says_so() {
    let mut pic = with_icw4(AEOI, AEOI);
    pic.write(MasterCommand, 0x10);
    pic.write(MasterData, 0x20);
    pic.write(MasterData, 0x04);
    pic.write(MasterData, 0xaa);
    assert_eq!(pic.read(MasterData), 0xaa, "the third data write is OCW1");
    pic.set_line(0, true);
    assert_eq!(pic.acknowledge(), 0x20);
    assert_eq!(pic.master().isr(), 1, "no ICW4: all its functions are off, AEOI too");
}

#[test]
fn single_mode_expects_no_icw3_and_answers_for_the_cascade_itself() {
    let mut pic = linux();
    pic.write(MasterCommand, 0x13);
    pic.write(MasterData, 0x50);
    pic.write(MasterData, 0x01);
    assert!(pic.master().is_ready());
    pic.set_line(12, true);
    assert_eq!(pic.acknowledge(), 0x52);
    assert_eq!(pic.slave().isr(), 0, "nobody asked the slave");
    pic.set_line(2, false);
    pic.write(MasterCommand, EOI);
    assert!(!pic.output(), "the slave's INT never fell, and nothing else drives input 2");
}

#[test]
fn icw2_gives_the_upper_five_bits_of_the_vector() {
    let mut pic = linux();
    pic.write(MasterCommand, 0x11);
    for word in [0x37, 0x04, 0x01] {
        pic.write(MasterData, word);
    }
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x31);
}

#[test]
fn a_slave_with_the_wrong_id_leaves_the_bus_floating() {
    let mut pic = linux();
    pic.write(SlaveCommand, 0x11);
    for word in [0x28, 0x03, 0x01] {
        pic.write(SlaveData, word);
    }
    pic.set_line(9, true);
    assert_eq!(pic.acknowledge(), 0xff);
    assert_eq!(pic.master().isr(), 1 << 2);
    assert_eq!(pic.slave().isr(), 0);
}

#[test]
fn an_input_that_icw3_gives_to_an_absent_slave_has_no_vector() {
    let mut pic = linux();
    pic.write(MasterCommand, 0x11);
    for word in [0x20, 0x0c, 0x01] {
        pic.write(MasterData, word);
    }
    raise(&mut pic, &[3]);
    assert_eq!(pic.acknowledge(), 0xff);
}

/// Found by the reference model: the cascade lines carry the number of the master's input to the slave, whichever
/// input its INT is wired to.
#[test]
fn a_slave_answers_to_its_id_on_any_input() {
    let mut pic = linux();
    for (command, data, icw3) in [(MasterCommand, MasterData, 0x0c), (SlaveCommand, SlaveData, 0x03)] {
        pic.write(command, 0x11);
        for word in [0x20, icw3, 0x01] {
            pic.write(data, word);
        }
    }
    pic.write(SlaveCommand, 0x11);
    for word in [0x28, 0x03] {
        pic.write(SlaveData, word);
    }
    let again = |pic: &mut PicPair| {
        pic.write(MasterCommand, EOI);
        pic.set_line(3, false);
        pic.set_line(3, true);
        pic.acknowledge()
    };
    assert_eq!(again(&mut pic), 0xff, "its initialisation is not over");
    pic.write(SlaveData, 0x01);
    assert_eq!(again(&mut pic), 0x2f, "it has no request: the default IR15");
    // Its INT, a request on the master's IR2, is not what is acknowledged.
    pic.write(MasterData, 1 << 2);
    pic.set_line(12, true);
    assert_eq!(again(&mut pic), 0x2c);
}

#[test]
fn icw1_clears_everything_but_the_elcr() {
    let mut pic = with_icw4(AEOI, 0);
    pic.write(ElcrMaster, 0x28);
    pic.write(MasterCommand, 0x80); // rotate on AEOI
    pic.write(MasterCommand, SET_SPECIAL_MASK);
    pic.write(MasterCommand, READ_ISR);
    pic.write(MasterData, 0x55);
    raise(&mut pic, &[0, 3, 4]);
    init(&mut pic, 0x11, 0, 0);
    assert_eq!(pic.read(MasterData), 0, "IMR");
    assert_eq!(pic.read(ElcrMaster), 0x28, "ELCR is not the chip's");
    assert_eq!(pic.read(MasterCommand), 1 << 3, "the status read is IRR, edges are forgotten, a level is still there");
    assert_eq!(drain(&mut pic), [0x23]);
    pic.set_line(0, false);
    pic.set_line(0, true);
    assert_eq!(drain(&mut pic), [0x20], "only a new edge counts");
}

#[test]
fn icw1_takes_back_rotation_and_service() {
    let mut pic = linux();
    pic.set_line(0, true);
    let _ = pic.acknowledge();
    pic.write(MasterCommand, 0xc0 | 3);
    init(&mut pic, 0x11, 0, 0);
    assert_eq!(pic.master().isr(), 0);
    raise(&mut pic, &[1, 4]);
    assert_eq!(drain(&mut pic), [0x21, 0x24], "IR0 is the highest again");
}

#[test]
fn icw1_takes_back_the_modes() {
    let mut pic = with_icw4(AEOI, 0);
    pic.write(MasterCommand, 0x80);
    init(&mut pic, 0x11, AEOI, 0);
    raise(&mut pic, &[3]);
    let _ = pic.acknowledge();
    raise(&mut pic, &[0, 7]);
    assert_eq!(pic.acknowledge(), 0x20, "no rotation on AEOI");

    pic.write(MasterCommand, SET_SPECIAL_MASK);
    init(&mut pic, 0x11, 0, 0);
    pic.set_line(3, false);
    pic.set_line(3, true);
    let _ = pic.acknowledge();
    pic.set_line(7, false);
    pic.set_line(7, true);
    pic.write(MasterData, 1 << 3);
    assert!(!pic.output(), "no special mask");

    pic.write(MasterCommand, EOI);
    pic.write(MasterCommand, POLL);
    init(&mut pic, 0x11, 0, 0);
    pic.set_line(7, false);
    pic.set_line(7, true);
    assert_eq!(pic.read(MasterCommand), 1 << 7, "no poll, but IRR");
}

#[test]
fn icw1_sets_the_slave_id_to_7() {
    let mut pic = linux();
    pic.write(SlaveCommand, 0x13);
    pic.write(SlaveData, 0x28);
    pic.write(SlaveData, 0x01);
    pic.set_line(9, true);
    assert_eq!(pic.acknowledge(), 0xff, "a slave in single mode has no other ID");
}

#[test]
fn reset_keeps_the_wires_and_nothing_else() {
    let mut pic = linux();
    pic.write(ElcrSlave, 0xff);
    pic.write(MasterData, 0x80);
    raise(&mut pic, &[10]);
    pic.reset();
    assert_eq!((pic.read(ElcrSlave), pic.read(MasterData), pic.output()), (0, 0, false));
    init(&mut pic, 0x11, 0, 0);
    assert!(!pic.output(), "IR10 is edge triggered now, and has not risen since");
    pic.write(ElcrSlave, 0x04);
    assert_eq!(pic.acknowledge(), 0x2a, "its wire is still high");
}

#[test]
fn ltim_makes_all_inputs_level_triggered() {
    let mut pic = linux();
    raise(&mut pic, &[0]);
    init(&mut pic, 0x19, 0, 0);
    for _ in 0..2 {
        assert_eq!(pic.acknowledge(), 0x20);
        pic.write(MasterCommand, EOI);
    }
    pic.set_line(0, false);
    assert!(!pic.output());
}

#[test]
fn elcr_has_only_the_bits_that_a_pc_lets_be_level() {
    let mut pic = linux();
    for (port, mask) in [(ElcrMaster, 0xf8), (ElcrSlave, 0xde)] {
        pic.write(port, 0xff);
        assert_eq!(pic.read(port), mask);
        // A second write replaces the first.
        pic.write(port, 0x50);
        assert_eq!(pic.read(port), 0x50);
    }
}

#[test]
fn elcr_turns_a_held_edge_into_a_level() {
    let mut pic = linux();
    pic.set_line(5, true);
    assert_eq!(drain_once(&mut pic), 0x25);
    assert!(!pic.output());
    pic.write(ElcrMaster, 1 << 5);
    assert!(pic.output());
}
