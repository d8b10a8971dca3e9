//! One 8259A: registers, priority resolver, and its half of an interrupt acknowledge.
//!
//! Follows the Intel 8259A datasheet, sections "Initialization Command Words (ICWs)", "Operation Command Words
//! (OCWs)", "Interrupt Sequence", "Special Mask Mode", "Poll Command", "Edge and Level Triggered Modes" and "The
//! Special Fully Nested Mode".

use fault::Fault;
use x86::pic::{CASCADE_IRQ, Icw1, Icw4, Ocw3};

use crate::ledger::{Account, Dropped};

/// Which word a write to the data port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No ICW1 since power on: the datasheet leaves everything undefined; we keep INT low and let OCWs work.
    Uninitialised = 0,
    Icw2 = 2,
    Icw3 = 3,
    Icw4 = 4,
    /// "Ready to accept interrupt requests"; data writes are OCW1.
    Ready = 5,
}

impl Phase {
    /// The inverse of `as u8`.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        use Phase::{Icw2, Icw3, Icw4, Ready, Uninitialised};
        [Uninitialised, Icw2, Icw3, Icw4, Ready].into_iter().find(|phase| *phase as u8 == number)
    }
}

/// The level that a chip names when the request is gone at the acknowledge ("default IR7").
pub(super) const SPURIOUS: u8 = 7;
/// The answer to a poll: there was a request, which the low bits name.
pub(super) const POLL_FOUND: u8 = 0x80;

/// One 8259A. [`super::PicPair`] drives it; the accessors are for tracing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pic8259 {
    /// The SP pin says that this is a slave: its ICW3 is an ID, not a map.
    pub(super) is_slave: bool,
    /// The IR pins now.
    pub(super) lines: u8,
    /// Edge sense: the pin rose and has neither fallen nor been acknowledged since. A subset of `lines`.
    pub(super) latch: u8,
    pub(super) isr: u8,
    pub(super) imr: u8,
    pub(super) elcr: u8,
    pub(super) elcr_mask: u8,
    /// Bits 7:3 of the vectors.
    pub(super) base: u8,
    /// ICW3: a master's map of inputs that have slaves, a slave's ID.
    pub(super) icw3: u8,
    pub(super) icw1: Icw1,
    pub(super) icw4: Icw4,
    pub(super) phase: Phase,
    /// The level with the lowest priority; 7 but for rotation.
    pub(super) lowest: u8,
    pub(super) rotate_on_aeoi: bool,
    pub(super) special_mask: bool,
    pub(super) read_isr: bool,
    /// The next read is a poll.
    pub(super) poll: bool,
    /// By input; a master's cascade has none.
    pub(super) accounts: [Account; 8],
}

impl Pic8259 {
    /// A chip just powered on; `elcr_mask` says which inputs the ELCR can make level triggered.
    pub(super) fn new(is_slave: bool, elcr_mask: u8) -> Self {
        Self {
            is_slave,
            lines: 0,
            latch: 0,
            isr: 0,
            imr: 0,
            elcr: 0,
            elcr_mask,
            base: 0,
            icw3: SPURIOUS,
            icw1: Icw1::empty(),
            icw4: Icw4::empty(),
            phase: Phase::Uninitialised,
            lowest: 7,
            rotate_on_aeoi: false,
            special_mask: false,
            read_isr: false,
            poll: false,
            accounts: [Account::default(); 8],
        }
    }

    /// The interrupts of `input` (0-7, others wrap round): *delivered* were acknowledged or polled.
    pub fn account(&self, input: u8) -> &Account {
        &self.accounts[usize::from(input & 7)]
    }

    /// The requests that wait: those of IRR, but for a level that is in service; it asks again when that has ended.
    pub fn pending_inputs(&self) -> u8 {
        self.irr() & !(self.level_inputs() & self.isr)
    }

    /// Interrupt request register: the pins of level inputs, the latched edges of the others. Masks don't show here.
    pub fn irr(&self) -> u8 {
        let level = self.level_inputs();
        self.lines & level | self.latch & !level
    }

    /// In-service register.
    pub fn isr(&self) -> u8 {
        self.isr
    }

    /// Interrupt mask register.
    pub fn imr(&self) -> u8 {
        self.imr
    }

    /// Edge/level control register: a set bit makes the input level triggered.
    pub fn elcr(&self) -> u8 {
        self.elcr
    }

    /// The vector of input 0, from ICW2; a multiple of 8.
    pub fn vector_base(&self) -> u8 {
        self.base
    }

    /// Whether an initialisation sequence has been completed and none has been begun since.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// The INT pin.
    pub fn output(&self) -> bool {
        self.pending().is_some()
    }

    /// Back to power on. The pins stay as their drivers hold them.
    pub(super) fn reset(&mut self) {
        let before = self.pending_inputs();
        *self = Self { lines: self.lines, accounts: self.accounts, ..Self::new(self.is_slave, self.elcr_mask) };
        self.settle(before, |dropped| &mut dropped.reset);
    }

