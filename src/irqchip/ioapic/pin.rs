//! One input pin and its redirection entry.

use fault::Fault;
use serde::{Deserialize, Serialize};
use x86::Nanos;
use x86::apic::TriggerMode;
use x86::ioapic::RedirectionEntry;

use super::state::PinState;
use crate::ledger::{Account, plausible};
use crate::message::{Message, MessageSink};
use crate::state::{BadState, check};

/// The bits of an entry's low half that a guest can write: all but delivery status, remote IRR and the reserved.
const LOW_WRITABLE: u32 = 0x0001_afff;
/// The same of the high half: the destination and its paravirtual extension.
const HIGH_WRITABLE: u32 = 0xfffe_0000;

/// Remote IRR, which the guest reads and does not write.
const REMOTE_IRR: u64 = 1 << 14;

/// How many EOIs in a row may find the pin asserted and fire it again at once.
pub(super) const REFIRES_AT_ONCE: u32 = 10_000;
/// How long the fire after those waits.
pub(super) const DAMPED_FOR: Nanos = 10_000_000;

/// What one pin did since the I/O APIC was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinCounters {
    /// Its interrupts.
    pub account: Account,
    /// Messages that a local APIC accepted.
    pub sent: u64,
    /// Attempts to send a level interrupt that nobody accepted; it stays pending.
    pub levels_refused: u64,
    /// EOIs after which the damper held the pin back.
    pub damped: u64,
}

impl PinCounters {
    /// A pin may have counted this.
    pub(super) fn is_plausible(&self) -> bool {
        self.account.is_plausible() && [self.sent, self.levels_refused, self.damped].into_iter().all(plausible)
    }

    /// Edges that nobody accepted, and which are gone.
    pub fn edges_dropped(&self) -> u64 {
        self.account.dropped.no_destination + self.account.dropped.disabled
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// As the guest wrote it, with remote IRR; delivery status is computed.
    entry: RedirectionEntry,
    line: bool,
    /// The entry whose message was accepted last; in service while remote IRR is set.
    accepted: RedirectionEntry,
    /// EOIs in a row that found the pin asserted.
    refires: u32,
    /// The damper holds the pin back until then.
    damped_until: Option<Nanos>,
    counters: PinCounters,
}

impl Pin {
    pub(super) fn new() -> Self {
        Self {
            entry: RedirectionEntry::new().with_masked(true),
            line: false,
            accepted: RedirectionEntry::new(),
            refires: 0,
            damped_until: None,
            counters: PinCounters::default(),
        }
    }

    /// Masks the entry and forgets what is in service; the line stays as its driver holds it.
    pub(super) fn reset(&mut self) {
        self.counters.account.dropped.reset += u64::from(self.is_open());
        *self = Self { line: self.line, counters: self.counters, ..Self::new() };
    }

    /// Its state.
    pub(super) fn save(&self) -> PinState {
        let Self { entry, line, accepted, refires, damped_until, counters } = *self;
        PinState { entry: entry.into_bits(), line, accepted: accepted.into_bits(), refires, damped_until, counters }
    }

    /// A pin in the saved state.
    pub(super) fn restore(state: &PinState) -> Result<Self, BadState> {
        let PinState { entry, line, accepted, refires, damped_until, counters } = *state;
        check(counters.is_plausible(), "an I/O APIC pin's counts")?;
        let (entry, accepted) = (RedirectionEntry::from_bits(entry), RedirectionEntry::from_bits(accepted));
        let existing = u64::from(LOW_WRITABLE) | u64::from(HIGH_WRITABLE) << 32 | REMOTE_IRR;
        check(entry.into_bits() & !existing == 0, "reserved bits of a redirection entry")?;
        let pin = Self { entry, line, accepted, refires, damped_until, counters };
        check(!entry.remote_irr() || pin.level_message().is_some(), "an edge with remote IRR")?;
        check(accepted.into_bits() & !existing == 0, "reserved bits of a redirection entry in service")?;
        let level = |message: Message| message.trigger == TriggerMode::Level;
        let serviceable = Message::from_redirection(accepted).is_some_and(level);
        check(!entry.remote_irr() || serviceable, "an edge in service")?;
        check(damped_until.is_none() || line, "a damped pin whose line is low")?;
        check(refires <= REFIRES_AT_ONCE, "a pin's count of refires")?;
        Ok(pin)
    }

    /// The entry as the guest reads it.
    pub(super) fn entry(&self) -> RedirectionEntry {
        self.entry.with_delivery_status(self.waiting().is_some())
    }

    pub(super) fn line(&self) -> bool {
        self.line
    }

    pub(super) fn counters(&self) -> PinCounters {
        self.counters
    }

    /// The level interrupt that was accepted and not yet ended.
    pub(super) fn in_service(&self) -> Option<Message> {
        Message::from_redirection(self.accepted).filter(|_| self.entry.remote_irr())
    }

    pub(super) fn damped_until(&self) -> Option<Nanos> {
        self.damped_until
    }

    pub(super) fn set_line(&mut self, level: bool, sink: &mut dyn MessageSink) {
        let rose = (level || fault::is(Fault::FallIsAnEdge)) && level != self.line;
        self.count_level(level);
        self.line = level;
        if !level {
            self.undamp();
        }
        self.evaluate(rose, sink);
    }

