//! The PCI bus in the machine: its ports, its memory, and the part that firmware has in it.

use std::sync::Arc;

use devices::PciConfig;
use devices::pci::{Function, HostBridge, PciBus};
use parking_lot::Mutex;
use x86::{Nanos, platform};

use crate::Error;
use crate::io_bus::Handler;
use crate::wiring::Wiring;

/// The bus while it is being filled.
pub struct Pci {
    bus: PciBus,
    /// The first address of the window that no function has.
    free: u64,
}

/// A place for one more function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where its memory is to be.
    pub base: u32,
    /// What its INTA# is wired to.
    pub gsi: u8,
}

impl Pci {
    /// A bus with its host bridge.
    pub fn new() -> Self {
        let mut bus = PciBus::new();
        bus.insert(Arc::new(Mutex::new(HostBridge::new())));
        Self { bus, free: platform::PCI_WINDOW }
    }

    /// A place for a function with `bytes` of memory, a power of two.
    ///
    /// # Errors
    ///
    /// There is none left.
    pub fn slot(&mut self, bytes: u32) -> Result<Slot, Error> {
        let device = self.bus.next_device();
        let base = self.free.next_multiple_of(bytes.into());
        let fits = base + u64::from(bytes) <= platform::PCI_WINDOW + platform::PCI_WINDOW_SIZE;
        let device = device.filter(|_| fits).ok_or_else(full)?;
        self.free = base + u64::from(bytes);
        // The window ends below 4 GiB.
        Ok(Slot { base: base as u32, gsi: platform::pci_gsi(device, 0) })
    }

    /// Puts a function in the place that was given last.
    ///
    /// # Errors
    ///
    /// There is none left.
    pub fn insert(&mut self, function: Arc<Mutex<dyn Function>>) -> Result<(), Error> {
        self.bus.insert(function).map(drop).ok_or_else(full)
    }

    /// Puts the bus into the machine.
    pub fn wire(self, wiring: &mut Wiring) {
        let bus = Arc::new(self.bus);
        let ports = PciConfig::new(Arc::clone(&bus), Arc::clone(&wiring.stopper) as _);
        wiring.ports.insert(platform::PCI_CONFIG_ADDRESS.into(), 8, Arc::new(Mutex::new(ports)));
        wiring.mmio.insert(platform::PCI_ECAM, platform::PCI_ECAM_SIZE, Arc::new(Ecam(Arc::clone(&bus))));
        wiring.mmio.insert(platform::PCI_WINDOW, platform::PCI_WINDOW_SIZE, Arc::new(Memory(Arc::clone(&bus))));
        wiring.wakers.push(Box::new(move || bus.can_give_nmi()));
    }
}

fn full() -> Error {
    Error::Usage("the PCI bus has no place for so many devices; leave some out".into())
}

/// Configuration space as memory.
struct Ecam(Arc<PciBus>);

impl Handler for Ecam {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        self.0.read_ecam(offset, data);
    }

    fn write(&self, _now: Nanos, offset: u64, data: &[u8]) {
        self.0.write_ecam(offset, data);
    }
}

/// The functions' memory.
struct Memory(Arc<PciBus>);

impl Handler for Memory {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        self.0.read_memory(platform::PCI_WINDOW + offset, data);
    }

    fn write(&self, _now: Nanos, offset: u64, data: &[u8]) {
        self.0.write_memory(platform::PCI_WINDOW + offset, data);
    }
}
