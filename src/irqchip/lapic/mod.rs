//! One local APIC, the owner's half: everything that computes a priority (Intel SDM vol. 3A, chapter "Advanced
//! Programmable Interrupt Controller (APIC)"; AMD APM vol. 2, chapter "Advanced Programmable Interrupt Controller").
//!
//! Belongs to its vCPU's thread by `&mut`, without a lock. Others reach it through its [`Mailbox`]; what it wants from
//! the rest of the machine is returned as an [`Effect`]. Time is an argument.
//!
//! Not modelled: SMM (an SMI is counted, there is no firmware to take it); arbitration IDs (there is no APIC bus to
//! arbitrate); remote read; focus processors (bit 9 of SVR is stored); the polarity of LINT pins (a pin is asserted or it
//! is not); a writable APIC ID or BSP flag.

mod base;
mod icr;
mod lint;
#[cfg(all(test, loom))]
mod loom;
mod lvt;
mod pv_eoi;
mod registers;
mod state;
mod timer;
mod vectors;

#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
mod tests_icr;
#[cfg(all(test, not(loom)))]
mod tests_lint;
#[cfg(all(test, not(loom)))]
mod tests_properties;
#[cfg(all(test, not(loom)))]
mod tests_pv_eoi;
#[cfg(all(test, not(loom)))]
mod tests_registers;
#[cfg(all(test, not(loom)))]
mod tests_state;
#[cfg(all(test, not(loom)))]
mod tests_timer;

use fault::Fault;
use x86::apic::{Esr, Svr, TriggerMode};
use x86::msr::ApicBase;
use x86::{platform, vector};

use crate::Accepted;
use crate::destination::{Address, LogicalId};
use crate::ledger::{Account, ApicLedger, Dropped, Pending, Posts, Source};
use crate::mailbox::{Events, Mailbox};
pub use base::Mode;
pub use icr::Ipi;
pub use lint::LocalSource;
use lvt::{LvtEntry, LvtTable};
pub use pv_eoi::{EoiFlag, PvEoi};
pub use state::{State, TimerState};
use timer::Timer;
pub use timer::{Deadline, Now};
pub use vectors::Vectors;

/// The vectors that no message may have, in the lowest of the four words.
const ILLEGAL: u64 = (1 << vector::FIRST_LEGAL) - 1;

/// The bits of SVR that exist: vector, enable, focus checking, EOI-broadcast suppression.
const SVR_WRITABLE: u32 = 0x13ff;

/// A general-protection fault: what the access gives instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gp;

/// What a register write wants from the rest of the machine.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Send this.
    Ipi(Ipi),
    /// A level interrupt with this vector has ended: tell the I/O APICs.
    Eoi(u8),
    /// The address changed: publish [`LocalApic::address`] before the guest runs on.
    Readdressed,
}

/// What makes one local APIC differ from the next.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The initial (x2)APIC ID.
    pub id: u32,
    /// This is the bootstrap processor.
    pub bsp: bool,
    /// CPUID offers x2APIC mode.
    pub x2apic: bool,
    /// CPUID offers the TSC-deadline mode.
    pub tsc_deadline: bool,
    /// MCG_CAP offers corrected machine-check interrupts.
    pub cmci: bool,
    /// MAXPHYADDR, for the reserved bits of IA32_APIC_BASE.
    pub physical_bits: u32,
}

/// A local APIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApic {
    id: u32,
    x2apic: bool,
    cmci: bool,
    physical_bits: u32,
    base: u64,
    mode: Mode,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: Svr,
    icr: u64,
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    /// What the ESR shows, and what has come since it was last written.
    esr: Esr,
    esr_pending: Esr,
    /// The error interrupt was sent and ESR not written since ("This write also rearms the APIC error interrupt
    /// triggering mechanism", section "Error Handling").
    error_sent: bool,
    lvt: LvtTable,
    timer: Timer,
    /// Levels of the pins LINT0 and LINT1.
    lint: [bool; 2],
    /// The vector that LINT0's remote IRR waits to be ended, which the LVT entry may no longer have.
    lint0_vector: u8,
    /// Set by LVT entries in NMI mode, until the owner takes it.
    nmi: bool,
    /// Set by LINT pins in INIT mode, until the owner takes it.
    init_raised: bool,
    /// An ExtINT message has come (from an I/O APIC pin) and is not yet acknowledged.
    extint: bool,
    /// SMIs that went nowhere.
    smis: u64,
    ledger: ApicLedger,
}

