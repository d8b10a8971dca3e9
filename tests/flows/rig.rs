//! A machine without KVM: the real controllers wired as `vmm` wires them, and vCPUs that do what its vCPU threads do,
//! but run no guest.

use std::sync::Arc;

use irqchip::lapic::{Config, Effect, LocalApic};
use irqchip::line::{Line, Wire};
use irqchip::mailbox::Mailbox;
use vmm::clock::Clock;
use vmm::interrupts::{Interrupts, IoApicWindow, PicElcr, PicPorts};
use vmm::io_bus::Handler;
use x86::apic::reg;
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE, RedirectionEntry};
use x86::msr::IA32_APIC_BASE;
use x86::{Nanos, platform};

/// Vectors that the guest's PIC code programs.
pub const PIC_BASE: u8 = 0x30;

/// The machine without its vCPUs.
pub struct Rig {
    pub interrupts: Arc<Interrupts>,
    wires: Vec<Arc<Wire>>,
    cpus: usize,
}

impl Rig {
    /// How many vCPUs it has.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// A machine with `cpus` vCPUs whose local APICs the guest has software-enabled; flat logical IDs, one bit each.
    pub fn new(cpus: usize) -> (Self, Vec<Cpu>) {
        let (rig, mut list) = Self::after_reset(cpus);
        for cpu in &mut list {
            cpu.write(reg::SVR, 0x1ff);
            cpu.write(reg::LDR, 1 << (24 + cpu.index));
        }
        (rig, list)
    }

    /// As [`Rig::new`], but nobody has touched the local APICs yet. The application processors wait for start-up.
    pub fn after_reset(cpus: usize) -> (Self, Vec<Cpu>) {
        let config =
            |id: u32| Config { id, bsp: id == 0, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
        let apics: Vec<_> = (0..cpus as u32).map(|id| LocalApic::new(config(id))).collect();
        let addresses = apics.iter().map(LocalApic::address).collect();
        let interrupts = Arc::new(Interrupts::new(Clock::start(), 0, addresses));
        let wire = |gsi: usize| Wire::new(gsi as u8, Arc::clone(&interrupts) as _);
        let wires = (0..platform::GSIS).map(wire).collect();
        let cpu = |(index, apic)| Cpu::new(index, apic, Arc::clone(&interrupts));
        let list = apics.into_iter().enumerate().map(cpu).collect();
        (Self { interrupts: Arc::clone(&interrupts), wires, cpus }, list)
    }

    /// A holder of the wire of `gsi`.
    pub fn line(&self, gsi: u8) -> Line {
        self.wires[usize::from(gsi)].holder()
    }

    /// A holder of the wire of an ISA IRQ.
    pub fn isa_line(&self, irq: u8) -> Line {
        self.line(platform::isa_irq_to_gsi(irq).expect("an IRQ with a wire"))
    }

    /// Writes an I/O APIC register.
    pub fn write_ioapic(&self, register: u8, value: u32) {
        let window = IoApicWindow(Arc::clone(&self.interrupts));
        window.write(0, IOREGSEL, &[register]);
        window.write(0, IOWIN, &value.to_le_bytes());
    }

    /// Writes 32 bits into the I/O APIC's window.
    pub fn write_ioapic_window(&self, offset: u64, value: u32) {
        IoApicWindow(Arc::clone(&self.interrupts)).write(0, offset, &value.to_le_bytes());
    }

    /// Reads an I/O APIC register.
    pub fn read_ioapic(&self, register: u8) -> u32 {
        let window = IoApicWindow(Arc::clone(&self.interrupts));
        window.write(0, IOREGSEL, &[register]);
        let mut data = [0; 4];
        window.read(0, IOWIN, &mut data);
        u32::from_le_bytes(data)
    }

    /// Programs a redirection entry as drivers do: the high half first.
    pub fn route(&self, pin: u8, entry: RedirectionEntry) {
        self.write_ioapic(REG_TABLE + 2 * pin + 1, (entry.into_bits() >> 32) as u32);
        self.write_ioapic(REG_TABLE + 2 * pin, entry.into_bits() as u32);
    }

    /// The redirection entry as the guest reads it.
    pub fn entry(&self, pin: u8) -> RedirectionEntry {
        let half = |register| u64::from(self.read_ioapic(register));
        RedirectionEntry::from_bits(half(REG_TABLE + 2 * pin) | half(REG_TABLE + 2 * pin + 1) << 32)
    }

    /// Writes one of the PICs' ports.
    pub fn write_pic(&self, port: u16, value: u8) {
        match port {
            platform::PIC_ELCR.. => {
                PicElcr(Arc::clone(&self.interrupts)).write(0, (port - platform::PIC_ELCR).into(), &[value])
            }
            platform::PIC_SLAVE.. => {
                self.pic_ports(platform::PIC_SLAVE).write(0, (port - platform::PIC_SLAVE).into(), &[value])
            }
            _ => self.pic_ports(platform::PIC_MASTER).write(0, (port - platform::PIC_MASTER).into(), &[value]),
        }
    }

    /// Reads the command or data port of one of the PICs.
    pub fn read_pic(&self, port: u16) -> u8 {
        let mut data = [0];
        if port >= platform::PIC_ELCR {
            PicElcr(Arc::clone(&self.interrupts)).read(0, (port - platform::PIC_ELCR).into(), &mut data);
            return data[0];
        }
        let base = if port >= platform::PIC_SLAVE { platform::PIC_SLAVE } else { platform::PIC_MASTER };
        self.pic_ports(base).read(0, (port - base).into(), &mut data);
        data[0]
    }

    fn pic_ports(&self, base: u16) -> PicPorts {
        PicPorts::new(Arc::clone(&self.interrupts), base)
    }

    /// Initialises both PICs as an operating system does; all inputs unmasked.
    pub fn start_pics(&self) {
        for (base, vectors, cascade) in [(platform::PIC_MASTER, PIC_BASE, 4), (platform::PIC_SLAVE, PIC_BASE + 8, 2)] {
            self.write_pic(base, 0x11);
            for word in [vectors, cascade, 0x01, 0x00] {
                self.write_pic(base + 1, word);
            }
        }
    }

    /// The non-specific EOIs for an interrupt of `irq`.
    pub fn end_pic(&self, irq: u8) {
        if irq >= 8 {
            self.write_pic(platform::PIC_SLAVE, 0x20);
        }
        self.write_pic(platform::PIC_MASTER, 0x20);
    }
}

/// What a vCPU took besides interrupts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Log {
    pub nmis: usize,
    pub inits: usize,
    pub start_ups: Vec<u8>,
}

