//! 8259A pair: master, slave on the master's input 2, and the edge/level control registers (ELCR).
//!
//! Follows the Intel 8259A datasheet for each chip (see [`Pic8259`]) and the Intel 82371AB (PIIX4) datasheet, register
//! descriptions ICW1 to OCW3 and ELCR1, ELCR2, for the pair's wiring.
//!
//! **INT is not latched.** Both INT pins, and so the master's input 2, follow the requests: a request that goes away
//! before the acknowledge takes its INT with it. A caller that looks at [`PicPair::output`] and acknowledges under
//! one lock therefore never sees a spurious interrupt, however slow the vCPU is; one that acknowledges what it saw
//! earlier gets the default IR7, as a CPU does whose INTA crosses the fall. The default IR15 needs a fall between the
//! two INTA cycles, which [`PicPair::acknowledge`] runs as one, or ICW3s that give the slave an ID and the master a
//! slave on some input that the slave's INT is not wired to: the cascade lines carry the ID to it all the same.
//!
//! **Edges must be held.** An edge-triggered input is a request while it stays high; a pulse that is over before the
//! acknowledge asked for nothing. A device that ticks (a PIT in mode 2) therefore falls and rises, in this order.
//!
//! Choices where the manuals differ or are silent: LTIM of ICW1 makes a chip's inputs all level triggered, as the
//! 8259A does (the PIIX4 ignores it). Before its first ICW1 a chip keeps INT low, and its IMR can be written and read.
//! A vector that a slave should have given but no slave is programmed to give reads as 0xff, the floating bus.
//!
//! Not modelled: MCS-80/85 mode (an ICW4 without UPM still gives 8086 vectors, and there is no third INTA cycle),
//! buffered mode (it only changes the SP/EN pin), and the freeze of IRR while RD is active.

mod chip;
#[cfg(test)]
mod init_tests;
#[cfg(test)]
mod properties;
mod state;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;

pub use chip::Pic8259;
pub use state::{ChipState, State};

use chip::{POLL_FOUND, SPURIOUS};
use fault::Fault;
use serde::{Deserialize, Serialize};
use x86::pic::CASCADE_IRQ;
use x86::platform::{PIC_ELCR, PIC_MASTER, PIC_SLAVE};

use crate::ledger::Account;

/// Inputs 0, 1 and 2 (timer, keyboard, cascade) are always edge triggered.
const ELCR_MASTER_MASK: u8 = 0xf8;
/// Inputs 8 and 13 (RTC, coprocessor error) are always edge triggered.
const ELCR_SLAVE_MASK: u8 = 0xde;
/// What a data bus reads that nobody drives.
const FLOATING_BUS: u8 = 0xff;

/// The pair's I/O ports, each one byte wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PicPort {
    /// 0x20.
    MasterCommand,
    /// 0x21.
    MasterData,
    /// 0xa0.
    SlaveCommand,
    /// 0xa1.
    SlaveData,
    /// 0x4d0.
    ElcrMaster,
    /// 0x4d1.
    ElcrSlave,
}

impl PicPort {
    /// The pair's port at I/O address `port`; `None` if that is not the pair's.
    pub const fn from_io(port: u16) -> Option<Self> {
        const MASTER_DATA: u16 = PIC_MASTER + 1;
        const SLAVE_DATA: u16 = PIC_SLAVE + 1;
        const ELCR_SLAVE: u16 = PIC_ELCR + 1;
        Some(match port {
            PIC_MASTER => Self::MasterCommand,
            MASTER_DATA => Self::MasterData,
            PIC_SLAVE => Self::SlaveCommand,
            SLAVE_DATA => Self::SlaveData,
            PIC_ELCR => Self::ElcrMaster,
            ELCR_SLAVE => Self::ElcrSlave,
            _ => return None,
        })
    }
}

/// Master and slave 8259A as a PC wires them. Not shared: whoever owns it brings the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PicPair {
    master: Pic8259,
    slave: Pic8259,
    cycles: Cycles,
}

