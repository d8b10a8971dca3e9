//! Every device, its place on the buses, its interrupt line and its alarm: the machine's wiring in one function.

use std::sync::Arc;
use std::time::Duration;

use devices::{Alarm, DebugExit, I8042, PciConfig, Pit, Pm, Post, Rtc, Serial, TimedDevice, Window};
use irqchip::line::{Line, Wire};
use parking_lot::Mutex;
use x86::platform;

use crate::Error;
use crate::clock::Clock;
use crate::interrupts::{Interrupts, IoApicWindow, PicElcr, PicPorts};
use crate::io_bus::IoBus;
use crate::main_loop::{Alarms, Doorbell, Expire, SerialLater};
use crate::stop::Stopper;

/// The buses and alarms while they are being filled.
pub struct Wiring {
    /// Ports.
    pub ports: IoBus,
    /// Memory-mapped registers.
    pub mmio: IoBus,
    /// Deadlines.
    pub alarms: Arc<Alarms>,
    /// What to call for each of them.
    pub expire: Vec<Expire>,
    wires: Vec<Arc<Wire>>,
    interrupts: Arc<Interrupts>,
    stopper: Arc<Stopper>,
}

impl Wiring {
    /// Nothing wired yet.
    pub fn new(clock: Clock, interrupts: &Arc<Interrupts>, stopper: &Arc<Stopper>) -> Result<Self, Error> {
        let alarms = Alarms::new(clock).map_err(|e| Error::host("no timer descriptor for the devices", e))?;
        let wire = |gsi: usize| Wire::new(gsi as u8, Arc::clone(interrupts) as _);
        Ok(Self {
            ports: IoBus::new("port"),
            mmio: IoBus::new("memory"),
            alarms,
            expire: Vec::new(),
            wires: (0..platform::GSIS).map(wire).collect(),
            interrupts: Arc::clone(interrupts),
            stopper: Arc::clone(stopper),
        })
    }

    /// Makes and wires all devices; gives the serial port, which the console needs.
    pub fn devices(&mut self, doorbell: &Arc<Doorbell>) -> Arc<Mutex<Serial>> {
        let control = Arc::clone(&self.stopper);

        self.interrupt_controllers();

        let pit = self.isa_line(platform::IRQ_PIT);
        let pit = self.timed(|alarm| Pit::new(pit, alarm));
        let port_b = Window::new(Arc::clone(&pit), devices::pit::PORT_B_OFFSET);
        self.ports.insert(platform::PIT.into(), 4, pit);
        self.ports.insert(platform::PORT_B.into(), 1, Arc::new(Mutex::new(port_b)));

        let (seconds, nanos) = sys::clock::realtime();
        let rtc = self.isa_line(platform::IRQ_RTC);
        let rtc = self.timed(|alarm| Rtc::new(Duration::new(seconds, nanos), rtc, alarm));
        self.ports.insert(platform::RTC.into(), 2, rtc);

        let sci = self.isa_line(platform::IRQ_SCI);
        let pm = self.timed(|alarm| Pm::new(sci, alarm, control.clone()));
        self.ports.insert(platform::PM1A_EVENT.into(), 12, pm);

        let serial = Serial::new(self.isa_line(platform::IRQ_COM1), Arc::new(SerialLater(Arc::clone(doorbell))));
        let serial = Arc::new(Mutex::new(serial));
        self.ports.insert(platform::COM1.into(), 8, serial.clone());

        let i8042 = Arc::new(Mutex::new(I8042::new(control.clone())));
        let command = Window::new(Arc::clone(&i8042), devices::i8042::COMMAND_OFFSET);
        self.ports.insert(platform::I8042_DATA.into(), 1, i8042);
        self.ports.insert(platform::I8042_COMMAND.into(), 1, Arc::new(Mutex::new(command)));

        let exit = DebugExit::new(control.clone());
        self.ports.insert(platform::DEBUG_EXIT.into(), 4, Arc::new(Mutex::new(exit)));
        let pci = PciConfig::new(control);
        self.ports.insert(platform::PCI_CONFIG_ADDRESS.into(), 8, Arc::new(Mutex::new(pci)));
        self.ports.insert(platform::POST.into(), 16, Arc::new(Mutex::new(Post)));
        serial
    }

    fn interrupt_controllers(&mut self) {
        for base in [platform::PIC_MASTER, platform::PIC_SLAVE] {
            self.ports.insert(base.into(), 2, Arc::new(PicPorts::new(Arc::clone(&self.interrupts), base)));
        }
        self.ports.insert(platform::PIC_ELCR.into(), 2, Arc::new(PicElcr(Arc::clone(&self.interrupts))));
        let window = Arc::new(IoApicWindow(Arc::clone(&self.interrupts)));
        self.mmio.insert(platform::IOAPIC_BASE, x86::ioapic::WINDOW, window);
        self.interrupts.set_alarm(self.alarms.slot());
        let interrupts = Arc::clone(&self.interrupts);
        self.expire.push(Box::new(move |now| interrupts.expire(now)));
    }

    /// A holder of the wire of an ISA IRQ.
    ///
    /// # Panics
    ///
    /// For IRQ 2, the cascade, and above 15: a bug in the platform map.
    fn isa_line(&self, irq: u8) -> Line {
        let gsi = platform::isa_irq_to_gsi(irq).unwrap_or_else(|| panic!("ISA IRQ {irq} has no wire"));
        self.wires[usize::from(gsi)].holder()
    }

    /// A device with an alarm of its own.
    fn timed<D: TimedDevice + 'static>(&mut self, make: impl FnOnce(Arc<dyn Alarm>) -> D) -> Arc<Mutex<D>> {
        let device = Arc::new(Mutex::new(make(self.alarms.slot())));
        let expire = Arc::clone(&device);
        self.expire.push(Box::new(move |now| expire.lock().expire(now)));
        device
    }
}
