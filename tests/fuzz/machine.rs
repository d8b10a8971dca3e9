//! A whole machine under operations: port, memory and MSR accesses of four vCPUs, entries and exits, lines, messages,
//! time, the user, snapshots; with every device there is.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm::{Exit, MsrReadReply, MsrReason, MsrWriteReply};
use vm_memory::{Bytes, GuestAddress};
use vmm::bare::BareMachine;
use vmm::clock::Clock;
use x86::apic::reg;
use x86::msr::{self, ApicBase};
use x86::{agent, platform, storm};

use super::op::{Op, Target, check};

const CPUS: usize = 4;
/// Base and number of the ports of each thing that has any.
const PORTS: [(u16, u16); 24] = [
    (platform::PIC_MASTER, 2),
    (platform::PIC_MASTER, 2),
    (platform::PIC_SLAVE, 2),
    (platform::PIC_SLAVE, 2),
    (platform::PIC_ELCR, 2),
    (platform::PIT, 4),
    (platform::PIT, 4),
    (platform::PORT_B, 1),
    (platform::RTC, 2),
    (platform::RTC, 2),
    (platform::PM1A_EVENT, 12),
    (platform::COM1, 8),
    (platform::COM1, 8),
    (platform::I8042_DATA, 5),
    (platform::PORT_92, 1),
    (platform::PVPANIC, 1),
    (platform::PCI_CONFIG_ADDRESS, 8),
    (platform::POST, 16),
    (platform::TEST_SCRATCH, 12),
    (platform::TEST_IRQ_LINES, 24),
    (platform::FW_CFG, 2),
    (platform::DEBUG_EXIT, 4),
    (agent::PORT, 8),
    (0, u16::MAX),
];
/// Local APIC registers worth more than their share.
const APIC: [u32; 16] = [
    reg::TPR,
    reg::EOI,
    reg::EOI,
    reg::LDR,
    reg::DFR,
    reg::SVR,
    reg::ESR,
    reg::ICR_LOW,
    reg::ICR_LOW,
    reg::ICR_HIGH,
    reg::LVT_TIMER,
    reg::LVT_LINT0,
    reg::LVT_ERROR,
    reg::TIMER_INITIAL,
    reg::TIMER_DIVIDE,
    reg::SELF_IPI,
];
/// Where guests have their paravirtual EOI fields, the agent's requests, and where memory ends.
const MEMORY: [u64; 8] = [0x9000, 0x9004, 0x9_fffc, 0x9_ffff, 0xa_0000, 0x2000, 0xff_fffc, 0x100_0000];
/// The vector that most things here ask for, so that they meet.
const COMMON_VECTOR: u64 = 0x51;

/// The machine, and what it has shown.
pub struct Machine {
    machine: BareMachine,
    now: &'static AtomicU64,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    delivered: u64,
    start_ups: u64,
    faults: u64,
    accepted: u64,
    snapshots: u64,
    spared: u64,
    output: u64,
}

impl Target for Machine {
    const LIFE: u64 = 400;
    const SIGHTS: &'static [&'static str] =
        &["delivered", "start-ups", "#GP", "MSR writes", "snapshots", "spared EOIs", "serial output"];

    fn new() -> Self {
        static NOW: AtomicU64 = AtomicU64::new(0);
        NOW.store(0, Ordering::Relaxed);
        let machine = BareMachine::new(CPUS as u32, Clock::stepped(&NOW), Path::new("/dev/null"));
        let machine = machine.unwrap_or_else(|e| panic!("the host gives no machine: {e}"));
        let mut new = Self { machine, now: &NOW, seen: Seen::default() };
        new.set_up();
        new
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        let cpu = op.actor(CPUS);
        match op.kind(32) {
            0..8 => self.write_port(cpu, op),
            8..11 => self.read_port(cpu, op),
            11..16 => self.write_memory(cpu, op),
            16..18 => self.read_memory(cpu, op),
            18..21 => self.write_msr(cpu, op)?,
            21 => self.read_msr(cpu, op)?,
            22..25 => self.enter(cpu, op)?,
            25 => self.machine.halt(cpu),
            26 => {
                let gsi = usize::from(op.place()) % self.machine.lines();
                self.machine.set_line(gsi, op.choice(2) == 1);
            }
            27 => self.pass_time(op),
            28 => self.machine.message(message_address(op), op.raw() as u32),
            29 if op.choice(2) == 0 => self.write_ram(op),
            29 => self.ask_agent(cpu, op),
            30 => {
                self.machine.snapshot()?;
                self.seen.snapshots += 1;
            }
            _ => self.outside(op),
        }
        Ok(())
    }

    fn sights(&self) -> Vec<(&'static str, u64)> {
        let Seen { delivered, start_ups, faults, accepted, snapshots, spared, output } = self.seen;
        Self::SIGHTS.iter().copied().zip([delivered, start_ups, faults, accepted, snapshots, spared, output]).collect()
    }
}

