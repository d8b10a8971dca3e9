//! Where events come from: the observers that other layers call, the looks at the chips before and after they change, and
//! the port where a guest marks its handlers.

use bottom_half::{Happened, Observed, Observer};
use irqchip::bus::PostObserver;
use irqchip::ioapic::{IoApic, PinCounters};
use irqchip::message::Message;
use irqchip::pic::{Pic8259, PicPair};
use x86::Nanos;
use x86::apic::TriggerMode;
use x86::ioapic::{PINS, RedirectionEntry};
use x86::platform::TRACE_MARK_ON;

use super::event::Event;
use super::recorder::cut;
use super::{Recorder, Trace};
use crate::io_bus::Handler;

impl PostObserver for Recorder {
    fn posting(&self, index: usize, message: &Message) {
        let Message { vector, mode, trigger, .. } = *message;
        self.record(Event::Posted { vcpu: index as u32, vector, mode, level: trigger == TriggerMode::Level });
    }
}

impl Observer for Recorder {
    fn observe(&self, happened: Happened, item: &Observed<'_>) {
        let Observed { kind, key, vector, cpu, queue } = *item;
        self.record(Event::Deferred { happened, kind, vector, cpu, key, queue: cut(queue) });
    }
}

/// The 8259A pair before a change: IRR, ISR, and the bases of the vectors, the master's first.
#[derive(Debug, Clone, Copy)]
pub struct PicBefore([u8; 2], [u8; 2], [u8; 2]);

/// The input whose vector this is.
fn source(bases: &[u8; 2], vector: u8) -> Option<u8> {
    let chip = bases.iter().position(|&base| base == vector & !7)?;
    Some(chip as u8 * 8 + vector % 8)
}

fn pic_state(pic: &PicPair) -> PicBefore {
    let both = |of: fn(&Pic8259) -> u8| [of(pic.master()), of(pic.slave())];
    PicBefore(both(Pic8259::irr), both(Pic8259::isr), both(Pic8259::vector_base))
}

/// Which pins of the I/O APIC a change may concern. A look at all of them costs more than the rest of an interrupt's records.
#[derive(Debug, Clone, Copy)]
pub enum Pins {
    /// This one.
    One(u8),
    /// Those with this vector.
    Of(u8),
    /// All.
    All,
}

/// What of a pin is compared.
type PinState = (RedirectionEntry, PinCounters);

/// Pins of the I/O APIC before a change.
pub struct PinsBefore {
    stamp: u64,
    pins: SomePins,
}

enum SomePins {
    None,
    One(u8, PinState),
    All(Box<[PinState; PINS]>),
}

fn pin_state(ioapic: &IoApic, pin: u8) -> PinState {
    (ioapic.entry(pin).unwrap_or_default(), ioapic.counters(pin).unwrap_or_default())
}

fn some_pins(ioapic: &IoApic, pins: Pins) -> SomePins {
    let (one, nobodys) = match pins {
        Pins::One(pin) => (Some(pin), false),
        Pins::All => (None, false),
        Pins::Of(vector) => {
            let has_it = |&pin: &u8| ioapic.entry(pin).is_some_and(|entry| entry.vector() == vector);
            let mut with_it = (0..PINS as u8).filter(has_it);
            let first = with_it.next();
            (first.filter(|_| with_it.next().is_none()), first.is_none())
        }
    };
    match one {
        Some(pin) => SomePins::One(pin, pin_state(ioapic, pin)),
        None if nobodys => SomePins::None,
        None => SomePins::All(Box::new(std::array::from_fn(|pin| pin_state(ioapic, pin as u8)))),
    }
}

impl Trace {
    /// The 8259A pair before a change.
    pub fn before_pic(&self, pic: &PicPair) -> Option<PicBefore> {
        self.is_on().then(|| pic_state(pic))
    }

    /// The 8259A pair after it; `vector` is what an acknowledge cycle gave.
    pub fn after_pic(&self, before: Option<PicBefore>, pic: &PicPair, vector: Option<u8>) {
        let (Some(PicBefore(irr, isr, bases)), Some(recorder)) = (before, self.recorder()) else { return };
        let PicBefore(new_irr, new_isr, _) = pic_state(pic);
        for input in 0..16_u8 {
            let was = |set: [u8; 2]| set[usize::from(input / 8)] & 1 << (input % 8) != 0;
            // The cascade is no source.
            if input == x86::pic::CASCADE_IRQ {
                continue;
            }
            if was(isr) && !was(new_isr) {
                recorder.record(Event::PicEnded { input });
            }
            // A request that is gone by now gives the spurious vector, which is nobody's.
            let acknowledged = vector.filter(|&vector| source(&bases, vector) == Some(input) && was(irr));
            match (was(irr), was(new_irr)) {
                (false, true) => recorder.record(Event::PicRequested { input }),
                (true, false) if acknowledged.is_none() => recorder.record(Event::PicWithdrawn { input }),
                _ => {}
            }
            if let Some(vector) = acknowledged {
                recorder.record(Event::PicAcknowledged { input, vector });
                if !was(new_isr) {
                    // Automatic EOI.
                    recorder.record(Event::PicEnded { input });
                }
            }
        }
    }

    /// Those pins of the I/O APIC that a change may concern, before it.
    pub fn before_pins(&self, ioapic: &IoApic, pins: Pins) -> Option<PinsBefore> {
        self.recorder().map(|recorder| PinsBefore { stamp: recorder.stamp(), pins: some_pins(ioapic, pins) })
    }

    /// The same pins after it. What a pin has sent is dated before the posts that came of it.
    pub fn after_pins(&self, before: Option<PinsBefore>, ioapic: &IoApic) {
        let (Some(PinsBefore { stamp, pins }), Some(recorder)) = (before, self.recorder()) else { return };
        match pins {
            SomePins::None => {}
            SomePins::One(pin, before) => after_pin(recorder, stamp, ioapic, pin, &before),
            SomePins::All(pins) => {
                for (pin, before) in (0..).zip(&*pins) {
                    after_pin(recorder, stamp, ioapic, pin, before);
                }
            }
        }
    }
}

fn after_pin(recorder: &Recorder, stamp: u64, ioapic: &IoApic, pin: u8, (old, counted): &PinState) {
    let (new, counts) = pin_state(ioapic, pin);
    let damped = counts.damped != counted.damped;
    let sent = counts.sent != counted.sent;
    let ended = old.remote_irr() && (!new.remote_irr() || sent);
    if ended {
        let asserted = ioapic.line(pin).unwrap_or(false);
        recorder.record_at(stamp, Event::PinEnded { pin, asserted, damped });
    }
    if sent {
        let level = new.remote_irr();
        recorder.record_at(stamp, Event::PinSent { pin, vector: new.vector(), level });
    }
    if counts.edges_dropped() != counted.edges_dropped() {
        recorder.record(Event::PinRefused { pin, level: false });
    }
    if counts.levels_refused != counted.levels_refused {
        recorder.record(Event::PinRefused { pin, level: true });
    }
}

/// The port where a guest marks the entry of a handler, by writing its vector.
pub struct MarkPort(pub Trace);

impl Handler for MarkPort {
    fn read(&self, _now: Nanos, _offset: u64, data: &mut [u8]) {
        data.fill(TRACE_MARK_ON);
    }

    fn write(&self, _now: Nanos, _offset: u64, data: &[u8]) {
        if let &[vector, ..] = data {
            self.0.record(|| Event::Marked { vector });
        }
    }
}