/// Acknowledge cycles of the CPU. Each, and each poll that found something, is a delivery of an input or of the cascade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycles {
    /// All of them.
    pub run: u64,
    /// Those that found no request, at the master or at the slave: the default IR7 or IR15, or nobody's vector.
    pub spurious: u64,
    /// Polls that acknowledged an input: such a delivery was no cycle's.
    pub polled: u64,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// A pair just powered on: all lines low, uninitialised (INTR low until the guest's ICWs).
    pub fn new() -> Self {
        Self {
            master: Pic8259::new(false, ELCR_MASTER_MASK),
            slave: Pic8259::new(true, ELCR_SLAVE_MASK),
            cycles: Cycles::default(),
        }
    }

    /// The acknowledge cycles so far.
    pub fn cycles(&self) -> Cycles {
        self.cycles
    }

    /// The interrupts of `input` (0-15), and whether one waits; `None` for the cascade and numbers above.
    pub fn account(&self, input: u8) -> Option<(Account, bool)> {
        let chip = match input {
            CASCADE_IRQ | 16.. => return None,
            0..=7 => &self.master,
            8..=15 => &self.slave,
        };
        let input = input & 7;
        Some((*chip.account(input), chip.pending_inputs() & 1 << input != 0))
    }

    /// Machine reset: registers as at power on, ELCR too. Lines keep the levels that their drivers hold.
    pub fn reset(&mut self) {
        self.master.reset();
        self.slave.reset();
        self.propagate();
    }

    /// Reads a port. A read that answers a poll command acknowledges.
    pub fn read(&mut self, port: PicPort) -> u8 {
        self.read_and_watch(port).0
    }

    /// The same, and whether INTR was low during the read: what a poll finds is acknowledged, as by the CPU's cycles
    /// (8259A, section "Poll Command"), so what hangs on INTR edge triggered sees what [`PicPair::acknowledge`] shows it.
    pub fn read_and_watch(&mut self, port: PicPort) -> (u8, bool) {
        let master = self.master.is_polled() && matches!(port, PicPort::MasterCommand | PicPort::MasterData);
        let polled = self.slave.is_polled() && matches!(port, PicPort::SlaveCommand | PicPort::SlaveData);
        let before = self.delivered();
        let value = match port {
            PicPort::MasterCommand => self.master.read_command(),
            PicPort::MasterData => self.master.read_data(),
            PicPort::SlaveCommand => self.slave.read_command(),
            PicPort::SlaveData => self.slave.read_data(),
            PicPort::ElcrMaster => self.master.elcr(),
            PicPort::ElcrSlave => self.slave.elcr(),
        };
        if polled {
            self.drop_cascade();
        }
        let low = !self.master.output() || master && value & POLL_FOUND != 0;
        self.cycles.polled += self.delivered() - before;
        self.propagate();
        (value, low)
    }

    /// Writes a port.
    pub fn write(&mut self, port: PicPort, value: u8) {
        match port {
            PicPort::MasterCommand => self.master.write_command(value),
            PicPort::MasterData => self.master.write_data(value),
            PicPort::SlaveCommand => self.slave.write_command(value),
            PicPort::SlaveData => self.slave.write_data(value),
            PicPort::ElcrMaster => self.master.set_elcr(value),
            PicPort::ElcrSlave => self.slave.set_elcr(value),
        }
        self.propagate();
    }

    /// The level of `input` (0-15) is now `level`. Input 2 is the cascade; it and numbers above 15 are not connected.
    pub fn set_line(&mut self, input: u8, level: bool) {
        match input {
            CASCADE_IRQ => {}
            0..=7 => self.master.set_line(input, level),
            8..=15 => self.slave.set_line(input - 8, level),
            _ => {}
        }
        self.propagate();
    }

    /// The INTR pin.
    pub fn output(&self) -> bool {
        self.master.output()
    }

    /// The CPU's two INTA cycles: puts the highest request in service and gives its vector.
    ///
    /// Without a request it is the master's default IR7, and nothing is in service. INTR is low during the cycles:
    /// what hangs on it edge triggered sees a fall and, if [`PicPair::output`] is still true, a new rise.
    #[must_use = "the request is in service: its vector must reach the CPU"]
    pub fn acknowledge(&mut self) -> u8 {
        let before = self.delivered();
        let level = self.first_inta();
        let vector = self.second_inta(level);
        self.cycles.run += 1;
        self.cycles.spurious += u64::from(self.delivered() == before);
        vector
    }

    /// The master, for tracing.
    pub fn master(&self) -> &Pic8259 {
        &self.master
    }

    /// The slave, for tracing.
    pub fn slave(&self) -> &Pic8259 {
        &self.slave
    }

    /// What all inputs have delivered.
    fn delivered(&self) -> u64 {
        self.master.accounts.iter().chain(&self.slave.accounts).map(|account| account.delivered).sum()
    }

    /// The master chooses, and tells the slaves over the cascade lines.
    fn first_inta(&mut self) -> Option<u8> {
        self.master.begin_acknowledge()
    }

    /// Master or slave gives the vector.
    fn second_inta(&mut self, level: Option<u8>) -> u8 {
        let Some(level) = level else {
            return self.master.vector(SPURIOUS);
        };
        let vector = if !self.master.has_slave(level) {
            self.master.vector(level)
        } else if self.slave.is_slave_on(level) {
            self.acknowledge_slave()
        } else {
            FLOATING_BUS
        };
        self.master.end_acknowledge(level);
        self.propagate();
        vector
    }

    fn acknowledge_slave(&mut self) -> u8 {
        let level = self.slave.begin_acknowledge();
        if let Some(level) = level {
            self.slave.end_acknowledge(level);
        }
        self.drop_cascade();
        self.slave.vector(level.unwrap_or(SPURIOUS))
    }

    /// An acknowledge takes the slave's INT low, so that its next request is an edge for the master.
    fn drop_cascade(&mut self) {
        if !fault::is(Fault::CascadeNotDropped) {
            self.master.set_line(CASCADE_IRQ, false);
        }
    }

    fn propagate(&mut self) {
        self.master.set_line(CASCADE_IRQ, self.slave.output() && !fault::is(Fault::CascadeNotFollowed));
    }
}
