//! Interrupt controllers and timers as a guest programs them.

use iced_x86::code_asm::*;
use x86::apic::reg;
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};
use x86::{msr, platform};

use crate::guest::{Guest, asm};

/// Vector of the master 8259A's input 0, after [`Guest::pic`].
pub const PIC_VECTOR: u8 = 0x20;
/// LVT and redirection entry mask bit.
pub const MASKED: u32 = 1 << 16;
/// Redirection entry: level-triggered.
pub const LEVEL: u32 = 1 << 15;
/// Redirection entry: remote IRR.
pub const REMOTE_IRR: u32 = 1 << 14;
/// LVT timer: periodic.
pub const PERIODIC: u32 = 1 << 17;
/// LVT timer: TSC deadline.
pub const TSC_DEADLINE: u32 = 1 << 18;
/// Delivery mode NMI, in LVT and redirection entries and the ICR.
pub const NMI: u32 = 4 << 8;
/// Delivery mode ExtINT.
pub const EXTINT: u32 = 7 << 8;

/// How the local APIC is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By its memory page.
    XApic,
    /// By MSRs.
    X2Apic,
}

impl Mode {
    /// Those that this host offers; says so if it is not both.
    pub fn all() -> &'static [Self] {
        let x2apic = kvm::Kvm::open().and_then(|kvm| kvm::probe::HostFeatures::probe(&kvm)).is_ok_and(|f| f.x2apic);
        if x2apic {
            &[Self::XApic, Self::X2Apic]
        } else {
            println!("SKIPPED: x2APIC mode, which this host does not offer");
            &[Self::XApic]
        }
    }
}

/// A register of the local APIC as an MSR.
pub fn x2apic_msr(register: u32) -> u32 {
    msr::X2APIC_FIRST + (register >> 4)
}

impl Guest {
    /// Switches this CPU's local APIC to the mode in use and software-enables it. Changes RAX, RCX and RDX.
    pub fn enable_apic(&mut self) {
        if self.mode == Mode::X2Apic {
            asm!(self; mov ecx, msr::IA32_APIC_BASE; rdmsr; or eax, msr::ApicBase::X2APIC.bits() as u32; wrmsr;);
        }
        self.apic_write(reg::SVR, 0x1ff);
    }

    /// Writes a local APIC register. Changes RAX, RCX and RDX.
    pub fn apic_write(&mut self, register: u32, value: u32) {
        asm!(self; mov eax, value;);
        self.apic_write_eax(register);
    }

    /// Writes EAX to a local APIC register. Changes RCX and RDX.
    pub fn apic_write_eax(&mut self, register: u32) {
        match self.mode {
            Mode::XApic => asm!(self; mov dword_ptr(r15 + register), eax;),
            Mode::X2Apic => asm!(self; mov ecx, x2apic_msr(register); xor edx, edx; wrmsr;),
        }
    }

    /// Reads a local APIC register into EAX. Changes RCX and RDX.
    pub fn apic_read(&mut self, register: u32) {
        match self.mode {
            Mode::XApic => asm!(self; mov eax, dword_ptr(r15 + register);),
            Mode::X2Apic => asm!(self; mov ecx, x2apic_msr(register); rdmsr;),
        }
    }

    /// End of interrupt. Changes RAX, RCX and RDX.
    pub fn eoi(&mut self) {
        self.apic_write(reg::EOI, 0);
    }

    /// Sends an IPI to a physical ID or, with the bit for it in `command`, a logical destination of the mode's width.
    /// Changes RAX, RCX and RDX.
    pub fn ipi(&mut self, destination: u32, command: u32) {
        asm!(self; mov edx, destination;);
        self.ipi_to_edx(command);
    }

    /// The same with the destination in EDX.
    pub fn ipi_to_edx(&mut self, command: u32) {
        match self.mode {
            Mode::XApic => asm!(self;
                shl edx, 24;
                mov dword_ptr(r15 + reg::ICR_HIGH), edx;
                mov dword_ptr(r15 + reg::ICR_LOW), command;
            ),
            Mode::X2Apic => asm!(self; mov ecx, x2apic_msr(reg::ICR_LOW); mov eax, command; wrmsr;),
        }
    }

    /// Programs a pin of the I/O APIC for a physical destination.
    pub fn ioapic_entry(&mut self, pin: u8, low: u32, destination: u8) {
        let index = u32::from(REG_TABLE + 2 * pin);
        self.ioapic_write(index + 1, u32::from(destination) << 24);
        self.ioapic_write(index, low);
    }

    fn ioapic_write(&mut self, index: u32, value: u32) {
        asm!(self; mov dword_ptr(r14 + IOREGSEL), index; mov dword_ptr(r14 + IOWIN), value;);
    }

    /// Reads the low half of a pin's entry into EAX.
    pub fn ioapic_entry_low(&mut self, pin: u8) {
        asm!(self; mov dword_ptr(r14 + IOREGSEL), u32::from(REG_TABLE + 2 * pin); mov eax, dword_ptr(r14 + IOWIN););
    }

    /// Initializes both 8259As, vectors from [`PIC_VECTOR`], with these masks. Changes RAX and RDX.
    pub fn pic(&mut self, master_mask: u8, slave_mask: u8) {
        let (master, slave) = (platform::PIC_MASTER, platform::PIC_SLAVE);
        for (port, value) in [
            (master, 0x11),
            (master + 1, PIC_VECTOR),
            (master + 1, 1 << 2),
            (master + 1, 1),
            (master + 1, master_mask),
            (slave, 0x11),
            (slave + 1, PIC_VECTOR + 8),
            (slave + 1, 2),
            (slave + 1, 1),
            (slave + 1, slave_mask),
        ] {
            self.out8(port, value);
        }
    }

    /// Non-specific EOI to the master.
    pub fn pic_eoi(&mut self) {
        self.out8(platform::PIC_MASTER, 0x20);
    }

    /// PIT channel 0 in `mode` with this count; the count's last byte starts it. Changes RAX and RDX.
    pub fn pit(&mut self, mode: u8, count: u16) {
        let [low, high] = count.to_le_bytes();
        self.out8(platform::PIT + 3, 0x30 | mode << 1);
        self.out8(platform::PIT, low);
        self.out8(platform::PIT, high);
    }
}
