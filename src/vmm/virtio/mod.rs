//! Virtio devices in the machine: what they are made of on the host, where they are in the guest, and where their slow
//! parts run.

mod console;
mod disk;
mod net;

use std::any::Any;
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::sync::Arc;

use bottom_half::{QueueKind, TopHalf, Turn, Vector};
use devices::virtio::{
    BAR_BYTES, Common, Device, MMIO_WINDOW, Memory, Runner, Serve, VirtioMmio, VirtioPci, Wires, blk,
    console as virtio_console, net as virtio_net, rng,
};
use parking_lot::Mutex;
use x86::platform;

pub use console::ConsoleConfig;
pub use disk::DiskConfig;
pub use net::NetConfig;
use sys::disk::Disk;
use sys::tap::Tap;

use crate::bottom_halves::{self, BottomHalves, Drain};
use crate::console::Port;
use crate::doorbells::Watch;
use crate::main_loop::{ConsolePlace, Doorbell};
use crate::memory::GuestRam;
use crate::pci::Pci;
use crate::wiring::Wiring;
use crate::{Config, Error};

/// Requests of a disk that run at once.
const LANES: usize = 8;
/// The most virtio devices: PCI has 32 places, the host bridge one of them.
pub const MAX_DEVICES: usize = 31;

/// How virtio devices are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// By the PCI bus.
    #[default]
    Pci,
    /// Each by a window of its own, which ACPI tells of.
    Mmio,
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "pci" => Ok(Self::Pci),
            "mmio" => Ok(Self::Mmio),
            _ => Err(Error::Usage(format!("{text:?} is no way to connect virtio devices; give --virtio pci or mmio"))),
        }
    }
}

/// What virtio devices are on the host: opened once, whatever the guest resets.
pub struct Backends {
    disks: Vec<Arc<Disk>>,
    /// Addresses, and the queues of each interface.
    nets: Vec<([u8; 6], Vec<Arc<Tap>>)>,
    rng: bool,
    /// There is a console, whose ports are opened when there is a machine to connect them to.
    console: bool,
}

impl Backends {
    /// Opens everything.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let disks = config.disks.iter().map(|disk| disk.open().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let open = |net: &NetConfig| Ok((net.mac, net.open()?.into_iter().map(Arc::new).collect()));
        let nets = config.nets.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        let backends = Self { disks, nets, rng: config.rng, console: !config.consoles.is_empty() };
        match backends.count() {
            0..=MAX_DEVICES => Ok(backends),
            count => Err(Error::Usage(format!("{count} virtio devices are more than {MAX_DEVICES}; leave some out"))),
        }
    }

    /// How many devices come of it.
    pub fn count(&self) -> usize {
        self.disks.len() + self.nets.len() + usize::from(self.rng) + usize::from(self.console)
    }
}

/// A machine's virtio devices.
#[derive(Default)]
pub struct Virtio {
    /// Who the bottom halves call; they themselves don't keep it.
    served: Vec<Arc<dyn Any + Send + Sync>>,
    /// Network interfaces that the main loop listens to.
    watches: Vec<Watch>,
    console: Option<Arc<dyn Serve<virtio_console::Console>>>,
    /// The places of its ports' consoles, and what moves their bytes.
    console_places: Vec<(Arc<Drain>, Runner)>,
}