impl LocalApic {
    /// A local APIC in its power-up state: xAPIC mode, software-disabled.
    pub fn new(config: Config) -> Self {
        let bsp = if config.bsp { ApicBase::BSP } else { ApicBase::empty() };
        let mut apic = Self {
            id: config.id,
            x2apic: config.x2apic,
            cmci: config.cmci,
            physical_bits: config.physical_bits,
            base: platform::LAPIC_BASE | (ApicBase::ENABLE | bsp).bits(),
            mode: Mode::XApic,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: Svr::from_bits(0xff),
            icr: 0,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            esr: Esr::empty(),
            esr_pending: Esr::empty(),
            error_sent: false,
            lvt: LvtTable::new(config.tsc_deadline),
            timer: Timer::default(),
            lint: [false; 2],
            lint0_vector: 0,
            nmi: false,
            init_raised: false,
            extint: false,
            smis: 0,
            ledger: ApicLedger::default(),
        };
        apic.init();
        apic
    }

    /// What INIT does: everything but the ID and the mode goes back to its reset value (section "Local APIC State
    /// After It Has Received an INIT Reset"). The pins keep the levels that others drive. The address changes: publish
    /// [`LocalApic::address`] afterwards.
    pub fn init(&mut self) {
        self.tpr = 0;
        self.ldr = if self.mode == Mode::X2Apic { x2apic_ldr(self.id) } else { 0 };
        self.dfr = u32::MAX;
        self.svr = Svr::from_bits(0xff);
        self.icr = 0;
        let pending = self.pending();
        self.ledger.requests.dropped.reset += pending.requests;
        self.ledger.in_service.dropped.reset += pending.in_service;
        self.ledger.nmis.dropped.reset += pending.nmis;
        self.irr.clear();
        if !fault::is(Fault::InitKeepsService) {
            self.isr.clear();
        }
        self.tmr.clear();
        self.esr = Esr::empty();
        self.esr_pending = Esr::empty();
        self.error_sent = false;
        self.lvt.reset();
        self.lint0_vector = 0;
        self.timer = Timer::default();
        self.nmi = false;
        self.init_raised = false;
        self.extint = false;
    }

