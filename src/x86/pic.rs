//! 8259A command words (Intel 8259A datasheet, sections "Initialization Command Words" and "Operation Command Words").

bitflags::bitflags! {
    /// ICW1, written to the command port.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Icw1: u8 {
        /// An ICW4 follows.
        const IC4 = 1 << 0;
        /// No slave: ICW3 is not expected.
        const SNGL = 1 << 1;
        /// Level-triggered mode for all inputs.
        const LTIM = 1 << 3;
        /// Says that this is an ICW1.
        const INIT = 1 << 4;
    }

    /// ICW4.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Icw4: u8 {
        /// 8086 mode (as against MCS-80/85).
        const UPM = 1 << 0;
        /// Automatic end of interrupt.
        const AEOI = 1 << 1;
        /// Buffered mode: this is the master.
        const MS = 1 << 2;
        /// Buffered mode.
        const BUF = 1 << 3;
        /// Special fully nested mode.
        const SFNM = 1 << 4;
    }

    /// OCW3, written to the command port.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Ocw3: u8 {
        /// With [`Ocw3::RR`]: the next read gives ISR, not IRR.
        const RIS = 1 << 0;
        /// Read register command.
        const RR = 1 << 1;
        /// Poll command.
        const POLL = 1 << 2;
        /// Says that this is an OCW3.
        const OCW3 = 1 << 3;
        /// With [`Ocw3::ESMM`]: set (or else reset) special mask mode.
        const SMM = 1 << 5;
        /// Enables [`Ocw3::SMM`].
        const ESMM = 1 << 6;
    }
}

/// The input of the master that the slave's output is wired to.
pub const CASCADE_IRQ: u8 = 2;