impl Machine {
    /// As a kernel leaves it that uses everything: half of the local APICs in x2APIC mode, two with paravirtual EOI, the
    /// 8259A pair and every pin of the I/O APIC with a vector. It is for the operations to spoil that.
    fn set_up(&mut self) {
        let x2apic = platform::LAPIC_BASE | (ApicBase::ENABLE | ApicBase::X2APIC).bits();
        for cpu in 0..CPUS {
            if cpu % 2 == 0 {
                self.msr(cpu, msr::IA32_APIC_BASE, x2apic);
                self.msr(cpu, 0x80f, 0x1ff);
            } else {
                self.mmio(cpu, platform::LAPIC_BASE + u64::from(reg::SVR), 0x1ff);
            }
        }
        for (cpu, place) in MEMORY.into_iter().enumerate().take(2) {
            self.msr(cpu, msr::KVM_PV_EOI, place | 1);
        }
        self.msr(0, 0x835, 7 << 8);
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0xa0, 0x11), (0xa1, 0x38), (0xa1, 2)] {
            self.machine.exit(0, Exit::PioOut { port, size: 1, data: &[value] });
        }
        for pin in 0..self.machine.lines() as u64 {
            let level = if pin % 3 == 0 { 1 << 15 } else { 0 };
            for (register, value) in [(0x11 + 2 * pin, (pin % 5) << 24), (0x10 + 2 * pin, level | (0x40 + 8 * pin))] {
                self.mmio(0, platform::IOAPIC_BASE, register);
                self.mmio(0, platform::IOAPIC_BASE + 0x10, value);
            }
        }
    }

    fn msr(&mut self, cpu: usize, index: u32, value: u64) {
        let mut error = 0;
        let reply = MsrWriteReply::new(&mut error);
        self.machine.exit(cpu, Exit::MsrWrite { index, value, reason: MsrReason::Filtered, reply });
    }

    fn mmio(&mut self, cpu: usize, addr: u64, value: u64) {
        self.machine.exit(cpu, Exit::MmioWrite { addr, data: &(value as u32).to_le_bytes() });
    }

    fn write_port(&mut self, cpu: usize, op: &Op) {
        let size = 1 << op.choice(3);
        let count = if op.choice(16) == 15 { 4 } else { 1 };
        let data = &op.value().to_le_bytes().repeat(2)[..size * count];
        self.machine.exit(cpu, Exit::PioOut { port: port(op), size: size as u8, data });
    }

    fn read_port(&mut self, cpu: usize, op: &Op) {
        let size = 1 << op.choice(3);
        let data = &mut [0xff; 16][..size * if op.choice(16) == 15 { 4 } else { 1 }];
        self.machine.exit(cpu, Exit::PioIn { port: port(op), size: size as u8, data });
    }

    fn write_memory(&mut self, cpu: usize, op: &Op) {
        let (address, value) = (self.address(op), telling(op));
        let data = &value.to_le_bytes()[..length(op)];
        self.machine.exit(cpu, Exit::MmioWrite { addr: address, data });
    }

    fn read_memory(&mut self, cpu: usize, op: &Op) {
        let data = &mut [0xff; 8][..length(op)];
        self.machine.exit(cpu, Exit::MmioRead { addr: self.address(op), data });
    }

    fn write_msr(&mut self, cpu: usize, op: &Op) -> Result<(), String> {
        let (index, value) = msr_write(op);
        let mut error = 0xa5;
        let reply = MsrWriteReply::new(&mut error);
        self.machine.exit(cpu, Exit::MsrWrite { index, value, reason: MsrReason::Filtered, reply });
        check(error <= 1, || format!("WRMSR {index:#x}: no answer"))?;
        self.seen.faults += u64::from(error);
        self.seen.accepted += u64::from(error == 0);
        Ok(())
    }

    fn read_msr(&mut self, cpu: usize, op: &Op) -> Result<(), String> {
        let (index, _) = msr_write(op);
        let (mut error, mut data) = (0xa5, 0);
        let reply = MsrReadReply::new(&mut error, &mut data);
        self.machine.exit(cpu, Exit::MsrRead { index, reason: MsrReason::Invalid, reply });
        check(error <= 1, || format!("RDMSR {index:#x}: no answer"))
    }

    /// The vCPU goes round its loop. What it gets is what its local APIC says that it has in service.
    fn enter(&mut self, cpu: usize, op: &Op) -> Result<(), String> {
        let (vector, events) = self.machine.enter(cpu, op.choice(4) != 0);
        self.seen.delivered += u64::from(vector.is_some());
        self.seen.start_ups += u64::from(events.start_up.is_some());
        if op.choice(4) == 1 {
            // The guest ends its interrupt in memory, whether it may or not, and leaves.
            let _ = self.machine.memory().write_obj(0_u32, GuestAddress(MEMORY[cpu]));
            self.machine.exit(cpu, Exit::Interrupted);
        }
        self.seen.spared = (0..CPUS).map(|cpu| self.machine.spared_eois(cpu)).sum();
        let apic = self.machine.apic(cpu);
        let highest = apic.isr().highest();
        check(highest.is_none_or(|vector| vector >= 16), || format!("vCPU {cpu} has {highest:?} in service"))?;
        let deliverable = apic.deliverable();
        let above = |vector: u8| vector & 0xf0 > apic.ppr() & 0xf0;
        check(deliverable.is_none_or(above), || format!("{deliverable:?} is not above PPR {:#x}", apic.ppr()))
    }

    /// Time goes on, mostly by little, and now and then jumps: back, too, for threads read the clock before they have a
    /// lock.
    fn pass_time(&mut self, op: &Op) {
        let now = self.now.load(Ordering::Relaxed);
        let raw = op.raw();
        let now = match op.choice(16) {
            0 => now.saturating_add(raw >> 8),
            1 => now.saturating_sub(raw & 0xf_ffff),
            2 => u64::MAX - (raw & 0xffff),
            n => now.saturating_add(raw & ((1 << (2 * n)) - 1)),
        };
        self.now.store(now, Ordering::Relaxed);
        self.machine.alarm();
    }

    fn write_ram(&mut self, op: &Op) {
        let offset = if op.choice(4) == 0 { u64::from(op.choice(64)) } else { 0 };
        let at = MEMORY[usize::from(op.place() & 7)] + offset;
        // Where there is none, nothing happens to the guest either.
        let _ = self.machine.memory().write_obj(op.value(), GuestAddress(at));
    }

    /// A request to the test agent, mostly one that means something.
    fn ask_agent(&mut self, cpu: usize, op: &Op) {
        const AT: u64 = 0x2000;
        let (place, raw) = (u64::from(op.place()), op.raw());
        let small = |shift: u32| raw >> shift & 0x3f;
        let args = match op.choice(4) {
            0 => [raw; 5],
            // Address and length of a text; a stream's source, schedule, target, time, number and counter.
            1 => [AT + small(0), small(6) << 6, small(12), 0, 0],
            _ => [small(0) & 7 | (small(6) & 3) << 8, small(12), small(18) << small(24), 1 + small(30), AT + 0x100],
        };
        let words = [place % 18].into_iter().chain(args);
        for (word, at) in words.zip([0, 8, 16, 24, 32, 40]) {
            // There is memory there.
            let _ = self.machine.memory().write_obj(word, GuestAddress(AT + at));
        }
        self.machine.exit(cpu, Exit::PioOut { port: agent::PORT, size: 4, data: &(AT as u32).to_le_bytes() });
    }

    /// The user types, reads, presses the button.
    fn outside(&mut self, op: &Op) {
        let mut serial = self.machine.serial.lock();
        match op.choice(4) {
            0 => {
                let room = serial.input_capacity();
                serial.push_input(&[op.place(); 64][..room.min(64)]);
            }
            1 => {
                self.seen.output += serial.output_len() as u64;
                serial.consume_output(op.raw() as usize & 0xfff);
            }
            2 => drop(serial.push_input(&op.0)),
            _ => {
                drop(serial);
                self.machine.pm.lock().press_power_button(self.now.load(Ordering::Relaxed));
            }
        }
    }

    fn address(&self, op: &Op) -> u64 {
        let place = u64::from(op.place());
        let chosen = match op.choice(20) {
            // A register of the local APIC, also wrong ones.
            0..4 => platform::LAPIC_BASE + u64::from(APIC[usize::from(op.place()) % APIC.len()]),
            4 => platform::LAPIC_BASE + place * 16,
            5..9 => platform::IOAPIC_BASE + [0x00, 0x10, 0x00, 0x10, 0x40, 0x20, 0x01, 0x11][(place & 7) as usize],
            9..13 => platform::HPET_BASE + [place * 8, (place & 0x1f) * 0x10, place * 4][(place % 3) as usize],
            13 if place % 2 == 0 => platform::COMMAND_PORT + place * 5,
            13 => platform::TEST_MEMORY + place * 257,
            14 => op.raw(),
            15 => u64::MAX - place,
            // The storm device: its ring, and channels' registers.
            16 if place % 8 == 0 => storm::BASE + storm::RING,
            16 | 17 => storm::BASE + storm::CHANNEL_0 + (place & 7) * storm::CHANNEL_BYTES + (place >> 3) * 4,
            // Configuration space of the host bridge, the watchdog, and of nobody.
            18 => platform::PCI_ECAM + ((place % 3) << 15) + (op.raw() >> 32 & 0xfc),
            // The watchdog's registers, where firmware has put them.
            _ => platform::PCI_WINDOW + place % 24,
        };
        // Anywhere in it, now and then.
        if op.place() == 0xff { chosen.wrapping_add(op.raw() & 0xfff) } else { chosen }
    }
}

