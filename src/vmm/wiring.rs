//! Every device, its place on the buses, its interrupt line and its bottom half: the machine's wiring in one function.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bottom_half::TopHalf;
use devices::agent::Agent;
use devices::doorbell::{Doorbells, Written};
use devices::{
    CommandPort, DebugExit, Hpet, I6300Esb, I6300EsbFunction, I8042, Pit, Pm, Port92, Post, PvPanic, Rtc, Serial,
    Storm, Window, hpet, i6300esb,
};
use irqchip::line::{Line, Msi, Switch, Wire};
use parking_lot::Mutex;
use vm_memory::GuestMemoryMmap;
use x86::{platform, storm};

use crate::Error;
use crate::agent::{AgentMachine, AgentPorts};
use crate::bottom_halves::{BottomHalves, Device, SerialWork};
use crate::doorbells::GuestDoorbells;
use crate::exec::Streams;
use crate::interrupts::{Inputs, Interrupts, IoApicWindow, LocalApics, PicElcr, PicPorts};
use crate::io_bus::IoBus;
use crate::pci::Pci;
use crate::stop::Stopper;

/// The buses while they are being filled.
pub struct Wiring {
    /// Ports.
    pub ports: IoBus,
    /// Memory-mapped registers.
    pub mmio: IoBus,
    /// Where the slow parts of devices run.
    pub bottom_halves: BottomHalves,
    /// Writes of the guest that are no exits.
    pub doorbells: Arc<GuestDoorbells>,
    /// The lines, by GSI.
    pub wires: Vec<Arc<Wire>>,
    /// The devices that may wake a vCPU which rests for good.
    pub wakers: Vec<Waker>,
    inputs: Arc<dyn Inputs>,
    /// Who ends the machine.
    pub stopper: Arc<Stopper>,
}

/// Whether a device may send a message that a vCPU takes which rests for good (see [`crate::rest`]); it takes the device's lock.
pub type Waker = Box<dyn Fn() -> bool + Send + Sync>;

/// The devices that the user has a hand on.
pub struct FrontPanel {
    /// The serial port, for the console.
    pub serial: Arc<Mutex<Serial>>,
    /// The ACPI fixed hardware, for the power button.
    pub pm: Arc<Mutex<Pm>>,
}

impl Wiring {
    /// Nothing wired yet.
    pub fn new(
        bottom_halves: &BottomHalves,
        doorbells: &Arc<GuestDoorbells>,
        inputs: Arc<dyn Inputs>,
        stopper: &Arc<Stopper>,
    ) -> Self {
        let wire = |gsi: usize| Wire::new(gsi as u8, Arc::clone(&inputs) as _);
        Self {
            ports: IoBus::new("port"),
            mmio: IoBus::new("memory"),
            bottom_halves: bottom_halves.clone(),
            doorbells: Arc::clone(doorbells),
            wires: (0..platform::GSIS).map(wire).collect(),
            wakers: Vec::new(),
            inputs,
            stopper: Arc::clone(stopper),
        }
    }

    /// Makes and wires all devices; gives those that the user has a hand on. `serial_work` drains the serial port.
    pub fn devices(&mut self, serial_work: &Arc<SerialWork>) -> FrontPanel {
        let control = Arc::clone(&self.stopper);

        self.timers();

        let sci = self.isa_line(platform::IRQ_SCI);
        let pm = self.bottom_halves.timed(Device::Pm, |alarm| Pm::new(sci, alarm, control.clone()));
        self.ports.insert(platform::PM1A_EVENT.into(), 12, pm.clone());

        let serial = Serial::new(self.isa_line(platform::IRQ_COM1), Arc::clone(serial_work) as _);
        let serial = Arc::new(Mutex::new(serial));
        self.ports.insert(platform::COM1.into(), 8, serial.clone());

        let i8042 = Arc::new(Mutex::new(I8042::new(control.clone())));
        let command = Window::new(Arc::clone(&i8042), devices::i8042::COMMAND_OFFSET);
        self.ports.insert(platform::I8042_DATA.into(), 1, i8042);
        self.ports.insert(platform::I8042_COMMAND.into(), 1, Arc::new(Mutex::new(command)));

        let port92 = Port92::new(control.clone());
        self.ports.insert(platform::PORT_92.into(), 1, Arc::new(Mutex::new(port92)));
        let panic = PvPanic::new(control.clone());
        self.ports.insert(platform::PVPANIC.into(), 1, Arc::new(Mutex::new(panic)));
        let exit = DebugExit::new(control);
        self.ports.insert(platform::DEBUG_EXIT.into(), 4, Arc::new(Mutex::new(exit)));
        self.ports.insert(platform::POST.into(), 16, Arc::new(Mutex::new(Post)));
        FrontPanel { serial, pm }
    }

    /// The test agent, with a line of its own to every GSI.
    pub fn agent(&mut self, memory: GuestMemoryMmap, machine: AgentMachine) {
        let msi = self.msi();
        let agent = Arc::new_cyclic(|agent: &Weak<Agent<_>>| {
            let agent = Weak::clone(agent);
            let expire = move |now| _ = agent.upgrade().map(|agent| agent.expire(now));
            Agent::new(memory, self.wires.clone(), msi, Arc::new(machine), self.bottom_halves.alarm(expire))
        });
        self.ports.insert(x86::agent::PORT.into(), 8, Arc::new(AgentPorts(Arc::clone(&agent))));
        // Whatever its streams raise: a test that halts for good beside them is to hang, not to end, and be seen.
        self.wakers.push(Box::new(move || agent.is_raising()));
    }

