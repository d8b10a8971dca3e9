//! A local APIC's snapshot.

use serde::{Deserialize, Serialize};
use x86::Nanos;
use x86::apic::{DeliveryMode, Esr, Icr, Lvt, Svr};
use x86::vector;

use super::lvt::{LvtEntry, LvtTable};
use super::timer::Timer;
use super::vectors::Vectors;
use super::{Config, LocalApic, Mode, SVR_WRITABLE, base, x2apic_ldr};
use crate::ledger::ApicLedger;
use crate::state::{BadState, check};

/// Everything that a local APIC remembers; [`Config`] has the rest. Registers are as the guest reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// Task priority.
    pub tpr: u8,
    /// Logical destination.
    pub ldr: u32,
    /// Destination format.
    pub dfr: u32,
    /// Spurious-interrupt vector register.
    pub svr: u32,
    /// Interrupt command.
    pub icr: u64,
    /// Requested, 64 vectors a word.
    pub irr: [u64; 4],
    /// In service.
    pub isr: [u64; 4],
    /// Accepted as level.
    pub tmr: [u64; 4],
    /// Error status as last latched.
    pub esr: u32,
    /// Errors since.
    pub esr_pending: u32,
    /// The error interrupt is not armed.
    pub error_sent: bool,
    /// CMCI, timer, thermal, performance, LINT0, LINT1, error.
    pub lvt: [u32; 7],
    /// The timer.
    pub timer: TimerState,
    /// Levels of the LINT pins.
    pub lint: [bool; 2],
    /// The vector that LINT0's remote IRR waits for.
    pub lint0_vector: u8,
    /// An NMI from an LVT entry waits for the processor.
    pub nmi: bool,
    /// An INIT from a LINT pin waits for the processor.
    pub init_raised: bool,
    /// An ExtINT message waits for its acknowledge.
    pub extint: bool,
    /// SMIs that went nowhere.
    pub smis: u64,
    /// Its accounts.
    pub ledger: ApicLedger,
}

/// The timer's part of [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerState {
    /// Initial count.
    pub initial: u32,
    /// Divide configuration.
    pub divide: u32,
    /// When the count under way ends, on the machine's clock.
    pub deadline: Option<Nanos>,
    /// IA32_TSC_DEADLINE.
    pub tsc_deadline: u64,
}

impl LocalApic {
    /// Its state. What is still in the mailbox is not in it: collect first.
    pub fn save(&self) -> State {
        State {
            base: self.base,
            tpr: self.tpr,
            ldr: self.ldr,
            dfr: self.dfr,
            svr: self.svr.into_bits(),
            icr: self.icr,
            irr: self.irr.words(),
            isr: self.isr.words(),
            tmr: self.tmr.words(),
            esr: self.esr.bits(),
            esr_pending: self.esr_pending.bits(),
            error_sent: self.error_sent,
            lvt: self.lvt.bits(),
            timer: self.timer.save(),
            lint: self.lint,
            lint0_vector: self.lint0_vector,
            nmi: self.nmi,
            init_raised: self.init_raised,
            extint: self.extint,
            smis: self.smis,
            ledger: self.ledger,
        }
    }

    /// A local APIC in the saved state. Publish [`LocalApic::address`] before anybody sends.
    ///
    /// # Errors
    ///
    /// When a local APIC of this `config` cannot come into that state.
    pub fn restore(config: Config, state: &State) -> Result<Self, BadState> {
        let mode = base::check_state(state.base, config).ok_or(BadState("IA32_APIC_BASE"))?;
        let lvt = LvtTable::restore(config.tsc_deadline, state.lvt).ok_or(BadState("local vector table"))?;
        let svr = Svr::from_bits(state.svr);
        check(state.ledger.is_plausible(), "counts")?;
        check(state.svr & !SVR_WRITABLE == 0, "spurious-interrupt vector register")?;
        check(config.cmci || state.lvt[LvtEntry::Cmci as usize] == 1 << 16, "a CMCI entry that does not exist")?;
        check(svr.enabled() || lvt.all_masked(), "an unmasked LVT entry of a disabled APIC")?;
        let ldr_fits = match mode {
            Mode::X2Apic => state.ldr == x2apic_ldr(config.id),
            _ => state.ldr & 0x00ff_ffff == 0,
        };
        check(ldr_fits, "logical destination")?;
        check(state.dfr & 0x0fff_ffff == 0x0fff_ffff, "destination format")?;
        check(state.icr & (Icr::X2APIC_RESERVED | 1 << 12) == 0, "interrupt command")?;
        let esr = Esr::from_bits(state.esr).ok_or(BadState("error status"))?;
        let esr_pending = Esr::from_bits(state.esr_pending).ok_or(BadState("error status"))?;
        let [irr, isr, tmr] = [state.irr, state.isr, state.tmr].map(Vectors::from_words);
        let illegal = (1 << vector::FIRST_LEGAL) - 1;
        check((state.irr[0] | state.isr[0]) & illegal == 0, "a request below vector 16")?;
        let timer_mode = lvt.get(LvtEntry::Timer).timer_mode();
        Ok(Self {
            id: config.id,
            x2apic: config.x2apic,
            cmci: config.cmci,
            physical_bits: config.physical_bits,
            base: state.base,
            mode,
            tpr: state.tpr,
            ldr: state.ldr,
            dfr: state.dfr,
            svr,
            icr: state.icr,
            irr,
            isr,
            tmr,
            esr,
            esr_pending,
            error_sent: state.error_sent,
            lvt,
            timer: Timer::restore(timer_mode, &state.timer).ok_or(BadState("timer"))?,
            lint: state.lint,
            lint0_vector: state.lint0_vector,
            nmi: state.nmi,
            init_raised: state.init_raised,
            extint: state.extint,
            smis: state.smis,
            ledger: state.ledger,
        })
    }
}

impl LvtTable {
    fn bits(&self) -> [u32; 7] {
        LvtEntry::ALL.map(|entry| self.get(entry).into_bits())
    }

    fn restore(tsc_deadline: bool, bits: [u32; 7]) -> Option<Self> {
        let mut table = Self::new(tsc_deadline);
        for (entry, bits) in LvtEntry::ALL.into_iter().zip(bits) {
            table.write(entry, bits, true);
            let written = table.get(entry);
            let can_have_remote_irr =
                entry == LvtEntry::Lint0 && written.level() && written.mode() == DeliveryMode::Fixed;
            table.set_remote_irr(entry, can_have_remote_irr && Lvt::from_bits(bits).remote_irr());
        }
        (table.bits() == bits).then_some(table)
    }
}