    /// IA32_APIC_BASE as the guest reads it.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. Disabling puts the registers back to their reset state (section "Enabling or Disabling
    /// the Local APIC"); entering x2APIC mode keeps them, but for the ID, what follows from it, and the upper half of ICR
    /// (section "State Changes From xAPIC Mode to x2APIC Mode").
    pub fn write_base(&mut self, value: u64) -> Result<Effect, Gp> {
        let mode = base::check_write(self.base, value, self.x2apic, self.physical_bits)?;
        // The BSP flag says how the processor came up; writing it does not change that.
        let bsp = ApicBase::BSP.bits();
        self.base = value & !bsp | self.base & bsp;
        if mode == self.mode {
            return Ok(Effect::None);
        }
        self.mode = mode;
        match mode {
            Mode::Disabled => self.init(),
            Mode::XApic => {}
            Mode::X2Apic => {
                self.ldr = x2apic_ldr(self.id);
                self.icr &= u64::from(u32::MAX);
            }
        }
        Ok(Effect::Readdressed)
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The page that the registers are in, in xAPIC mode.
    pub fn mmio_page(&self) -> Option<u64> {
        (self.mode == Mode::XApic).then_some(self.base & x86::msr::APIC_BASE_ADDR_MASK)
    }

    /// What the destination table is to know.
    ///
    /// An ID above 255 stays whole in xAPIC mode, where the register shows its low byte: no 8-bit destination may
    /// take it for the ID that it ends in, and a start-up by a 32-bit one must reach it.
    pub fn address(&self) -> Address {
        let logical = match self.mode {
            Mode::Disabled => return Address::DISABLED,
            Mode::X2Apic => LogicalId::X2Apic(self.ldr),
            // Values other than these two are not allowed (section "Logical Destination Mode"): nothing matches.
            Mode::XApic => match self.dfr >> 28 {
                0xf => LogicalId::Flat((self.ldr >> 24) as u8),
                0x0 => LogicalId::Cluster((self.ldr >> 24) as u8),
                _ => LogicalId::None,
            },
        };
        Address { present: true, id: self.id, logical, enabled: self.svr.enabled() }
    }

    /// Takes everything out of `mailbox`: requests into IRR and TMR, an ExtINT to be acknowledged; returns what is
    /// the vCPU's, not the APIC's.
    ///
    /// Whether a software-disabled APIC accepts was decided by the sender, from the destination table; what it let
    /// through was on its way before the APIC was disabled and is held in IRR, never thrown away.
    pub fn collect(&mut self, mailbox: &Mailbox) -> Events {
        let present = self.mode != Mode::Disabled;
        let mut illegal = false;
        let events = mailbox.take(|word, mut edge, mut level| {
            let taken = count(edge) + count(level);
            let account = self.ledger.source(Source::Mailbox);
            account.asserted += taken;
            if !present {
                account.dropped.disabled += taken;
                return;
            }
            // "The local APIC will never set an IRR bit in the range 0-15" (section "Error Handling").
            if word == 0 {
                illegal |= (edge | level) & ILLEGAL != 0;
                edge &= !ILLEGAL;
                level &= !ILLEGAL;
            }
            let legal = count(edge) + count(level);
            let new = count((edge | level) & !self.irr.words()[word]);
            account.dropped.illegal_vector += taken - legal;
            account.merged += legal - new;
            account.delivered += new;
            self.ledger.requests.asserted += new;
            self.irr.insert_word(word, edge | level);
            self.tmr.remove_word(word, if fault::is(Fault::TmrNotCleared) { 0 } else { edge });
            self.tmr.insert_word(word, if fault::is(Fault::TmrNotSet) { 0 } else { level });
        });
        if illegal {
            self.error(Esr::RECEIVE_ILLEGAL_VECTOR);
        }
        self.extint |= events.extint && present;
        self.smis += u64::from(events.smi);
        if let Some(lint0) = events.lint0 {
            if lint0.rose {
                self.set_lint(0, false);
                self.set_lint(0, true);
            }
            self.set_lint(0, lint0.level);
        }
        events
    }

    /// Accepts a request as from an IPI of this vCPU to itself. A globally disabled APIC takes none.
    pub fn accept(&mut self, vector: u8, trigger: TriggerMode) {
        self.accept_from(Source::SelfIpi, vector, trigger);
    }

    /// Accepts a request from this vCPU itself: a self-IPI, the timer, an LVT entry. A globally disabled APIC takes none.
    /// True: it has merged with one that was there.
    pub(crate) fn accept_from(&mut self, source: Source, vector: u8, trigger: TriggerMode) -> bool {
        let account = self.ledger.source(source);
        account.asserted += 1;
        if self.mode == Mode::Disabled {
            account.dropped.disabled += 1;
            return false;
        }
        if vector < vector::FIRST_LEGAL {
            account.dropped.illegal_vector += 1;
            self.error(Esr::RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        let merged = self.irr.contains(vector);
        if merged {
            account.merged += 1;
        } else {
            account.delivered += 1;
            self.ledger.requests.asserted += 1;
        }
        self.irr.insert(vector);
        self.tmr.set(vector, trigger == TriggerMode::Level);
        merged
    }

    /// One of its IPIs is on the bus.
    pub(crate) fn sent_ipi(&mut self, accepted: Accepted, posts: &Posts) {
        self.ledger.ipis.count(accepted);
        self.ledger.posts.add(posts);
    }

    /// Its accounts.
    pub fn ledger(&self) -> &ApicLedger {
        &self.ledger
    }

    /// The same with empty accounts: what a guest can see.
    #[cfg(test)]
    pub(crate) fn without_past(&self) -> Self {
        Self { ledger: ApicLedger::default(), ..self.clone() }
    }

    /// What its accounts have pending.
    pub fn pending(&self) -> Pending {
        Pending { requests: self.irr.len().into(), in_service: self.isr.len().into(), nmis: self.nmi.into() }
    }

    /// The processor priority (section "Task and Processor Priorities"): its sub-class is that of TPR when both are of one
    /// class, too; KVM has it so.
    pub fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= in_service && !fault::is(Fault::TprIgnored) { self.tpr } else { in_service }
    }

    /// The vector that would be delivered now: the highest request, if its class is above the processor's.
    pub fn deliverable(&self) -> Option<u8> {
        if self.mode == Mode::Disabled {
            return None;
        }
        let class = if fault::is(Fault::PriorityByVector) { 0xff } else { 0xf0 };
        self.irr.first(Fault::LowestRequestFirst).filter(|vector| vector & class > self.ppr() & class)
    }

    /// A request waits for nothing but a lower TPR.
    pub fn blocked_by_tpr(&self) -> bool {
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        self.deliverable().is_none() && self.irr.highest().is_some_and(|vector| vector & 0xf0 > in_service)
    }

    /// Delivers: moves the highest deliverable request from IRR to ISR.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        if !fault::now_and_then(Fault::RequestKept) {
            self.irr.remove(vector);
        }
        self.isr.insert(vector);
        self.ledger.requests.delivered += 1;
        self.ledger.in_service.asserted += 1;
        Some(vector)
    }