/// A vCPU: owns its local APIC, takes what comes, tells the rest of the machine.
pub struct Cpu {
    pub index: usize,
    pub apic: LocalApic,
    pub interrupts: Arc<Interrupts>,
    pub log: Log,
    /// After INIT, until start-up.
    pub waiting: bool,
}

impl Cpu {
    fn new(index: usize, apic: LocalApic, interrupts: Arc<Interrupts>) -> Self {
        let waiting = index != 0;
        if waiting {
            interrupts.mailbox(index).wait_for_start_up();
        }
        Self { index, apic, interrupts, log: Log::default(), waiting }
    }

    /// The mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        self.interrupts.mailbox(self.index)
    }

    /// Takes what others have posted.
    pub fn collect(&mut self) {
        let events = self.apic.collect(self.interrupts.mailbox(self.index));
        if events.init {
            self.apic.init();
            self.apply(Effect::Readdressed);
            self.log.inits += 1;
            self.waiting = true;
        }
        if let Some(vector) = events.start_up
            && std::mem::take(&mut self.waiting)
        {
            self.log.start_ups.push(vector);
        }
        self.log.nmis += usize::from(events.nmis) + usize::from(self.apic.take_nmi());
    }

    /// The interrupt that the guest, its IF set, gets now.
    pub fn interrupt(&mut self) -> Option<u8> {
        self.collect();
        let vector = self.acknowledge();
        self.publish_priority();
        vector
    }

    /// As before every entry into the guest.
    fn publish_priority(&self) {
        self.mailbox().publish_priority(self.apic.ppr());
    }

    fn acknowledge(&mut self) -> Option<u8> {
        if self.apic.extint_pending() {
            let latched = self.apic.extint_acknowledged();
            if let Some(vector) = self.interrupts.acknowledge_pic(latched) {
                return Some(vector);
            }
        }
        self.apic.acknowledge()
    }

    /// The guest's handler writes the EOI register.
    pub fn eoi(&mut self) {
        match self.apic.mode() {
            irqchip::lapic::Mode::X2Apic => self.write_msr(0x80b, 0),
            _ => self.write(reg::EOI, 0),
        }
        self.publish_priority();
    }

    /// Takes an interrupt and ends it.
    pub fn handle(&mut self) -> Option<u8> {
        let vector = self.interrupt()?;
        self.eoi();
        Some(vector)
    }

    /// Takes and ends all interrupts that come, but no more than a few of a level that nobody lowers.
    pub fn handle_all(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.handle()).take(8).collect()
    }

    /// The guest writes a register of the xAPIC page.
    pub fn write(&mut self, register: u32, value: u32) {
        let effect = self.apic.write_mmio(0, register.into(), &value.to_le_bytes());
        self.apply(effect);
    }

    /// The guest writes an MSR, which must not fault.
    pub fn write_msr(&mut self, msr: u32, value: u64) {
        let effect = match msr {
            IA32_APIC_BASE => self.apic.write_base(value),
            _ => self.apic.write_msr(0, msr, value),
        };
        self.apply(effect.expect("no #GP"));
    }

    /// The guest sends an IPI: ICR high, then low.
    pub fn send(&mut self, destination: u8, low: u32) {
        self.write(reg::ICR_HIGH, u32::from(destination) << 24);
        self.write(reg::ICR_LOW, low);
    }

    /// Lets the local APIC's timer fire if it is due.
    pub fn expire(&mut self, ns: Nanos) {
        self.apic.expire(irqchip::lapic::Now { ns, tsc: ns });
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Ipi(ipi) => self.interrupts.send_ipi(&mut self.apic, self.index, &ipi),
            Effect::Eoi(vector) => self.interrupts.eoi(vector),
            Effect::Readdressed => self.interrupts.readdress(self.index, self.apic.address()),
        }
    }
}

/// An edge-triggered entry for one local APIC.
pub fn edge(vector: u8, destination: u8) -> RedirectionEntry {
    RedirectionEntry::new().with_vector(vector).with_destination(destination)
}

/// A level-triggered entry for one local APIC.
pub fn level(vector: u8, destination: u8) -> RedirectionEntry {
    edge(vector, destination).with_level(true)
}
