//! Our I/O APIC and local APICs, wired as the machine wires them, without threads.

use irqchip::Message;
use irqchip::bus::{ApicBus, Kicks};
use irqchip::ioapic::IoApic;
use irqchip::lapic::{Config, Effect, Gp, LocalApic, Mode, Now};
use x86::apic::reg;
use x86::ioapic::{IOREGSEL, IOWIN};
use x86::msr::{IA32_APIC_BASE, X2APIC_FIRST};

/// The controllers.
pub struct Ours {
    pub apics: Vec<LocalApic>,
    pub ioapic: IoApic,
    pub now: Now,
    /// Who waits for a start-up message.
    pub waits: Vec<bool>,
    /// Who was sent an INIT or a start-up by the last operation.
    pub restarted: Vec<bool>,
    /// Who was sent an NMI by the last operation.
    pub nmis: Vec<bool>,
    /// Somebody's address changed.
    pub readdressed: bool,
    bus: ApicBus,
    kicks: Kicks,
}

impl Ours {
    /// Just powered on, but all processors run.
    pub fn new(cpus: u32, physical_bits: u32) -> Self {
        let config = |id| Config { id, bsp: id == 0, x2apic: true, tsc_deadline: true, cmci: false, physical_bits };
        let apics: Vec<_> = (0..cpus).map(|id| LocalApic::new(config(id))).collect();
        let bus = ApicBus::new(apics.iter().map(LocalApic::address).collect());
        for mailbox in bus.mailboxes().iter().skip(1) {
            mailbox.wait_for_start_up();
            let _ = mailbox.post_start_up(0);
        }
        let none = vec![false; cpus as usize];
        let mut ours = Self {
            apics,
            ioapic: IoApic::new(0),
            now: Now::default(),
            waits: none.clone(),
            restarted: none.clone(),
            nmis: none,
            readdressed: false,
            bus,
            kicks: Kicks::new(),
        };
        ours.settle();
        ours
    }

    /// To be called before each operation.
    pub fn forget_events(&mut self) {
        self.restarted.fill(false);
        self.nmis.fill(false);
        self.readdressed = false;
    }

    /// A register in the page.
    pub fn read(&mut self, cpu: usize, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.apics[cpu].read_mmio(self.now.ns, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a register in the page.
    pub fn write(&mut self, cpu: usize, offset: u32, value: u32) {
        let effect = self.apics[cpu].write_mmio(self.now.ns, offset.into(), &value.to_le_bytes());
        self.apply(cpu, effect);
    }

    /// Reads an MSR.
    pub fn read_msr(&mut self, cpu: usize, msr: u32) -> Result<u64, Gp> {
        match msr {
            IA32_APIC_BASE => Ok(self.apics[cpu].base()),
            _ => self.apics[cpu].read_msr(self.now.ns, msr),
        }
    }

    /// Writes an MSR.
    pub fn write_msr(&mut self, cpu: usize, msr: u32, value: u64) -> Result<(), Gp> {
        let effect = match msr {
            IA32_APIC_BASE => self.apics[cpu].write_base(value)?,
            _ => self.apics[cpu].write_msr(self.now.ns, msr, value)?,
        };
        self.apply(cpu, effect);
        Ok(())
    }

    /// Drives a pin of the I/O APIC.
    pub fn set_line(&mut self, pin: u8, level: bool) {
        let Self { bus, kicks, ioapic, .. } = self;
        ioapic.set_line(pin, level, &mut |message: &Message| bus.send(message, kicks));
    }

    /// Writes 32 bits into the I/O APIC's window.
    pub fn write_ioapic_window(&mut self, offset: u64, value: u32) {
        let Self { bus, kicks, ioapic, now, .. } = self;
        ioapic.write(now.ns, offset, &value.to_le_bytes(), &mut |message: &Message| bus.send(message, kicks));
    }

    /// Writes an I/O APIC register.
    pub fn write_ioapic(&mut self, register: u8, value: u32) {
        self.write_ioapic_window(IOREGSEL, register.into());
        self.write_ioapic_window(IOWIN, value);
    }

    /// Reads an I/O APIC register.
    pub fn read_ioapic(&mut self, register: u8) -> u32 {
        self.write_ioapic_window(IOREGSEL, register.into());
        let mut data = [0; 4];
        self.ioapic.read(IOWIN, &mut data);
        u32::from_le_bytes(data)
    }

    /// A device's write of `data` to `address`.
    pub fn send_msi(&mut self, address: u32, data: u32) -> bool {
        let Some(message) = Message::from_msi(address.into(), data) else { return false };
        self.bus.send(&message, &mut self.kicks).is_accepted()
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Now) {
        self.now = now;
        self.apics.iter_mut().for_each(|apic| apic.expire(now));
    }

    /// The TSC of one processor gets there.
    pub fn pass_deadline(&mut self, cpu: usize, tsc: u64) {
        self.apics[cpu].expire(Now { tsc, ..self.now });
    }

    /// Writes a timer's initial count.
    pub fn write_count(&mut self, cpu: usize, ticks: u32) {
        match self.is_x2apic(cpu) {
            // No reserved bits, so no fault.
            true => drop(self.write_msr(cpu, X2APIC_FIRST + (reg::TIMER_INITIAL >> 4), ticks.into())),
            false => self.write(cpu, reg::TIMER_INITIAL, ticks),
        }
    }

    /// Everybody takes what has come for it, until nothing more comes.
    pub fn settle(&mut self) {
        while let Some(cpu) = self.bus.mailboxes().iter().position(|mailbox| mailbox.is_pending()) {
            let events = self.apics[cpu].collect(&self.bus.mailboxes()[cpu]);
            self.nmis[cpu] |= events.nmis != 0;
            if events.init {
                self.apics[cpu].init();
                self.waits[cpu] = cpu != 0;
                self.restarted[cpu] = true;
                self.apply(cpu, Effect::Readdressed);
            }
            if events.start_up.is_some() {
                self.waits[cpu] = false;
                self.restarted[cpu] = true;
            }
        }
        for (nmi, apic) in self.nmis.iter_mut().zip(&mut self.apics) {
            *nmi |= apic.take_nmi();
        }
        self.kicks.drain(|_| {});
    }

    /// Whether it is in x2APIC mode.
    pub fn is_x2apic(&self, cpu: usize) -> bool {
        self.apics[cpu].mode() == Mode::X2Apic
    }

    fn apply(&mut self, cpu: usize, effect: Effect) {
        let Self { bus, kicks, ioapic, now, apics, .. } = self;
        match effect {
            Effect::None => {}
            Effect::Ipi(ipi) => bus.send_ipi(&mut apics[cpu], cpu, &ipi, kicks),
            Effect::Eoi(vector) => ioapic.eoi(now.ns, vector, &mut |message: &Message| bus.send(message, kicks)),
            Effect::Readdressed => {
                bus.readdress(cpu, apics[cpu].address());
                ioapic.destinations_changed(&mut |message: &Message| bus.send(message, kicks));
                self.readdressed = true;
            }
        }
    }
}