    /// The acknowledge cycle of a processor that saw the request earlier: as [`LocalApic::acknowledge`], but if the
    /// request has been masked or lowered since, the spurious vector, with nothing put in service (section "Spurious
    /// Interrupt"). Whoever looks and acknowledges in one step, as our vCPUs do, never needs it.
    pub fn acknowledge_late(&mut self) -> u8 {
        self.acknowledge().unwrap_or(self.svr.vector())
    }

    /// End of interrupt: clears the highest ISR bit (section "Signaling Interrupt Servicing Completion").
    pub fn eoi(&mut self) -> Effect {
        let Some(vector) = self.isr.first(Fault::EoiEndsLowest) else { return Effect::None };
        self.isr.remove(vector);
        self.ledger.in_service.delivered += 1;
        let level = self.tmr.contains(vector);
        self.eoi_lint0(vector);
        if !level {
            return Effect::None;
        }
        let suppressed = self.svr.suppress_eoi_broadcast() && !fault::is(Fault::EoiSuppressionIgnored);
        if suppressed || fault::now_and_then(Fault::EoiBroadcastLost) { Effect::None } else { Effect::Eoi(vector) }
    }

    /// The task priority.
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// CR8: the task priority's class.
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Follows a `mov cr8` of the guest: sets the class, clears the sub-class (section "Interrupt Control in 64-Bit
    /// Mode"). A value that is already there is no write, and keeps the sub-class.
    pub fn set_cr8(&mut self, class: u8) {
        if class & 0xf != self.cr8() && !fault::is(Fault::Cr8Ignored) {
            self.tpr = class << 4;
        }
    }

    /// When the timer wants [`LocalApic::expire`] called.
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.timer.next_deadline()
    }

    /// Lets the timer fire if it is due. A masked timer counts on, and its expiry is lost.
    pub fn expire(&mut self, now: Now) {
        if self.timer.expire(now) {
            let lvt = self.lvt.get(LvtEntry::Timer);
            if !lvt.masked() || fault::is(Fault::MaskedTimerFires) {
                self.accept_from(Source::Timer, lvt.vector(), TriggerMode::Edge);
            } else {
                self.drop_from(Source::Timer, |dropped| &mut dropped.masked);
            }
        }
    }

    /// IRR, for those who look.
    pub fn irr(&self) -> &Vectors {
        &self.irr
    }

    /// ISR, for those who look.
    pub fn isr(&self) -> &Vectors {
        &self.isr
    }

    /// TMR, for those who look.
    pub fn tmr(&self) -> &Vectors {
        &self.tmr
    }

    /// How many SMIs have come, and gone nowhere.
    pub fn smis(&self) -> u64 {
        self.smis
    }

    /// Notes errors, and sends the error interrupt unless one was sent since ESR was last written.
    fn error(&mut self, errors: Esr) {
        if fault::is(Fault::ErrorNotNoted) {
            return;
        }
        self.esr_pending |= errors;
        let lvt = self.lvt.get(LvtEntry::Error);
        if lvt.masked() {
            return self.drop_from(Source::Error, |dropped| &mut dropped.masked);
        }
        if self.error_sent {
            let account = self.ledger.source(Source::Error);
            account.asserted += 1;
            account.merged += 1;
            return;
        }
        self.error_sent = true;
        if lvt.vector() >= vector::FIRST_LEGAL {
            self.accept_from(Source::Error, lvt.vector(), TriggerMode::Edge);
        } else {
            self.esr_pending |= Esr::RECEIVE_ILLEGAL_VECTOR;
            self.drop_from(Source::Error, |dropped| &mut dropped.illegal_vector);
        }
    }

    /// An interrupt of `source` begins, and ends here.
    fn drop_from(&mut self, source: Source, reason: impl FnOnce(&mut Dropped) -> &mut u64) {
        let Account { asserted, dropped, .. } = self.ledger.source(source);
        *asserted += 1;
        *reason(dropped) += 1;
    }

    /// An interrupt of `source` is an event of the processor, not a request.
    fn event_from(&mut self, source: Source) {
        let account = self.ledger.source(source);
        account.asserted += 1;
        account.delivered += 1;
        self.ledger.events += 1;
    }

    /// An LVT entry or a pin gives an NMI.
    fn nmi_from(&mut self, source: Source) {
        self.event_from(source);
        self.ledger.nmis.asserted += 1;
        self.ledger.nmis.merged += u64::from(self.nmi);
        self.nmi = true;
    }
}

/// How many bits, as the ledger counts.
fn count(bits: u64) -> u64 {
    bits.count_ones().into()
}

/// The logical ID that hardware derives in x2APIC mode (section "Deriving Logical x2APIC ID from the Local x2APIC ID").
fn x2apic_ldr(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}
