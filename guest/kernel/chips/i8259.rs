//! The 8259A pair: the PC's first interrupt controller, fifteen lines.
//!
//! Two chips, the second one's output on input 2 of the first. Its vector goes to the CPU through LINT0 as ExtINT (virtual wire), beside
//! the local APIC's registers. Lower inputs come first; an input in service holds back itself and all behind it until an EOI.
//!
//! In symmetric I/O mode the I/O APIC has the lines, and the pair is masked.
//!
//! To read more: Intel 8259A datasheet; Intel MultiProcessor Specification, "Virtual Wire Mode".

use x86::pic::{CASCADE_IRQ, Icw1, Icw4, Ocw3};
use x86::platform::{PIC_ELCR, PIC_MASTER, PIC_SLAVE};
use x86_64::instructions::port::Port;

/// Vector of input 0 as this kernel programs it; inputs 8 to 15 follow those of the master.
pub const VECTOR_BASE: u8 = 0x20;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chip {
    /// Inputs 0 to 7.
    Master,
    /// Inputs 8 to 15.
    Slave,
}

impl Chip {
    /// The chip that has this input.
    pub fn of(irq: u8) -> Self {
        if irq < 8 { Self::Master } else { Self::Slave }
    }

    fn port(self) -> u16 {
        match self {
            Self::Master => PIC_MASTER,
            Self::Slave => PIC_SLAVE,
        }
    }

    /// Writes the command port.
    pub fn command(self, value: u8) {
        // SAFETY: the pair can only change which interrupts come.
        unsafe { Port::new(self.port()).write(value) };
    }

    /// Reads the command port: the register that was chosen last.
    pub fn status(self) -> u8 {
        // SAFETY: as above.
        unsafe { Port::new(self.port()).read() }
    }

    /// Writes the data port: the mask, outside initialization.
    pub fn set_mask(self, mask: u8) {
        // SAFETY: as above.
        unsafe { Port::new(self.port() + 1).write(mask) };
    }

    /// Reads the mask.
    pub fn mask(self) -> u8 {
        // SAFETY: as above.
        unsafe { Port::new(self.port() + 1).read() }
    }

    /// Requested inputs.
    pub fn irr(self) -> u8 {
        self.command((Ocw3::OCW3 | Ocw3::RR).bits());
        self.status()
    }

    /// Inputs in service.
    pub fn isr(self) -> u8 {
        self.command((Ocw3::OCW3 | Ocw3::RR | Ocw3::RIS).bits());
        self.status()
    }

    /// Polls: bit 7 says that there is a request, bits 2:0 which; it is acknowledged by that.
    pub fn poll(self) -> u8 {
        self.command((Ocw3::OCW3 | Ocw3::POLL).bits());
        self.status()
    }

    /// Which of its inputs are level-triggered.
    pub fn levels(self) -> u8 {
        // SAFETY: as above.
        unsafe { Port::new(self.elcr()).read() }
    }

    /// Sets which of its inputs are level-triggered.
    pub fn set_levels(self, levels: u8) {
        // SAFETY: as above.
        unsafe { Port::new(self.elcr()).write(levels) };
    }

    fn elcr(self) -> u16 {
        match self {
            Self::Master => PIC_ELCR,
            Self::Slave => PIC_ELCR + 1,
        }
    }
}

/// Initializes both: vectors from [`VECTOR_BASE`], with the extra bits of ICW4, all inputs masked.
pub fn init_with(extra: Icw4) {
    for (chip, base, cascade) in
        [(Chip::Master, VECTOR_BASE, 1 << CASCADE_IRQ), (Chip::Slave, VECTOR_BASE + 8, CASCADE_IRQ)]
    {
        chip.command((Icw1::INIT | Icw1::IC4).bits());
        chip.set_mask(base);
        chip.set_mask(cascade);
        chip.set_mask((Icw4::UPM | extra).bits());
        chip.set_mask(0xff);
    }
}

/// Initializes both, all inputs masked.
pub fn init() {
    init_with(Icw4::empty());
}

/// Masks an input.
pub fn mask(irq: u8) {
    let chip = Chip::of(irq);
    chip.set_mask(chip.mask() | 1 << (irq % 8));
}

/// Unmasks an input, and the cascade if it is one of the slave's.
pub fn unmask(irq: u8) {
    let chip = Chip::of(irq);
    chip.set_mask(chip.mask() & !(1 << (irq % 8)));
    if chip == Chip::Slave {
        Chip::Master.set_mask(Chip::Master.mask() & !(1 << CASCADE_IRQ));
    }
}

/// Specific EOI of an input, and of the cascade if it is one of the slave's.
pub fn eoi(irq: u8) {
    if Chip::of(irq) == Chip::Slave {
        Chip::Slave.command(0x60 | (irq % 8));
        Chip::Master.command(0x60 | CASCADE_IRQ);
    } else {
        Chip::Master.command(0x60 | irq);
    }
}

/// The non-specific EOI command: ends what has the highest priority of those in service.
pub const NON_SPECIFIC_EOI: u8 = 0x20;
