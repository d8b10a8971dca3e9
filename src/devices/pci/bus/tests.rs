use super::*;
use crate::pci::{HostBridge, Identity};

/// Memory of sixteen bytes.
struct Memory {
    config: ConfigSpace,
    bytes: [u8; 16],
}

impl Function for Memory {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        data.copy_from_slice(&self.bytes[offset as usize..][..data.len()]);
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
    }

    fn can_give_nmi(&self) -> bool {
        self.bytes[0] == NMI
    }
}

/// The first byte of a memory that can give one.
const NMI: u8 = 0xee;

const BASE: u64 = 0xd000_0000;
const FIRST: Place = Place { bus: 0, device: 1, function: 0 };

/// A host bridge and two memories.
fn bus() -> PciBus {
    let mut bus = PciBus::new();
    assert_eq!(bus.insert(Arc::new(Mutex::new(HostBridge::new()))), Some(0));
    for device in 1..=2 {
        let identity = Identity { id: (1, device), revision: 0, class: (5, 0, 0), subsystem: (0, 0) };
        let mut config = ConfigSpace::new(&identity);
        config.add_memory_bar(2, 16, BASE as u32 + 16 * u32::from(device));
        let memory = Memory { config, bytes: [device as u8; 16] };
        assert_eq!(bus.insert(Arc::new(Mutex::new(memory))), Some(device as u8));
    }
    bus
}

fn config(bus: &PciBus, place: Place, offset: usize) -> u32 {
    let mut data = [0; 4];
    bus.read_config(place, offset, &mut data);
    u32::from_le_bytes(data)
}

fn byte(bus: &PciBus, address: u64) -> u8 {
    let mut data = [0];
    bus.read_memory(address, &mut data);
    data[0]
}

#[test]
fn functions_are_found_where_they_are_and_nowhere_else() {
    let bus = bus();
    assert_eq!(config(&bus, FIRST, 0), 0x0001_0001);
    for place in [Place { bus: 1, ..FIRST }, Place { device: 3, ..FIRST }, Place { function: 1, ..FIRST }] {
        assert_eq!(config(&bus, place, 0), 0xffff_ffff, "{place:?}");
        bus.write_config(place, 4, &[0; 4]);
    }
    let mut data = [0; 4];
    bus.read_ecam(2 << 15, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x0002_0001);
    bus.read_ecam(2 << 15 | 0x100, &mut data);
    assert_eq!(data, [0xff; 4], "no extended space");
    bus.read_ecam(u64::MAX - 3, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn memory_goes_to_the_function_whose_it_is() {
    let bus = bus();
    assert_eq!([BASE + 15, BASE + 16, BASE + 32, BASE + 48].map(|at| byte(&bus, at)), [0xff, 1, 2, 0xff]);
    bus.write_memory(BASE + 31, &[7, 8]);
    assert_eq!([BASE + 31, BASE + 32].map(|at| byte(&bus, at)), [7, 2], "what is beyond the end is lost");
    let mut data = [0; 4];
    bus.read_memory(BASE + 30, &mut data);
    assert_eq!(data, [1, 7, 0xff, 0xff]);
}

#[test]
fn a_function_that_is_moved_or_turned_off_takes_its_memory_along() {
    let bus = bus();
    let at = BAR0 + 8;
    bus.write_config(FIRST, at, &(BASE as u32 + 0x1000).to_le_bytes());
    assert_eq!([BASE + 16, BASE + 0x1000].map(|at| byte(&bus, at)), [0xff, 1]);
    bus.write_config(FIRST, COMMAND, &[0, 0]);
    assert_eq!(byte(&bus, BASE + 0x1000), 0xff);
    bus.write_config(FIRST, COMMAND, &[2]);
    assert_eq!(byte(&bus, BASE + 0x1000), 1);
    // On top of the other: the one that was there first answers.
    bus.write_config(FIRST, at, &(BASE as u32 + 32).to_le_bytes());
    assert_eq!(byte(&bus, BASE + 32), 2);
}

#[test]
fn a_bus_has_32_devices() {
    let mut bus = bus();
    while bus.next_device().is_some() {
        assert!(bus.insert(Arc::new(Mutex::new(HostBridge::new()))).is_some());
    }
    assert_eq!(bus.insert(Arc::new(Mutex::new(HostBridge::new()))), None);
    assert_eq!(config(&bus, Place { device: 31, ..FIRST }, 0), 0x0008_1b36);
}

#[test]
fn every_function_is_asked_for_nmis() {
    for device in 1..=2 {
        let bus = bus();
        assert!(!bus.can_give_nmi());
        bus.write_memory(BASE + 16 * device, &[NMI]);
        assert!(bus.can_give_nmi(), "device {device}");
    }
}
