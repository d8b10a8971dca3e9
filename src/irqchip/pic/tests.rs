use super::PicPort::*;
use super::*;

pub(super) const EOI: u8 = 0x20;
const READ_IRR: u8 = 0x0a;
pub(super) const READ_ISR: u8 = 0x0b;
pub(super) const POLL: u8 = 0x0c;
pub(super) const SET_SPECIAL_MASK: u8 = 0x68;
const RESET_SPECIAL_MASK: u8 = 0x48;
pub(super) const AEOI: u8 = 0x02;
const SFNM: u8 = 0x10;

/// As a PC's firmware and Linux leave it: master at 0x20, slave at 0x28, nothing masked.
pub(super) fn linux() -> PicPair {
    with_icw4(0, 0)
}

pub(super) fn with_icw4(master: u8, slave: u8) -> PicPair {
    let mut pic = PicPair::new();
    init(&mut pic, 0x11, master, slave);
    pic
}

pub(super) fn init(pic: &mut PicPair, icw1: u8, master: u8, slave: u8) {
    for (command, data, words) in
        [(MasterCommand, MasterData, [0x20, 1 << 2, 1 | master]), (SlaveCommand, SlaveData, [0x28, 2, 1 | slave])]
    {
        pic.write(command, icw1);
        for word in words {
            pic.write(data, word);
        }
    }
}

pub(super) fn raise(pic: &mut PicPair, inputs: &[u8]) {
    for input in inputs {
        pic.set_line(*input, true);
    }
}

fn read_after(pic: &mut PicPair, port: PicPort, ocw3: u8) -> u8 {
    pic.write(port, ocw3);
    pic.read(port)
}

/// All vectors that come out when each is ended by a non-specific EOI and its line falls.
pub(super) fn drain(pic: &mut PicPair) -> Vec<u8> {
    let mut vectors = Vec::new();
    while pic.output() && vectors.len() < 32 {
        let vector = pic.acknowledge();
        pic.set_line(vector - 0x20, false);
        if vector >= 0x28 {
            pic.write(SlaveCommand, EOI);
        }
        pic.write(MasterCommand, EOI);
        vectors.push(vector);
    }
    vectors
}

/// One interrupt, ended in both chips, its line left as it is.
pub(super) fn drain_once(pic: &mut PicPair) -> u8 {
    let vector = pic.acknowledge();
    pic.write(SlaveCommand, EOI);
    pic.write(MasterCommand, EOI);
    vector
}

#[test]
fn ports_are_where_a_pc_has_them() {
    let map = [
        (0x20, MasterCommand),
        (0x21, MasterData),
        (0xa0, SlaveCommand),
        (0xa1, SlaveData),
        (0x4d0, ElcrMaster),
        (0x4d1, ElcrSlave),
    ];
    for (io, port) in map {
        assert_eq!(PicPort::from_io(io), Some(port));
    }
    for io in [0x1f, 0x22, 0x9f, 0xa2, 0x4cf, 0x4d2] {
        assert_eq!(PicPort::from_io(io), None);
    }
}

#[test]
fn priority_is_ir0_first_with_the_slave_at_ir2() {
    let mut pic = linux();
    raise(&mut pic, &[7, 15, 8, 3, 0, 1]);
    assert_eq!(drain(&mut pic), [0x20, 0x21, 0x28, 0x2f, 0x23, 0x27]);
}

#[test]
fn an_edge_fires_once_and_again_only_after_a_fall() {
    let mut pic = linux();
    pic.set_line(4, true);
    assert_eq!(drain_once(&mut pic), 0x24);
    pic.set_line(4, true);
    assert!(!pic.output(), "still high: no new edge");
    pic.set_line(4, false);
    pic.set_line(4, true);
    assert_eq!(pic.acknowledge(), 0x24);
    pic.set_line(4, false);
    pic.set_line(4, true);
    assert!(!pic.output(), "in service");
    pic.write(MasterCommand, EOI);
    assert!(pic.output(), "an edge in service is remembered");
}

#[test]
fn an_edge_whose_line_falls_before_the_acknowledge_is_a_spurious_ir7() {
    let mut pic = linux();
    pic.set_line(4, true);
    pic.set_line(4, false);
    assert_eq!(pic.master().irr(), 0);
    assert!(!pic.output());
    assert_eq!(pic.acknowledge(), 0x27);
    assert_eq!(pic.master().isr(), 0, "a default IR7 is not in service");
    pic.set_line(7, true);
    assert_eq!(pic.acknowledge(), 0x27);
    assert_eq!(pic.master().isr(), 0x80, "by which a handler tells a real one");
}

