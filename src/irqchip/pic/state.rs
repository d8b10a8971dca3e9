//! The pair's snapshot.

use serde::{Deserialize, Serialize};

use super::chip::Phase;
use super::{Cycles, Pic8259, PicPair};
use crate::ledger::{Account, plausible};
use crate::state::{BadState, check};
use x86::pic::{CASCADE_IRQ, Icw1, Icw4};

/// Everything that an 8259A pair remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The master.
    pub master: ChipState,
    /// The slave.
    pub slave: ChipState,
    /// Acknowledge cycles.
    pub cycles: Cycles,
}

/// Everything that one 8259A remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipState {
    /// The IR pins.
    pub lines: u8,
    /// Edges since the last acknowledge.
    pub latch: u8,
    /// In service.
    pub isr: u8,
    /// Masked.
    pub imr: u8,
    /// Level triggered.
    pub elcr: u8,
    /// Bits 7:3 of the vectors.
    pub base: u8,
    /// ICW1 as last written.
    pub icw1: u8,
    /// ICW3 as last written.
    pub icw3: u8,
    /// ICW4 as last written.
    pub icw4: u8,
    /// The word that the next write of the data port is: 0 OCW1 before any ICW1, 2 to 4 that ICW, 5 OCW1.
    pub phase: u8,
    /// The level with the lowest priority.
    pub lowest: u8,
    /// Automatic EOIs rotate.
    pub rotate_on_aeoi: bool,
    /// Special mask mode.
    pub special_mask: bool,
    /// The command port reads ISR, else IRR.
    pub read_isr: bool,
    /// The next read is a poll.
    pub poll: bool,
    /// By input.
    pub accounts: [Account; 8],
}

impl PicPair {
    /// Its state.
    pub fn save(&self) -> State {
        State { master: self.master.save(), slave: self.slave.save(), cycles: self.cycles }
    }

    /// A pair in the saved state.
    ///
    /// # Errors
    ///
    /// When no pair can come into that state.
    pub fn restore(state: &State) -> Result<Self, BadState> {
        let mut pair = Self::new();
        pair.master.restore(&state.master)?;
        pair.slave.restore(&state.slave)?;
        let Cycles { run, spurious, polled } = state.cycles;
        check([run, spurious, polled].into_iter().all(plausible), "a PIC's counts")?;
        pair.cycles = state.cycles;
        let cascade = state.master.lines & 1 << CASCADE_IRQ != 0;
        check(cascade == pair.slave.output(), "the level of the PIC's cascade")?;
        Ok(pair)
    }
}

impl Pic8259 {
    fn save(&self) -> ChipState {
        ChipState {
            lines: self.lines,
            latch: self.latch,
            isr: self.isr,
            imr: self.imr,
            elcr: self.elcr,
            base: self.base,
            icw1: self.icw1.bits(),
            icw3: self.icw3,
            icw4: self.icw4.bits(),
            phase: self.phase as u8,
            lowest: self.lowest,
            rotate_on_aeoi: self.rotate_on_aeoi,
            special_mask: self.special_mask,
            read_isr: self.read_isr,
            poll: self.poll,
            accounts: self.accounts,
        }
    }

    fn restore(&mut self, state: &ChipState) -> Result<(), BadState> {
        check(state.latch & !state.lines == 0, "a PIC's latch without its pin")?;
        check(state.elcr & !self.elcr_mask == 0, "a PIC's ELCR")?;
        check(state.base & 7 == 0, "a PIC's vectors")?;
        check(state.lowest < 8, "a PIC's priorities")?;
        check(state.accounts.iter().all(Account::is_plausible), "a PIC's counts")?;
        self.lines = state.lines;
        self.latch = state.latch;
        self.isr = state.isr;
        self.imr = state.imr;
        self.elcr = state.elcr;
        self.base = state.base;
        self.icw1 = Icw1::from_bits(state.icw1).ok_or(BadState("a PIC's ICW1"))?;
        self.icw3 = state.icw3;
        self.icw4 = Icw4::from_bits(state.icw4).ok_or(BadState("a PIC's ICW4"))?;
        self.phase = Phase::from_number(state.phase).ok_or(BadState("a PIC's initialisation"))?;
        self.lowest = state.lowest;
        self.rotate_on_aeoi = state.rotate_on_aeoi;
        self.special_mask = state.special_mask;
        self.read_isr = state.read_isr;
        self.poll = state.poll;
        self.accounts = state.accounts;
        Ok(())
    }
}
