use std::sync::Arc;

use super::Port92;
use crate::testing::{Control, inb, outb};
use crate::traits::{BusDevice, MachineEvent};

fn setup() -> (Port92, Arc<Control>) {
    let control = Arc::new(Control::default());
    (Port92::new(control.clone()), control)
}

#[test]
fn a20_is_enabled_and_its_bit_keeps_what_is_written() {
    let (mut port, control) = setup();
    assert_eq!(inb(&mut port, 0, 0), 0x02);
    outb(&mut port, 0, 0, 0x00);
    assert_eq!(inb(&mut port, 0, 0), 0x00);
    outb(&mut port, 0, 0, 0xfe);
    assert_eq!(inb(&mut port, 0, 0), 0x02, "there is nothing behind the other bits");
    assert_eq!(control.take(), []);
}

#[test]
fn a_rise_of_bit_0_resets() {
    let (mut port, control) = setup();
    outb(&mut port, 0, 0, 0x03);
    assert_eq!(control.take(), [MachineEvent::Reset]);
    outb(&mut port, 0, 0, 0x01);
    assert_eq!(control.take(), [], "it was up already");
    outb(&mut port, 0, 0, 0x00);
    assert_eq!(control.take(), []);
    outb(&mut port, 0, 0, 0x01);
    assert_eq!(control.take(), [MachineEvent::Reset]);
}

#[test]
fn a_wide_access_reaches_the_one_port() {
    let (mut port, control) = setup();
    port.write(0, 0, &[0x00, 0x01, 0x01, 0x01]);
    let mut data = [0x55; 4];
    port.read(0, 0, &mut data);
    assert_eq!(data, [0x00, 0xff, 0xff, 0xff]);
    assert_eq!(control.take(), []);
}