#[test]
fn a_level_asks_until_it_falls() {
    let mut pic = linux();
    pic.write(ElcrMaster, 1 << 5);
    pic.set_line(5, true);
    for _ in 0..3 {
        assert_eq!(pic.acknowledge(), 0x25);
        assert!(!pic.output());
        assert_eq!(pic.master().irr(), 1 << 5, "IRR follows a level pin");
        pic.write(MasterCommand, EOI);
        assert!(pic.output(), "asks again after the EOI");
    }
    pic.set_line(5, false);
    assert!(!pic.output());
}

#[test]
fn a_masked_request_is_kept() {
    let mut pic = linux();
    pic.write(MasterData, 1 << 6);
    pic.set_line(6, true);
    assert!(!pic.output());
    assert_eq!(read_after(&mut pic, MasterCommand, READ_IRR), 1 << 6);
    pic.write(MasterData, 0);
    assert_eq!(pic.acknowledge(), 0x26);
}

#[test]
fn masking_the_cascade_holds_the_slave_back() {
    let mut pic = linux();
    pic.write(MasterData, 1 << CASCADE_IRQ);
    pic.set_line(14, true);
    assert!(!pic.output());
    pic.write(MasterData, 0);
    assert_eq!(pic.acknowledge(), 0x2e);
    assert_eq!((pic.master().isr(), pic.slave().isr()), (1 << 2, 1 << 6));
}

#[test]
fn the_cascade_is_the_slaves_int_level() {
    let mut pic = linux();
    pic.set_line(9, true);
    assert_eq!(pic.master().irr(), 1 << 2);
    pic.write(SlaveData, 1 << 1);
    assert_eq!(pic.master().irr(), 0, "masked in the slave: gone from the master");
    pic.write(SlaveData, 0);
    assert_eq!(pic.master().irr(), 1 << 2);
    pic.set_line(9, false);
    assert_eq!(pic.master().irr(), 0);
    pic.set_line(2, true);
    assert_eq!(pic.master().irr(), 0, "input 2 has no other wire");
}

#[test]
fn a_second_slave_request_gets_through_whichever_chip_is_ended_first() {
    for order in [[SlaveCommand, MasterCommand], [MasterCommand, SlaveCommand]] {
        let mut pic = linux();
        raise(&mut pic, &[9, 10]);
        assert_eq!(pic.acknowledge(), 0x29);
        assert!(!pic.output());
        order.into_iter().for_each(|port| pic.write(port, EOI));
        assert_eq!(pic.acknowledge(), 0x2a);
    }
}

#[test]
fn a_slave_in_aeoi_mode_makes_an_edge_for_each_request() {
    let mut pic = with_icw4(AEOI, AEOI);
    raise(&mut pic, &[9, 10, 11]);
    for vector in [0x29, 0x2a, 0x2b] {
        assert_eq!(pic.acknowledge(), vector);
    }
    assert!(!pic.output());
}

#[test]
fn a_slave_request_that_falls_between_the_inta_cycles_is_a_spurious_ir15() {
    let mut pic = linux();
    pic.set_line(12, true);
    let level = pic.first_inta();
    pic.set_line(12, false);
    assert_eq!(pic.second_inta(level), 0x2f);
    assert_eq!(pic.slave().isr(), 0, "the slave wants no EOI");
    assert_eq!(pic.master().isr(), 1 << 2, "the master does");
    pic.set_line(12, true);
    assert!(!pic.output());
    pic.write(MasterCommand, EOI);
    assert_eq!(pic.acknowledge(), 0x2c);
}

#[test]
fn a_slave_request_that_falls_before_the_acknowledge_is_a_spurious_ir7() {
    let mut pic = linux();
    pic.set_line(12, true);
    pic.set_line(12, false);
    assert_eq!(pic.acknowledge(), 0x27);
    assert_eq!((pic.master().isr(), pic.slave().isr()), (0, 0));
}

#[test]
fn a_spurious_interrupt_does_not_rotate() {
    let mut pic = with_icw4(AEOI, 0);
    pic.write(MasterCommand, 0x80);
    assert_eq!(pic.acknowledge(), 0x27);
    raise(&mut pic, &[0, 7]);
    assert_eq!(pic.acknowledge(), 0x20);
}

#[test]
fn non_specific_eoi_ends_the_highest_in_service() {
    let mut pic = linux();
    pic.set_line(5, true);
    let _ = pic.acknowledge();
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x21, "nested");
    assert_eq!(read_after(&mut pic, MasterCommand, READ_ISR), 0x22);
    pic.write(MasterCommand, EOI);
    assert_eq!(pic.read(MasterCommand), 0x20, "the register choice stays");
    pic.write(MasterCommand, EOI);
    pic.write(MasterCommand, EOI);
    assert_eq!(pic.read(MasterCommand), 0);
}

