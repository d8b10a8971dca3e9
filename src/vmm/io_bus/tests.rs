use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// Remembers writes, answers reads with its name.
struct Recorder {
    name: u8,
    written: Vec<(u64, Vec<u8>)>,
}

impl BusDevice for Recorder {
    fn read(&mut self, _now: Nanos, _offset: u64, data: &mut [u8]) {
        data.fill(self.name);
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        self.written.push((offset, data.to_vec()));
    }
}

fn recorder(name: u8) -> Arc<Mutex<Recorder>> {
    Arc::new(Mutex::new(Recorder { name, written: Vec::new() }))
}

#[test]
fn an_access_reaches_the_device_whose_range_it_starts_in() {
    let (a, b) = (recorder(0xa), recorder(0xb));
    let mut bus = IoBus::new("port");
    bus.insert(0x40, 4, b.clone());
    bus.insert(0x20, 2, a.clone());
    bus.write(0, 0x21, &[1]);
    bus.write(0, 0x43, &[2]);
    assert_eq!(a.lock().written, [(1, vec![1])]);
    assert_eq!(b.lock().written, [(3, vec![2])]);
    assert_eq!(bus.unclaimed(), 0);
}

#[test]
fn nothing_there_reads_as_ones_and_is_counted() {
    let mut bus = IoBus::new("port");
    bus.insert(0x20, 2, recorder(0));
    let mut data = [0; 4];
    bus.read(0, 0x22, &mut data);
    bus.write(0, 0x1f, &[0]);
    bus.write(0, u64::MAX, &[0]);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(bus.unclaimed(), 3);
}

#[test]
fn a_device_sees_nothing_beyond_its_range() {
    let device = recorder(0x11);
    let mut bus = IoBus::new("port");
    bus.insert(0x20, 2, device.clone());
    let mut data = [0; 4];
    bus.read(0, 0x21, &mut data);
    bus.write(0, 0x21, &[1, 2, 3, 4]);
    assert_eq!(data, [0x11, 0xff, 0xff, 0xff]);
    assert_eq!(device.lock().written, [(1, vec![1])]);
}

#[test]
#[should_panic(expected = "overlaps")]
fn overlapping_ranges_are_a_bug_of_ours() {
    let mut bus = IoBus::new("port");
    bus.insert(0x20, 4, recorder(0));
    bus.insert(0x22, 4, recorder(1));
}