impl Virtio {
    /// Makes the devices and wires them.
    pub fn new(
        config: &Config,
        backends: &Backends,
        doorbell: &Arc<Doorbell>,
        ram: &GuestRam,
        wiring: &mut Wiring,
        pci: &mut Pci,
    ) -> Result<Self, Error> {
        let bottom_halves = wiring.bottom_halves.clone();
        let (system, cpu) = (bottom_halves.system(), bottom_halves.main_cpu());
        let mut this = Self::default();
        let places = bottom_halves.places();
        let mut place = Place { memory: ram.memory(), transport: config.virtio, wiring, pci, windows: 0 };
        for (index, disk) in backends.disks.iter().enumerate() {
            let name = format!("disk {index}");
            // A queue of its own, which says whose I/O does not end.
            let io = system.queue(&name, QueueKind::Unbound);
            let device = place.put(blk::Blk::new(name, Arc::clone(disk) as _))?;
            let first = places.of(bottom_halves::Device::Blk).home();
            blk::attach(&device, &blk::Places { cpu: (system, cpu), queue: &io, lanes: LANES, first });
            this.served.push(device);
        }
        for (index, (mac, taps)) in backends.nets.iter().enumerate() {
            let queues = taps.iter().map(|tap| Arc::clone(tap) as _).collect();
            let device = place.put(virtio_net::Net::new(format!("net {index}"), *mac, queues))?;
            let receives = virtio_net::attach(&device, (system, cpu), places.of(bottom_halves::Device::Net).home());
            for (tap, receive) in taps.iter().zip(receives) {
                let ring = Box::new(move |_: &TopHalf<'_>| receive.schedule());
                let watch = place.wiring.doorbells.watch(tap.as_raw_fd(), ring);
                this.watches.push(watch.map_err(|e| Error::host("a network interface can't be watched", e))?);
            }
            this.served.push(device);
        }
        if backends.rng {
            let device = place.put(rng::Rng::new(sys::random::fill))?;
            rng::attach(&device, system, cpu);
            this.served.push(device);
        }
        if !config.consoles.is_empty() {
            let names = config.consoles.iter().map(|port| port.name.clone()).collect();
            let device = place.put(virtio_console::Console::new(names))?;
            let home = places.of(bottom_halves::Device::Console).home();
            for _ in &config.consoles {
                let drain = Drain::new(doorbell);
                let runner = Runner::new(home, (system, cpu), Vector::IrqPoll, "console", {
                    let drains = bottom_halves.drains(&drain);
                    move || {
                        drains();
                        Turn::Done
                    }
                });
                this.console_places.push((drain, runner));
            }
            let looks = this.console_places.iter().map(|(_, runner)| runner.clone()).collect();
            virtio_console::attach(&device, (system, cpu), looks);
            this.console = Some(Arc::clone(&device) as _);
            this.served.push(device);
        }
        Ok(this)
    }

    /// The places of the console's ports in the main loop.
    pub fn console_places(&self) -> impl Iterator<Item = ConsolePlace> {
        self.console_places
            .iter()
            .cloned()
            .map(|(drain, runner)| ConsolePlace { drain, run_soon: Box::new(move || runner.schedule()) })
    }

    /// The console's ports, in the same order.
    pub fn console_ports(&self) -> impl Iterator<Item = Port> {
        let device = self.console.iter().cycle();
        device.zip(0..self.console_places.len()).map(|(device, index)| Port::of_virtio(Arc::clone(device), index))
    }
}

/// Where devices are put.
struct Place<'a> {
    memory: &'a Memory,
    transport: Transport,
    wiring: &'a mut Wiring,
    pci: &'a mut Pci,
    /// Windows that are taken.
    windows: u64,
}

impl Place<'_> {
    fn put<D: Device>(&mut self, device: D) -> Result<Arc<Served<D>>, Error> {
        let memory = self.memory.clone();
        let inner: Arc<dyn Serve<D>> = match self.transport {
            Transport::Pci => {
                let slot = self.pci.slot(BAR_BYTES)?;
                let line = self.wiring.line(slot.gsi);
                let doorbells = Arc::clone(&self.wiring.doorbells) as _;
                let wires = Wires { msi: self.wiring.msi(), line, gsi: slot.gsi, doorbells };
                let function = VirtioPci::new(device, memory, slot.base, wires);
                let function = Arc::new(Mutex::new(function));
                self.pci.insert(Arc::clone(&function) as _)?;
                function
            }
            Transport::Mmio => {
                let line = self.wiring.line(mmio_gsi(self.windows));
                let base = platform::VIRTIO_MMIO + self.windows * platform::VIRTIO_MMIO_STEP;
                let doorbells = Arc::clone(&self.wiring.doorbells) as _;
                let window = Arc::new(Mutex::new(VirtioMmio::new(device, memory, base, line, doorbells)));
                self.wiring.mmio.insert(base, MMIO_WINDOW, Arc::clone(&window) as _);
                self.windows += 1;
                window
            }
        };
        Ok(Arc::new(Served { inner, bottom_halves: self.wiring.bottom_halves.clone() }))
    }
}

/// The GSI of a virtio window, counted from 0.
pub fn mmio_gsi(window: u64) -> u8 {
    platform::GSI_PCI + (window % u64::from(platform::GSI_PCI_COUNT)) as u8
}

/// A device as its bottom halves reach it: kicks are held back until its lock is dropped.
struct Served<D> {
    inner: Arc<dyn Serve<D>>,
    bottom_halves: BottomHalves,
}

impl<D: Device> Serve<D> for Served<D> {
    fn serve(&self, work: &mut dyn FnMut(&mut D, &mut Common)) {
        self.bottom_halves.guard(|| self.inner.serve(work));
    }
}

#[cfg(test)]
mod tests;
