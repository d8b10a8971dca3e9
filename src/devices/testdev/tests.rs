use parking_lot::Mutex;

use super::*;
use crate::testing::Probe;

fn read<const N: usize>(device: &mut impl BusDevice, offset: u64) -> [u8; N] {
    let mut data = [0; N];
    device.read(0, offset, &mut data);
    data
}

#[test]
fn scratch_ports_hold_bytes_words_and_dwords() {
    let mut ports = ScratchPorts::default();
    ports.write(0, 0, &[1, 2, 3, 4]);
    assert_eq!((read(&mut ports, 0), read(&mut ports, 1), read(&mut ports, 2)), ([1, 2, 3, 4], [2], [3, 4]));
    ports.write(0, 1, &[9]);
    ports.write(0, 2, &[7, 8]);
    assert_eq!(read(&mut ports, 0), [1, 9, 7, 8]);
}

#[derive(Default)]
struct Flushed(Mutex<Vec<u64>>);

impl PageFlush for Flushed {
    fn flush(&self, address: u64) {
        self.0.lock().push(address);
    }
}

#[test]
fn only_a_dword_names_a_page() {
    let flushed = Arc::new(Flushed::default());
    let mut port = FlushPort::new(flushed.clone());
    port.write(0, 0, &[1]);
    port.write(0, 0, &[1, 2]);
    port.write(0, 1, &[1, 2, 3, 4]);
    assert!(flushed.0.lock().is_empty());
    port.write(0, 0, &[0, 0x10, 0x40, 0xff]);
    assert_eq!(*flushed.0.lock(), [0xff40_1000]);
    assert_eq!(read(&mut port, 0), [0xff; 4]);
}

#[test]
fn a_byte_is_the_level_of_its_line() {
    let probes: Vec<_> = (0..3).map(|_| Probe::on_line()).collect();
    let (lines, probes): (Vec<_>, Vec<_>) = probes.into_iter().unzip();
    let mut ports = IrqLines::new(lines);
    ports.write(0, 1, &[1]);
    assert_eq!(probes.iter().map(|probe| probe.level()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(read(&mut ports, 0), [0, 1, 0, 0xff]);
    // Set again it makes no edge.
    ports.write(0, 1, &[0x80]);
    assert_eq!(probes[1].take_edges(), 1);
    ports.write(0, 0, &[1, 0, 1, 1]);
    assert_eq!(probes.iter().map(|probe| probe.level()).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn scratch_memory_ends_where_it_ends() {
    let mut memory = ScratchMemory::default();
    memory.write(0, 0xfffc, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(read(&mut memory, 0xfffc), [1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(read(&mut memory, 0), [0; 8]);
    for offset in [0x1_0000, u64::MAX] {
        memory.write(0, offset, &[1; 8]);
        assert_eq!(read(&mut memory, offset), [0xff; 8]);
    }
}