#[test]
fn specific_eoi_ends_the_level_it_names() {
    let mut pic = linux();
    pic.set_line(5, true);
    let _ = pic.acknowledge();
    pic.set_line(1, true);
    let _ = pic.acknowledge();
    pic.write(MasterCommand, 0x60 | 5);
    assert_eq!(pic.master().isr(), 1 << 1);
}

#[test]
fn rotation_on_eoi_makes_the_ended_level_the_lowest() {
    for ocw2 in [0xa0, 0xe0 | 4] {
        let mut pic = linux();
        raise(&mut pic, &[4]);
        let _ = pic.acknowledge();
        pic.write(MasterCommand, ocw2);
        pic.set_line(4, false);
        raise(&mut pic, &[0, 4, 6]);
        assert_eq!(drain(&mut pic), [0x26, 0x20, 0x24]);
    }
}

#[test]
fn rotation_on_non_specific_eoi_without_service_changes_nothing() {
    let mut pic = linux();
    pic.write(MasterCommand, 0xa0);
    raise(&mut pic, &[0, 7]);
    assert_eq!(drain(&mut pic), [0x20, 0x27]);
}

#[test]
fn set_priority_names_the_lowest() {
    let mut pic = linux();
    pic.write(MasterCommand, 0xc0 | 5);
    raise(&mut pic, &[0, 5, 6]);
    assert_eq!(drain(&mut pic), [0x26, 0x20, 0x25]);
}

#[test]
fn ocw2_no_operation_does_nothing() {
    let mut pic = linux();
    pic.set_line(3, true);
    let _ = pic.acknowledge();
    pic.write(MasterCommand, 0x40 | 3);
    assert_eq!(pic.master().isr(), 1 << 3);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let mut pic = with_icw4(AEOI, 0);
    raise(&mut pic, &[3, 6]);
    assert_eq!((pic.acknowledge(), pic.acknowledge()), (0x23, 0x26));
    assert_eq!(pic.master().isr(), 0);
    assert!(!pic.output());
}

#[test]
fn automatic_eoi_rotates_when_told_to() {
    let mut pic = with_icw4(AEOI, 0);
    pic.write(ElcrMaster, 0x18);
    raise(&mut pic, &[3, 4]);
    pic.write(MasterCommand, 0x80);
    assert_eq!([pic.acknowledge(), pic.acknowledge(), pic.acknowledge()], [0x23, 0x24, 0x23]);
    pic.write(MasterCommand, 0x00);
    // IR3 is the lowest from here on.
    assert_eq!([pic.acknowledge(), pic.acknowledge()], [0x24, 0x24]);
}

#[test]
fn special_mask_mode_lets_lower_levels_through_a_masked_one_in_service() {
    let mut pic = linux();
    pic.set_line(3, true);
    let _ = pic.acknowledge();
    raise(&mut pic, &[6]);
    pic.write(MasterData, 1 << 3);
    assert!(!pic.output(), "masking alone does not lift the service");
    pic.write(MasterCommand, SET_SPECIAL_MASK);
    assert_eq!(pic.acknowledge(), 0x26);
    pic.write(MasterCommand, EOI);
    pic.write(MasterCommand, EOI);
    assert_eq!(pic.master().isr(), 1 << 3, "a non-specific EOI passes over the masked level");
    pic.set_line(6, false);
    pic.set_line(6, true);
    pic.write(MasterCommand, 0x08);
    assert!(pic.output(), "an OCW3 without ESMM leaves the mode alone");
    pic.write(MasterCommand, RESET_SPECIAL_MASK);
    assert!(!pic.output());
    pic.write(MasterCommand, EOI);
    assert_eq!((pic.master().isr(), pic.output()), (0, true));
}

#[test]
fn special_mask_mode_still_nests_by_what_is_unmasked() {
    let mut pic = linux();
    pic.write(MasterCommand, SET_SPECIAL_MASK);
    pic.set_line(3, true);
    let _ = pic.acknowledge();
    raise(&mut pic, &[5]);
    assert!(!pic.output());
}

#[test]
fn poll_answers_with_bit_7_and_acknowledges() {
    let mut pic = linux();
    raise(&mut pic, &[3, 5]);
    assert_eq!(read_after(&mut pic, MasterCommand, POLL), 0x83);
    assert_eq!(pic.master().isr(), 1 << 3);
    assert_eq!(pic.read(MasterCommand), 1 << 5, "one read only; then IRR again");
    assert_eq!(read_after(&mut pic, MasterCommand, POLL), 0, "IR5 must wait");
    pic.write(MasterCommand, EOI);
    pic.write(MasterCommand, POLL);
    assert_eq!(pic.read(MasterData), 0x85, "any read of the chip is the poll");
    assert_eq!(pic.read(MasterData), 0);
}

