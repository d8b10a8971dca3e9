use std::sync::Arc;

use super::I8042;
use crate::testing::{Control, inb, outb};
use crate::traits::MachineEvent;

fn controller() -> (I8042, Arc<Control>) {
    let control = Arc::new(Control::default());
    (I8042::new(control.clone()), control)
}

#[test]
fn an_idle_controller_has_no_output_and_takes_input() {
    let (mut i8042, _) = controller();
    assert_eq!(inb(&mut i8042, 0, 4) & 0x03, 0);
    outb(&mut i8042, 0, 0, 0xed);
    assert_eq!(inb(&mut i8042, 0, 4) & 0x03, 0, "no keyboard answers");
}

#[test]
fn the_self_test_passes_and_sets_the_system_flag() {
    let (mut i8042, _) = controller();
    assert_eq!(inb(&mut i8042, 0, 4) & 0x04, 0);
    outb(&mut i8042, 0, 4, 0xaa);
    assert_eq!(inb(&mut i8042, 0, 4) & 0x0d, 0x0d);
    assert_eq!(inb(&mut i8042, 0, 0), 0x55);
    assert_eq!(inb(&mut i8042, 0, 4) & 0x05, 0x04);
}

#[test]
fn the_command_byte_reads_back() {
    let (mut i8042, _) = controller();
    outb(&mut i8042, 0, 4, 0x60);
    outb(&mut i8042, 0, 0, 0x47);
    outb(&mut i8042, 0, 4, 0x20);
    assert_eq!(inb(&mut i8042, 0, 0), 0x47);
    outb(&mut i8042, 0, 4, 0xad);
    outb(&mut i8042, 0, 4, 0x20);
    assert_eq!(inb(&mut i8042, 0, 0), 0x57);
}

#[test]
fn an_auxiliary_port_shows_no_sign_of_itself() {
    let (mut i8042, _) = controller();
    outb(&mut i8042, 0, 4, 0xd3);
    outb(&mut i8042, 0, 0, 0x5a);
    assert_eq!(inb(&mut i8042, 0, 4) & 0x21, 0);
    outb(&mut i8042, 0, 4, 0xa7);
    outb(&mut i8042, 0, 4, 0x20);
    assert_eq!(inb(&mut i8042, 0, 0) & 0x20, 0, "no disable bit to set");
}

#[test]
fn pulsing_or_clearing_the_reset_line_resets() {
    let (mut i8042, control) = controller();
    outb(&mut i8042, 0, 4, 0xff);
    outb(&mut i8042, 0, 4, 0xfd);
    assert_eq!(control.take(), []);
    outb(&mut i8042, 0, 4, 0xfe);
    assert_eq!(control.take(), [MachineEvent::Reset]);
    outb(&mut i8042, 0, 4, 0xd1);
    outb(&mut i8042, 0, 0, 0xdf);
    assert_eq!(control.take(), []);
    outb(&mut i8042, 0, 4, 0xd1);
    outb(&mut i8042, 0, 0, 0xde);
    assert_eq!(control.take(), [MachineEvent::Reset]);
}

#[test]
fn a20_stays_enabled() {
    let (mut i8042, _) = controller();
    outb(&mut i8042, 0, 4, 0xd1);
    outb(&mut i8042, 0, 0, 0xdd);
    outb(&mut i8042, 0, 4, 0xdd);
    outb(&mut i8042, 0, 4, 0xd0);
    assert_eq!(inb(&mut i8042, 0, 0), 0xdf);
}

#[test]
fn a_new_command_forgets_the_argument_of_the_old() {
    let (mut i8042, control) = controller();
    outb(&mut i8042, 0, 4, 0xd1);
    outb(&mut i8042, 0, 4, 0xae);
    outb(&mut i8042, 0, 0, 0x00);
    assert_eq!(control.take(), []);
}
