//! Device 0 of the bus, as software expects one: a host bridge with an identity and nothing else.

use super::bus::Function;
use super::config::{ConfigSpace, Identity};

/// A vendor and device ID that stands for a plain PCI Express host bridge of a virtual machine (QEMU's list
/// "PCI IDs for qemu", vendor 1b36).
const ID: (u16, u16) = (0x1b36, 0x0008);
const HOST_BRIDGE: (u8, u8, u8) = (0x06, 0x00, 0x00);

/// The bridge.
pub struct HostBridge(ConfigSpace);

impl HostBridge {
    /// The bridge.
    pub fn new() -> Self {
        Self(ConfigSpace::new(&Identity { id: ID, revision: 0, class: HOST_BRIDGE, subsystem: (0, 0) }))
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn read_bar(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write_bar(&mut self, _bar: usize, _offset: u64, _data: &[u8]) {}
}
