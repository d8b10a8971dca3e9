//! Wires with one and several holders, and messages.

use super::*;

#[derive(Default)]
struct Recorder {
    levels: Mutex<Vec<(u8, bool)>>,
    messages: Mutex<Vec<(u64, u32)>>,
}

impl Recorder {
    /// What has come since the last look.
    fn levels(&self) -> Vec<(u8, bool)> {
        std::mem::take(&mut self.levels.lock())
    }
}

impl LineTarget for Recorder {
    fn set_level(&self, gsi: u8, level: bool) {
        self.levels.lock().push((gsi, level));
    }
}

impl MsiTarget for Recorder {
    fn send(&self, address: u64, data: u32) {
        self.messages.lock().push((address, data));
    }
}

#[test]
fn a_shared_wire_is_the_or_of_its_holders() {
    let recorder = Arc::new(Recorder::default());
    let wire = Wire::new(9, recorder.clone());
    let (mut a, mut b) = (wire.holder(), wire.holder());
    a.set(true);
    b.set(true);
    a.set(false);
    assert_eq!(recorder.levels(), [(9, true)]);
    assert_eq!((a.level(), b.level()), (false, true));
    b.set(false);
    assert_eq!(recorder.levels(), [(9, false)]);
}

#[test]
fn dropping_a_holder_lowers_its_level_and_no_other() {
    let recorder = Arc::new(Recorder::default());
    let wire = Wire::new(9, recorder.clone());
    let (mut a, mut b) = (wire.holder(), wire.holder());
    a.set(true);
    b.set(true);
    drop(a);
    assert_eq!(recorder.levels(), [(9, true)], "the other still holds it");
    drop(b);
    assert_eq!(recorder.levels(), [(9, false)]);
    drop(wire.holder());
    assert_eq!(recorder.levels(), [], "one that was low lowers nothing");
}

#[test]
fn setting_the_level_that_it_has_says_nothing() {
    let recorder = Arc::new(Recorder::default());
    let mut line = Wire::new(4, recorder.clone()).holder();
    line.set(false);
    assert_eq!(recorder.levels(), []);
    line.set(true);
    line.set(true);
    assert_eq!(recorder.levels(), [(4, true)]);
}

#[test]
fn a_pulse_is_a_rise_and_a_fall() {
    let recorder = Arc::new(Recorder::default());
    let wire = Wire::new(4, recorder.clone());
    let (mut line, mut other) = (wire.holder(), wire.holder());
    line.pulse();
    assert_eq!(recorder.levels(), [(4, true), (4, false)]);
    line.set(true);
    line.pulse();
    assert_eq!(recorder.levels(), [(4, true), (4, false)], "from high there is only the fall");
    other.set(true);
    line.pulse();
    assert_eq!(recorder.levels(), [(4, true)], "on a wire that is high it is no edge");
}

#[test]
fn a_message_goes_out_as_it_is() {
    let recorder = Arc::new(Recorder::default());
    let msi = Msi::new(recorder.clone());
    msi.clone().send(0xfee0_1000, 0x45);
    msi.send(u64::MAX, u32::MAX);
    assert_eq!(*recorder.messages.lock(), [(0xfee0_1000, 0x45), (u64::MAX, u32::MAX)]);
}

#[test]
fn a_switch_takes_a_device_off_the_wire_and_puts_it_back() {
    let recorder = Arc::new(Recorder::default());
    let wire = Wire::new(2, recorder.clone());
    let (switch, mut device) = Switch::new(wire.holder());
    device.set(true);
    assert_eq!(recorder.levels(), [(2, true)], "closed at first");
    switch.set_closed(false);
    assert_eq!(recorder.levels(), [(2, false)]);
    device.pulse();
    device.set(true);
    switch.set_closed(false);
    assert_eq!(recorder.levels(), []);
    let mut other = wire.holder();
    other.pulse();
    assert_eq!(recorder.levels(), [(2, true), (2, false)], "the wire is free for others");
    switch.set_closed(true);
    assert_eq!(recorder.levels(), [(2, true)], "what the device drives by now");
    switch.set_closed(true);
    drop(device);
    assert_eq!(recorder.levels(), [(2, false)]);
}