    pub(super) fn write_low(&mut self, value: u32, sink: &mut dyn MessageSink) {
        let was_open = self.is_open();
        let kept = self.entry.into_bits() & !u64::from(LOW_WRITABLE);
        self.entry = RedirectionEntry::from_bits(kept | u64::from(value & LOW_WRITABLE));
        if self.level_message().is_none() && !fault::is(Fault::PseudoEoiMissed) || fault::is(Fault::RemoteIrrWritten) {
            // Linux ends an interrupt without an EOI by switching the entry to edge and back.
            self.entry.set_remote_irr(false);
        }
        let (open, account) = (self.is_open(), &mut self.counters.account);
        match (was_open, open) {
            (false, true) => account.asserted += 1,
            (true, false) => account.dropped.withdrawn += 1,
            _ => {}
        }
        // A guest that programs the pin makes progress.
        self.undamp();
        if !fault::is(Fault::UnmaskLosesLevel) {
            self.evaluate(false, sink);
        }
    }

    pub(super) fn write_high(&mut self, value: u32, sink: &mut dyn MessageSink) {
        let kept = self.entry.into_bits() & u64::from(u32::MAX);
        self.entry = RedirectionEntry::from_bits(kept | u64::from(value & HIGH_WRITABLE) << 32);
        self.undamp();
        self.evaluate(false, sink);
    }

    /// Clears remote IRR if `vector` ends what is in service here; whether it did.
    ///
    /// The 82093AA compares with the vector in the entry. The one that was accepted counts as well: after the guest
    /// has changed the vector of an interrupt in service, its handler's EOI still carries the old one, and the pin
    /// would be dead for good.
    pub(super) fn end(&mut self, vector: u8) -> bool {
        let is_accepted = |accepted: Message| vector == accepted.vector && !fault::is(Fault::EoiOfOldVectorMissed);
        let is_ours = |accepted| is_accepted(accepted) || vector == self.entry.vector() || fault::is(Fault::EoiEndsAll);
        let ends = self.in_service().is_some_and(is_ours);
        if ends {
            self.entry.set_remote_irr(false);
            // The line asks anew.
            self.counters.account.asserted += u64::from(self.is_open());
        }
        ends
    }

    /// After [`Pin::end`]: fires again if the pin is still asserted, at once or, after too many of these, later.
    pub(super) fn refire(&mut self, now: Nanos, sink: &mut dyn MessageSink) {
        if fault::is(Fault::EoiDoesNotRefire) {
            return;
        }
        if self.waiting().is_some() {
            self.refires += 1;
            if self.refires > REFIRES_AT_ONCE && !fault::is(Fault::DamperNeverEngages) {
                self.refires = 0;
                self.damped_until = Some(now.saturating_add(DAMPED_FOR));
                self.counters.damped += 1;
            }
        }
        self.evaluate(false, sink);
    }

    /// A level interrupt waits, and not for the damper.
    pub(super) fn is_refused(&self) -> bool {
        self.waiting().is_some() && self.damped_until.is_none()
    }

    /// Ends the damping if its time has come.
    pub(super) fn expire(&mut self, now: Nanos, sink: &mut dyn MessageSink) {
        if self.damped_until.is_some_and(|until| until <= now) {
            self.damped_until = fault::is(Fault::DamperNeverLetsGo).then_some(Nanos::MAX);
            self.evaluate(false, sink);
        }
    }

    /// Sends what is to be sent now; every change of line, entry or destinations ends here.
    pub(super) fn evaluate(&mut self, rose: bool, sink: &mut dyn MessageSink) {
        if let Some(message) = self.waiting() {
            if self.damped_until.is_some() {
                return;
            }
            let accepted = sink.send(&message);
            if accepted.is_accepted() {
                self.accepted = self.entry;
                self.entry.set_remote_irr(!fault::is(Fault::RemoteIrrForgotten));
                self.counters.account.count(accepted);
                self.counters.sent += 1;
            } else {
                self.counters.levels_refused += 1;
            }
        } else if rose && self.level_message().is_none() {
            self.edge(sink);
        }
    }

    fn edge(&mut self, sink: &mut dyn MessageSink) {
        let masked = self.masked(Fault::MaskedEdgeSent);
        let account = &mut self.counters.account;
        match Message::from_redirection(self.entry) {
            None => account.dropped.malformed += 1,
            Some(_) if masked => account.dropped.masked += 1,
            Some(message) => {
                let accepted = sink.send(&message);
                account.count(accepted);
                self.counters.sent += u64::from(accepted.is_accepted());
            }
        }
    }

    /// Counts a change of the line to `level`. A rise while an interrupt is in service is looked at again at its EOI, and merges with it.
    fn count_level(&mut self, level: bool) {
        let is_level = self.level_message().is_some();
        let open = self.is_open();
        let account = &mut self.counters.account;
        match (self.line, level) {
            (false, true) => {
                account.asserted += 1;
                account.merged += u64::from(is_level && self.entry.remote_irr());
            }
            (true, false) => account.dropped.withdrawn += u64::from(open),
            _ => {}
        }
    }

    /// A level interrupt is asserted and not accepted, be it for the mask.
    pub(super) fn is_open(&self) -> bool {
        self.line && !self.entry.remote_irr() && self.level_message().is_some()
    }

    /// The level interrupt that waits to be accepted.
    fn waiting(&self) -> Option<Message> {
        let may = self.line && !self.masked(Fault::MaskedLevelSent) && !self.entry.remote_irr();
        self.level_message().filter(|_| may)
    }

    /// The mask bit, which `ignored` looks past.
    fn masked(&self, ignored: Fault) -> bool {
        self.entry.masked() && !fault::is(ignored)
    }

    /// The level interrupt that the entry describes, masked or not.
    pub(super) fn level_message(&self) -> Option<Message> {
        Message::from_redirection(self.entry).filter(|message| message.trigger == TriggerMode::Level)
    }

    fn undamp(&mut self) {
        self.refires = 0;
        self.damped_until = None;
    }
}