fn port(op: &Op) -> u16 {
    let (base, count) = PORTS[usize::from(op.place()) % PORTS.len()];
    let offset = (op.raw() >> 48) as u16;
    // One past the end, sometimes.
    base.wrapping_add(offset % count.saturating_add(u16::from(op.choice(8) == 7)))
}

fn length(op: &Op) -> usize {
    [4, 4, 4, 8, 4, 1, 2, 4][usize::from(op.0[2] >> 5)]
}

/// A value for a register: often one that does something.
fn telling(op: &Op) -> u64 {
    let value = op.value();
    match op.raw() >> 60 {
        0..4 => value,
        // Software-enabled with a vector; a redirection entry or a command with the common one.
        4..7 => 0x100 | value & 0xff,
        7..11 => value & 0xf_ff00 & !0x1_1000 | COMMON_VECTOR,
        11 => value & 0xff00_0000,
        12 => value & 3 << 24,
        _ => value & 0x3f,
    }
}

fn msr_write(op: &Op) -> (u32, u64) {
    let value = telling(op);
    match op.choice(16) {
        0..7 => (0x800 + APIC[usize::from(op.place()) % APIC.len()] / 16, value),
        7 => (0x800 + u32::from(op.place()), value),
        8 => (0x830, (value & 0x7) << 32 | value & 0xc_cf00 | COMMON_VECTOR),
        9 | 10 => {
            let modes = [0x800, 0xc00, 0, 0x400, 0x900, 0xd00];
            let base = platform::LAPIC_BASE | modes[usize::from(op.place()) % modes.len()];
            (msr::IA32_APIC_BASE, if op.place() < 8 { value } else { base & !ApicBase::BSP.bits() })
        }
        11 => (msr::IA32_TSC_DEADLINE, value),
        12 | 13 => (msr::KVM_PV_EOI, MEMORY[usize::from(op.place() & 7)].wrapping_add(value & 7) | 1),
        14 => ([msr::IA32_TSC, msr::IA32_TSC_ADJUST, 0x1b, 0x8ff][usize::from(op.place() & 3)], value),
        _ => (op.raw() as u32, op.raw()),
    }
}

fn message_address(op: &Op) -> u64 {
    if op.choice(8) == 0 { op.raw() } else { 0xfee0_0000 | (op.raw() >> 32) & 0xf_ffff }
}
