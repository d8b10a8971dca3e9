use std::sync::Arc;

use super::DebugExit;
use crate::testing::Control;
use crate::traits::{BusDevice, MachineEvent};

#[test]
fn the_low_byte_of_a_write_of_any_size_ends_the_machine() {
    let control = Arc::new(Control::default());
    let mut port = DebugExit::new(control.clone());
    let mut data = [0xaa; 4];
    port.read(0, 0, &mut data);
    assert_eq!(data, [0; 4]);
    assert_eq!(control.take(), []);
    port.write(0, 0, &[0x31, 0, 0, 0]);
    port.write(0, 3, &[7]);
    assert_eq!(control.take(), [MachineEvent::DebugExit(0x31), MachineEvent::DebugExit(7)]);
}