    /// The storm device, which can raise every line. Its ring is a doorbell, where the host has them.
    pub fn storm(&mut self) {
        let msi = self.msi();
        let wires = self.wires.clone();
        let storm = self.bottom_halves.timed(Device::Storm, |alarm| Storm::new(wires, msi, alarm));
        let weak = Arc::downgrade(&storm);
        let ring = self.bottom_halves.tasklet(move || _ = weak.upgrade().map(|storm| storm.lock().ring()));
        let ring = Box::new(move |top: &TopHalf<'_>| _ = ring.schedule_on(top.cpu()));
        let doorbell = self.doorbells.connect(storm::BASE + storm::RING, Written::Anything, ring);
        storm.lock().set_doorbell(doorbell);
        self.mmio.insert(storm::BASE, storm::WINDOW, Arc::clone(&storm) as _);
        self.wakers.push(Box::new(move || storm.lock().is_raising()));
    }

    /// The watchdog, on the PCI bus; `timed_out` is what it keeps over resets.
    pub fn watchdog(&mut self, pci: &mut Pci, timed_out: &Arc<AtomicBool>) -> Result<(), Error> {
        let slot = pci.slot(i6300esb::MEMORY)?;
        let (line, control) = (self.isa_line(platform::IRQ_WATCHDOG), Arc::clone(&self.stopper));
        let clock = self.bottom_halves.clock();
        let function = self.bottom_halves.timeout(Device::Watchdog, |alarm| {
            let chip = I6300Esb::new(line, alarm, control, Arc::clone(timed_out));
            I6300EsbFunction::new(chip, slot.base, move || clock.now())
        });
        pci.insert(function)
    }

    /// The port of `--exec`, for its command's output.
    pub fn command_port(&mut self, streams: &Arc<Streams>) {
        let port = CommandPort::new(Arc::clone(streams) as _, Arc::clone(&self.stopper) as _);
        self.mmio.insert(platform::COMMAND_PORT, platform::COMMAND_BYTES, Arc::new(Mutex::new(port)));
    }

    /// The ports and registers of those interrupt controllers that are this program's.
    pub fn interrupt_controllers<A: LocalApics>(&mut self, interrupts: &Arc<Interrupts<A>>) {
        for base in [platform::PIC_MASTER, platform::PIC_SLAVE] {
            self.ports.insert(base.into(), 2, Arc::new(PicPorts::new(Arc::clone(interrupts), base)));
        }
        self.ports.insert(platform::PIC_ELCR.into(), 2, Arc::new(PicElcr(Arc::clone(interrupts))));
        let window = Arc::new(IoApicWindow(Arc::clone(interrupts)));
        self.mmio.insert(platform::IOAPIC_BASE, x86::ioapic::WINDOW, window);
        let chips = Arc::downgrade(interrupts);
        let expire = move |now| _ = chips.upgrade().map(|chips| chips.expire(now));
        interrupts.set_alarm(self.bottom_halves.alarm(expire));
    }

    /// PIT and RTC behind the switches with which the HPET takes their interrupts over, and the HPET.
    fn timers(&mut self) {
        let (pit_switch, pit) = Switch::new(self.isa_line(platform::IRQ_PIT));
        let pit = self.bottom_halves.timed(Device::Pit, |alarm| Pit::new(pit, alarm));
        let port_b = Window::new(Arc::clone(&pit), devices::pit::PORT_B_OFFSET);
        self.ports.insert(platform::PIT.into(), 4, pit);
        self.ports.insert(platform::PORT_B.into(), 1, Arc::new(Mutex::new(port_b)));

        let (seconds, nanos) = sys::clock::realtime();
        let (rtc_switch, rtc) = Switch::new(self.isa_line(platform::IRQ_RTC));
        let rtc = self.bottom_halves.timed(Device::Rtc, |alarm| Rtc::new(Duration::new(seconds, nanos), rtc, alarm));
        self.ports.insert(platform::RTC.into(), 2, rtc);

        let outputs = hpet::Outputs {
            legacy: [self.isa_line(platform::IRQ_PIT), self.isa_line(platform::IRQ_RTC)],
            replaced: [pit_switch, rtc_switch],
            pins: std::array::from_fn(|n| self.wires[usize::from(platform::GSI_HPET) + n].holder()),
            msi: self.msi(),
        };
        let hpet = self.bottom_halves.timed(Device::Hpet, |alarm| Hpet::new(outputs, alarm));
        self.mmio.insert(platform::HPET_BASE, hpet::WINDOW, Arc::clone(&hpet) as _);
        self.wakers.push(Box::new(move || hpet.lock().can_give_nmi()));
    }

    /// A handle for interrupt messages.
    pub fn msi(&self) -> Msi {
        Msi::new(Arc::clone(&self.inputs) as _)
    }

    /// A holder of the wire to `gsi`, which is below [`platform::GSIS`].
    pub fn line(&self, gsi: u8) -> Line {
        self.wires[usize::from(gsi)].holder()
    }

    /// A holder of the wire of an ISA IRQ.
    ///
    /// # Panics
    ///
    /// For IRQ 2, the cascade, and above 15: a bug in the platform map.
    fn isa_line(&self, irq: u8) -> Line {
        let gsi = platform::isa_irq_to_gsi(irq).unwrap_or_else(|| panic!("ISA IRQ {irq} has no wire"));
        self.line(gsi)
    }
}
