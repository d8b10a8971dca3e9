use super::*;

const IDENTITY: Identity =
    Identity { id: (0x1af4, 0x1042), revision: 1, class: (1, 0x80, 0), subsystem: (0x1af4, 0x0040) };

fn space() -> ConfigSpace {
    let mut space = ConfigSpace::new(&IDENTITY);
    space.add_memory_bar(0, 0x8000, 0xd000_8000);
    space.add_interrupt_pin(16);
    space
}

#[test]
fn a_header_says_who_it_is_and_can_not_be_overwritten() {
    let mut space = space();
    space.write(0, &[0xff; 4]);
    space.write(8, &[0xff; 4]);
    space.write(0x2c, &[0; 4]);
    assert_eq!(space.u32_at(0), 0x1042_1af4);
    assert_eq!(space.u32_at(8), 0x0180_0001);
    assert_eq!(space.u32_at(0x2c), 0x0040_1af4);
    assert!(space.has_interrupt_pin());
    assert_eq!(space.u16_at(0x3c), 0x0110);
}

#[test]
fn a_base_address_tells_its_size_and_moves() {
    let mut space = space();
    assert_eq!(space.bar(0), Some((0xd000_8000, 0x8000)));
    space.write(BAR0, &[0xff; 4]);
    assert_eq!(space.u32_at(BAR0), 0xffff_8000);
    space.write(BAR0, &0xd012_3456u32.to_le_bytes());
    assert_eq!(space.bar(0), Some((0xd012_0000, 0x8000)));
    // One byte of it.
    space.write(BAR0 + 3, &[0xd1]);
    assert_eq!(space.bar(0), Some((0xd112_0000, 0x8000)));
    space.write(BAR0 + 4, &[0xff; 4]);
    assert_eq!((space.u32_at(BAR0 + 4), space.bar(1)), (0, None), "there is no second one");
}

#[test]
fn without_memory_decoding_nothing_is_answered() {
    let mut space = space();
    space.write(COMMAND, &[0, 0]);
    assert_eq!(space.bar(0), None);
    space.write(COMMAND, &[0xff, 0xff]);
    assert_eq!(space.u16_at(COMMAND), 0x0406);
    assert!(!space.intx_enabled());
    assert!(space.bar(0).is_some());
}

#[test]
fn capabilities_are_a_list() {
    let mut space = space();
    assert_eq!(space.u16_at(STATUS) & 0x10, 0, "none yet");
    let first = space.add_capability(9, &[1, 2, 3, 4, 5], &[]);
    let second = space.add_capability(0x11, &[0; 10], &[0xff, 0xc0]);
    assert_eq!(space.u16_at(STATUS) & 0x10, 0x10);
    assert_eq!(usize::from(space.u16_at(0x34)), first);
    assert_eq!(space.u16_at(first), (second as u16) << 8 | 9);
    assert_eq!(space.u16_at(second), 0x11);
    assert_eq!((first % 4, second % 4), (0, 0));
    space.write(second + 2, &[0xff; 4]);
    assert_eq!(space.u32_at(second + 2), 0x0000_c0ff);
}

#[test]
fn accesses_beyond_the_space_are_all_ones_and_lost() {
    let mut space = space();
    let mut data = [0; 8];
    space.write(CONFIG_BYTES - 2, &[1; 8]);
    space.read(CONFIG_BYTES - 4, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    space.read(usize::MAX - 8, &mut data);
    assert_eq!(data, [0xff; 8]);
}

#[test]
fn the_interrupt_status_shows_what_is_wanted() {
    let mut space = space();
    space.show_interrupt(true);
    assert_eq!(space.u16_at(STATUS) & 8, 8);
    space.show_interrupt(false);
    assert_eq!(space.u16_at(STATUS) & 8, 0);
}