#[test]
fn poll_overrides_the_register_read_and_a_later_ocw3_takes_it_back() {
    let mut pic = linux();
    pic.set_line(3, true);
    assert_eq!(read_after(&mut pic, MasterCommand, POLL | READ_ISR), 0x83);
    assert_eq!(pic.read(MasterCommand), 1 << 3, "then ISR, as asked");
    pic.set_line(1, true);
    pic.write(MasterCommand, POLL);
    assert_eq!(read_after(&mut pic, MasterCommand, READ_IRR), 1 << 1);
    assert!(pic.output());
}

#[test]
fn poll_of_the_slave_works_through_the_cascade() {
    let mut pic = linux();
    raise(&mut pic, &[9, 11]);
    assert_eq!(read_after(&mut pic, MasterCommand, POLL), 0x82);
    assert_eq!(read_after(&mut pic, SlaveCommand, POLL), 0x81);
    assert_eq!((pic.master().isr(), pic.slave().isr()), (1 << 2, 1 << 1));
    pic.write(SlaveCommand, EOI);
    pic.write(MasterCommand, EOI);
    assert_eq!(pic.acknowledge(), 0x2b);
}

#[test]
fn polling_the_slave_alone_withdraws_its_request() {
    let mut pic = linux();
    raise(&mut pic, &[9]);
    assert_eq!(read_after(&mut pic, SlaveData, 0), 0, "OCW1");
    assert!(pic.output());
    assert_eq!(read_after(&mut pic, SlaveCommand, POLL), 0x81);
    assert!(!pic.output());
}

#[test]
fn poll_with_automatic_eoi_leaves_nothing_in_service() {
    let mut pic = with_icw4(0, AEOI);
    raise(&mut pic, &[9, 10]);
    assert_eq!(read_after(&mut pic, SlaveCommand, POLL), 0x81);
    assert_eq!(pic.slave().isr(), 0);
    assert_eq!(read_after(&mut pic, MasterCommand, POLL), 0x82);
    assert_eq!(read_after(&mut pic, SlaveCommand, POLL), 0x82);
    raise(&mut pic, &[11, 12]);
    pic.write(MasterCommand, EOI);
    assert_eq!(read_after(&mut pic, MasterCommand, POLL), 0x82);
    assert_eq!(read_after(&mut pic, SlaveCommand, POLL), 0x83);
    pic.write(MasterCommand, EOI);
    assert_eq!(pic.acknowledge(), 0x2c, "the poll dropped INT, and the next request raised it");
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    for (icw4, nested) in [(0, false), (SFNM, true)] {
        let mut pic = with_icw4(icw4, 0);
        raise(&mut pic, &[12]);
        assert_eq!(pic.acknowledge(), 0x2c);
        raise(&mut pic, &[9]);
        assert_eq!(pic.output(), nested);
        if nested {
            assert_eq!(pic.acknowledge(), 0x29);
        }
    }
}

#[test]
fn special_fully_nested_mode_holds_back_what_is_below_the_cascade() {
    let mut pic = with_icw4(SFNM, 0);
    raise(&mut pic, &[12]);
    let _ = pic.acknowledge();
    raise(&mut pic, &[3]);
    assert!(!pic.output());
    raise(&mut pic, &[1]);
    assert_eq!(pic.acknowledge(), 0x21);
    raise(&mut pic, &[8]);
    assert!(!pic.output(), "the slave waits for IR1");
}

#[test]
fn special_fully_nested_mode_is_for_inputs_with_slaves() {
    let mut pic = with_icw4(SFNM, 0);
    pic.write(ElcrMaster, 1 << 5);
    raise(&mut pic, &[5]);
    let _ = pic.acknowledge();
    assert!(!pic.output(), "IR5 still asks, but waits for its EOI");
}

/// Found by the reference model: the slave's ICW3 is its ID, 2, and not a map with a slave on IR1.
#[test]
fn special_fully_nested_mode_in_a_slave_nests_nothing() {
    let mut pic = with_icw4(0, SFNM);
    pic.write(ElcrSlave, 1 << 1);
    raise(&mut pic, &[9]);
    assert_eq!(pic.acknowledge(), 0x29);
    pic.write(MasterCommand, EOI);
    assert!(!pic.output(), "IRQ 9 still asks, but waits for its EOI");
}

#[test]
fn inputs_that_do_not_exist_are_ignored() {
    let mut pic = linux();
    for input in 16..=255 {
        pic.set_line(input, true);
    }
    assert_eq!((pic.master().irr(), pic.slave().irr()), (0, 0));
}