    pub(super) fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1u8.checked_shl(input.into()).unwrap_or(0);
        let served = self.isr & self.level_inputs() & bit != 0;
        let withdrawn = self.pending_inputs() & bit != 0;
        match (self.lines & bit != 0, level) {
            (false, true) => self.count(bit, |account| {
                account.asserted += 1;
                account.merged += u64::from(served);
            }),
            (true, false) if withdrawn => self.count(bit, |account| account.dropped.withdrawn += 1),
            _ => {}
        }
        if level {
            self.latch |= bit & !self.lines;
            self.lines |= bit;
        } else {
            // "In both the edge and level triggered modes the IR inputs must remain high until after the falling
            // edge of the first INTA": the request goes with the pin.
            self.latch &= !bit;
            self.lines &= !bit;
        }
    }

    pub(super) fn set_elcr(&mut self, value: u8) {
        let before = self.pending_inputs();
        self.elcr = value & self.elcr_mask;
        self.settle(before, |dropped| &mut dropped.withdrawn);
    }

    /// A read of the command port (A0 low).
    pub(super) fn read_command(&mut self) -> u8 {
        match self.take_poll() {
            Some(answer) => answer,
            None if self.read_isr => self.isr,
            None => self.irr(),
        }
    }

    /// A read of the data port (A0 high). A poll is answered at any read: the datasheet has A0 take no part in it.
    pub(super) fn read_data(&mut self) -> u8 {
        self.take_poll().unwrap_or(self.imr)
    }

    /// Whether the next read acknowledges.
    pub(super) fn is_polled(&self) -> bool {
        self.poll
    }

    /// A write of the command port.
    pub(super) fn write_command(&mut self, value: u8) {
        let before = self.pending_inputs();
        if value & Icw1::INIT.bits() != 0 {
            self.write_icw1(Icw1::from_bits_truncate(value));
        } else if value & Ocw3::OCW3.bits() != 0 {
            self.write_ocw3(Ocw3::from_bits_truncate(value));
        } else {
            self.write_ocw2(value);
        }
        // An EOI has a level ask again; an ICW1 forgets edges.
        self.settle(before, |dropped| &mut dropped.reset);
    }

    /// A write of the data port.
    pub(super) fn write_data(&mut self, value: u8) {
        match self.phase {
            Phase::Uninitialised | Phase::Ready => self.imr = value,
            Phase::Icw2 => {
                self.base = value & 0xf8;
                self.phase = if self.icw1.contains(Icw1::SNGL) { self.phase_after_icw3() } else { Phase::Icw3 };
            }
            Phase::Icw3 => {
                self.icw3 = value;
                self.phase = self.phase_after_icw3();
            }
            Phase::Icw4 => {
                self.icw4 = Icw4::from_bits_truncate(value);
                self.phase = Phase::Ready;
            }
        }
    }

    /// First INTA cycle: freezes the priorities and puts the winner in service. `None`: its request is gone.
    pub(super) fn begin_acknowledge(&mut self) -> Option<u8> {
        let level = self.pending()?;
        self.count(1 << level, |account| account.delivered += 1);
        self.isr |= 1 << level;
        if !fault::is(Fault::PicEdgeKept) {
            self.latch &= !(1 << level);
        }
        Some(level)
    }

    /// End of the last INTA cycle of an acknowledge that chose `level`: time for the automatic EOI.
    pub(super) fn end_acknowledge(&mut self, level: u8) {
        if self.icw4.contains(Icw4::AEOI) && !fault::is(Fault::PicAutomaticEoiMissed) {
            let before = self.pending_inputs();
            self.isr &= !(1 << level);
            self.settle(before, |dropped| &mut dropped.withdrawn);
            if self.rotate_on_aeoi {
                self.lowest = level;
            }
        }
    }

    /// The vector for `level`.
    pub(super) fn vector(&self, level: u8) -> u8 {
        self.base | level & 7
    }

    /// Whether this chip is a master and leaves the vector for `level` to a slave.
    pub(super) fn has_slave(&self, level: u8) -> bool {
        !self.is_slave && !self.icw1.contains(Icw1::SNGL) && self.icw3 & 1 << (level & 7) != 0
    }

    /// Whether this chip, a slave, answers when the cascade lines say `level`.
    pub(super) fn is_slave_on(&self, level: u8) -> bool {
        // In single mode there is no ICW3 and ICW1 has left the ID at 7.
        self.is_ready() && self.icw3 & 7 == level
    }

    /// Inputs that are level triggered.
    fn level_inputs(&self) -> u8 {
        let elcr = if fault::is(Fault::ElcrIgnored) { 0 } else { self.elcr };
        if self.icw1.contains(Icw1::LTIM) { 0xff } else { elcr }
    }

    /// Counts for the inputs of `bits`; not for a cascade, which is a wire between two chips and no source.
    fn count(&mut self, bits: u8, mut count: impl FnMut(&mut Account)) {
        let cascade = if self.is_slave { 0 } else { 1 << CASCADE_IRQ };
        for (input, account) in self.accounts.iter_mut().enumerate() {
            if bits & !cascade & 1 << input != 0 {
                count(account);
            }
        }
    }

    /// Counts what a register write has made of the requests that waited `before`: some ask anew, some are gone for `reason`.
    fn settle(&mut self, before: u8, reason: impl Fn(&mut Dropped) -> &mut u64) {
        let after = self.pending_inputs();
        if before != after {
            self.count(after & !before, |account| account.asserted += 1);
            self.count(before & !after, |account| *reason(&mut account.dropped) += 1);
        }
    }

    fn phase_after_icw3(&self) -> Phase {
        if self.icw1.contains(Icw1::IC4) { Phase::Icw4 } else { Phase::Ready }
    }

    fn write_icw1(&mut self, icw1: Icw1) {
        self.icw1 = icw1;
        // Without IC4 "all functions selected in ICW4 are set to zero"; with it, they are until it comes.
        self.icw4 = Icw4::empty();
        self.phase = Phase::Icw2;
        self.latch = 0;
        self.imr = 0;
        if !fault::is(Fault::PicInitKeepsService) {
            self.isr = 0;
        }
        self.lowest = 7;
        // "The slave mode address is set to 7."
        self.icw3 = SPURIOUS;
        self.rotate_on_aeoi = false;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
    }

    /// OCW2: bits 7:5 are R, SL and EOI, bits 2:0 the level for the specific ones.
    fn write_ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_aeoi = false,
            0b100 => self.rotate_on_aeoi = true,
            0b001 => {
                self.end_of_interrupt();
            }
            0b101 => {
                if let Some(level) = self.end_of_interrupt().filter(|_| !fault::is(Fault::PicRotationMissed)) {
                    self.lowest = level;
                }
            }
            0b011 if fault::is(Fault::PicSpecificEoiIsNot) => {
                self.end_of_interrupt();
            }
            0b011 => self.isr &= !(1 << level),
            0b111 => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
            0b110 => self.lowest = level,
            // 010: no operation.
            _ => {}
        }
    }

    fn write_ocw3(&mut self, ocw3: Ocw3) {
        if ocw3.contains(Ocw3::ESMM) {
            self.special_mask = ocw3.contains(Ocw3::SMM);
        }
        if ocw3.contains(Ocw3::RR) {
            self.read_isr = ocw3.contains(Ocw3::RIS);
        }
        self.poll = ocw3.contains(Ocw3::POLL);
    }

    /// Non-specific EOI: clears the highest level in service and says which it was.
    fn end_of_interrupt(&mut self) -> Option<u8> {
        let level = self.highest(self.blockers())?;
        self.isr &= !(1 << level);
        Some(level)
    }

    /// The answer to a poll, if this read is one: bit 7 and the level, which is now in service; 0 without a request.
    fn take_poll(&mut self) -> Option<u8> {
        if !std::mem::take(&mut self.poll) {
            return None;
        }
        Some(match if fault::is(Fault::PicPollDoesNotServe) { self.pending() } else { self.begin_acknowledge() } {
            Some(level) => {
                self.end_acknowledge(level);
                POLL_FOUND | level
            }
            None => 0,
        })
    }

    /// Levels in service that hold others back. In special mask mode the masked ones don't, and "an IS bit that is
    /// masked by an IMR bit will not be cleared by a non-specific EOI".
    fn blockers(&self) -> u8 {
        if self.special_mask && !fault::is(Fault::PicSpecialMaskIgnored) { self.isr & !self.imr } else { self.isr }
    }

    /// The level that INT stands for.
    fn pending(&self) -> Option<u8> {
        if !self.is_ready() {
            return None;
        }
        let masked = if fault::is(Fault::PicMaskIgnored) { 0 } else { self.imr };
        let level = self.highest(self.irr() & !masked)?;
        let wins = match self.highest(self.blockers()) {
            None => true,
            Some(_) if fault::is(Fault::PicServiceIgnored) => true,
            // In special fully nested mode a slave in service may interrupt again, with a higher input of its own;
            // what is below it in the master still waits.
            Some(served) if served == level => self.icw4.contains(Icw4::SFNM) && self.has_slave(level),
            Some(served) => self.rank(level) < self.rank(served),
        };
        wins.then_some(level)
    }

    fn highest(&self, levels: u8) -> Option<u8> {
        (0..8).filter(|level| levels & 1 << level != 0).min_by_key(|level| self.rank(*level))
    }

    /// 0 for the level with the highest priority, 7 for the lowest.
    fn rank(&self, level: u8) -> u8 {
        let rank = level.wrapping_sub(self.lowest).wrapping_sub(1) & 7;
        if fault::is(Fault::PicHighestFirst) { 7 - rank } else { rank }
    }
}
