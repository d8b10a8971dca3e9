//! One input pin and its redirection entry.

use x86::Nanos;
use x86::apic::TriggerMode;
use x86::ioapic::RedirectionEntry;

use crate::message::{Accepted, Message, MessageSink};

/// The bits of an entry's low half that a guest can write: all but delivery status, remote IRR and the reserved.
const LOW_WRITABLE: u32 = 0x0001_afff;
/// The same of the high half: the destination and its paravirtual extension.
const HIGH_WRITABLE: u32 = 0xfffe_0000;

/// How many EOIs in a row may find the pin asserted and fire it again at once.
pub(super) const REFIRES_AT_ONCE: u32 = 10_000;
/// How long the fire after those waits.
pub(super) const DAMPED_FOR: Nanos = 10_000_000;

/// What one pin did since the I/O APIC was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinCounters {
    /// Messages that a local APIC accepted.
    pub sent: u64,
    /// Edges that nobody accepted, and which are gone.
    pub edges_dropped: u64,
    /// Attempts to send a level interrupt that nobody accepted; it stays pending.
    pub levels_refused: u64,
    /// EOIs after which the damper held the pin back.
    pub damped: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Pin {
    /// As the guest wrote it, with remote IRR; delivery status is computed.
    entry: RedirectionEntry,
    line: bool,
    /// While remote IRR is set: the vector that was accepted.
    accepted_vector: u8,
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
            accepted_vector: 0,
            refires: 0,
            damped_until: None,
            counters: PinCounters::default(),
        }
    }

    /// Masks the entry and forgets what is in service; the line stays as its driver holds it.
    pub(super) fn reset(&mut self) {
        *self = Self { line: self.line, counters: self.counters, ..Self::new() };
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

    pub(super) fn damped_until(&self) -> Option<Nanos> {
        self.damped_until
    }

    pub(super) fn set_line(&mut self, level: bool, sink: &mut dyn MessageSink) {
        let rose = level && !self.line;
        self.line = level;
        if !level {
            self.undamp();
        }
        self.evaluate(rose, sink);
    }

    pub(super) fn write_low(&mut self, value: u32, sink: &mut dyn MessageSink) {
        let kept = self.entry.into_bits() & !u64::from(LOW_WRITABLE);
        self.entry = RedirectionEntry::from_bits(kept | u64::from(value & LOW_WRITABLE));
        if self.level_message().is_none() {
            // Linux ends an interrupt without an EOI by switching the entry to edge and back.
            self.entry.set_remote_irr(false);
        }
        // A guest that programs the pin makes progress.
        self.undamp();
        self.evaluate(false, sink);
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
        let ends = self.entry.remote_irr() && (vector == self.accepted_vector || vector == self.entry.vector());
        if ends {
            self.entry.set_remote_irr(false);
        }
        ends
    }

    /// After [`Pin::end`]: fires again if the pin is still asserted, at once or, after too many of these, later.
    pub(super) fn refire(&mut self, now: Nanos, sink: &mut dyn MessageSink) {
        if self.waiting().is_some() {
            self.refires += 1;
            if self.refires > REFIRES_AT_ONCE {
                self.refires = 0;
                self.damped_until = Some(now.saturating_add(DAMPED_FOR));
                self.counters.damped += 1;
            }
        }
        self.evaluate(false, sink);
    }

    /// Ends the damping if its time has come.
    pub(super) fn expire(&mut self, now: Nanos, sink: &mut dyn MessageSink) {
        if self.damped_until.is_some_and(|until| until <= now) {
            self.damped_until = None;
            self.evaluate(false, sink);
        }
    }

    /// Sends what is to be sent now; every change of line, entry or destinations ends here.
    pub(super) fn evaluate(&mut self, rose: bool, sink: &mut dyn MessageSink) {
        if let Some(message) = self.waiting() {
            if self.damped_until.is_some() {
                return;
            }
            match sink.send(&message) {
                Accepted::Yes => {
                    self.entry.set_remote_irr(true);
                    self.accepted_vector = message.vector;
                    self.counters.sent += 1;
                }
                Accepted::No => self.counters.levels_refused += 1,
            }
        } else if let Some(message) = self.edge_message().filter(|_| rose && !self.entry.masked()) {
            match sink.send(&message) {
                Accepted::Yes => self.counters.sent += 1,
                Accepted::No => self.counters.edges_dropped += 1,
            }
        }
    }

    /// The level interrupt that waits to be accepted.
    fn waiting(&self) -> Option<Message> {
        self.level_message().filter(|_| self.line && !self.entry.masked() && !self.entry.remote_irr())
    }

    fn level_message(&self) -> Option<Message> {
        Message::from_redirection(self.entry).filter(|message| message.trigger == TriggerMode::Level)
    }

    fn edge_message(&self) -> Option<Message> {
        Message::from_redirection(self.entry).filter(|message| message.trigger == TriggerMode::Edge)
    }

    fn undamp(&mut self) {
        self.refires = 0;
        self.damped_until = None;
    }
}
