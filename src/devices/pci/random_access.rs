//! Nonsense: any access of any size to configuration space and memory does no harm, whatever came before.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::Messages;

const WINDOW: u32 = 0xd000_0000;

/// A function with MSI-X and nothing else.
struct Plain {
    config: ConfigSpace,
    capability: usize,
    msix: MsiX,
}

impl Function for Plain {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.msix.set_control(self.config.u16_at(self.capability + 2));
        self.msix.raise(1);
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.msix.read_table(offset, data);
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        self.msix.write_table(offset, data);
    }
}

#[derive(Debug, Clone)]
enum Access {
    ReadConfig(u16, usize, usize),
    WriteConfig(u16, usize, Vec<u8>),
    ReadMemory(u64, usize),
    WriteMemory(u64, Vec<u8>),
}

fn access() -> impl Strategy<Value = Access> {
    let place = prop_oneof![4 => 0u16..32, 1 => any::<u16>()];
    let offset = prop_oneof![8 => 0usize..0x100, 1 => any::<usize>()];
    let address = prop_oneof![
        8 => (0u64..0x100).prop_map(|at| u64::from(WINDOW) + at),
        1 => any::<u64>(),
    ];
    prop_oneof![
        (place.clone(), offset.clone(), 1usize..9).prop_map(|(p, o, n)| Access::ReadConfig(p, o, n)),
        (place, offset, vec(any::<u8>(), 1..9)).prop_map(|(p, o, d)| Access::WriteConfig(p, o, d)),
        (address.clone(), 1usize..9).prop_map(|(a, n)| Access::ReadMemory(a, n)),
        (address, vec(any::<u8>(), 1..9)).prop_map(|(a, d)| Access::WriteMemory(a, d)),
    ]
}

proptest! {
    #[test]
    fn nonsense_does_no_harm(accesses in vec(access(), 1..200)) {
        let mut bus = PciBus::new();
        bus.insert(Arc::new(Mutex::new(HostBridge::new())));
        let (msi, _) = Messages::with_handle();
        let msix = MsiX::new(msi, 4);
        let identity = Identity { id: (0x1af4, 1), revision: 0, class: (0xff, 0, 0), subsystem: (0, 0) };
        let mut config = ConfigSpace::new(&identity);
        config.add_memory_bar(0, 0x40, WINDOW);
        let (body, writable) = msix.capability(0, 0, 0);
        let capability = config.add_capability(MSIX_CAPABILITY, &body, &writable);
        bus.insert(Arc::new(Mutex::new(Plain { config, capability, msix })));
        for access in accesses {
            match access {
                Access::ReadConfig(place, offset, len) => {
                    bus.read_config(Place::from_bits(place), offset, &mut vec![0; len]);
                }
                Access::WriteConfig(place, offset, data) => bus.write_config(Place::from_bits(place), offset, &data),
                Access::ReadMemory(address, len) => bus.read_memory(address, &mut vec![0; len]),
                Access::WriteMemory(address, data) => bus.write_memory(address, &data),
            }
        }
        let mut id = [0; 4];
        bus.read_config(Place::from_bits(8), 0, &mut id);
        prop_assert_eq!(id, [0xf4, 0x1a, 1, 0], "it still is who it was");
    }
}
