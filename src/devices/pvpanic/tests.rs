use std::sync::Arc;

use super::PvPanic;
use crate::testing::{Control, inb, outb};
use crate::traits::{BusDevice, MachineEvent};

#[test]
fn each_event_has_its_consequence_and_the_worst_counts() {
    let control = Arc::new(Control::default());
    let mut port = PvPanic::new(control.clone());
    assert_eq!(inb(&mut port, 0, 0), 0b111, "all events are understood");
    for (written, asked) in [
        (0b000, vec![]),
        (0b001, vec![MachineEvent::Panicked]),
        (0b010, vec![MachineEvent::CrashLoaded]),
        (0b100, vec![MachineEvent::PowerOff]),
        (0b111, vec![MachineEvent::Panicked]),
        (0b110, vec![MachineEvent::CrashLoaded]),
        (0xf8, vec![]),
    ] {
        outb(&mut port, 0, 0, written);
        assert_eq!(control.take(), asked, "{written:#b}");
    }
}

#[test]
fn only_the_one_port_answers() {
    let control = Arc::new(Control::default());
    let mut port = PvPanic::new(control.clone());
    port.write(0, 0, &[0, 1]);
    assert_eq!(control.take(), []);
    let mut data = [0; 2];
    port.read(0, 0, &mut data);
    assert_eq!(data, [0b111, 0xff]);
}
