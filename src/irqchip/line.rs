//! Interrupt lines: the only handles that a device has on the interrupt controllers.
//!
//! A device holds a [`Line`] or an [`Msi`] and can set its level or send it; it never learns a number. A wire with
//! several holders is the OR of their levels, as with wired-or interrupt lines; dropping a holder lowers it.
//!
//! Lock order: the wire's lock is taken before the chips' (which [`LineTarget::set_level`] takes) so that two holders
//! can't reorder a rise and a fall between them.

use std::sync::Arc;

use fault::Fault;
use parking_lot::Mutex;
use x86::apic::DeliveryMode;

use crate::message::Message;

/// What lines drive: the inputs of the PIC and the I/O APIC, by GSI.
pub trait LineTarget: Send + Sync {
    /// The level of `gsi` is now `level`. Called only on changes, under the wire's lock.
    fn set_level(&self, gsi: u8, level: bool);
}

/// Where interrupt messages go.
pub trait MsiTarget: Send + Sync {
    /// A write of `data` to `address`, which may be no interrupt message at all.
    fn send(&self, address: u64, data: u32);

    /// A way of its own for the messages of one vector, where there is one that costs less than [`MsiTarget::send`].
    fn vector(&self) -> Option<Box<dyn MsiVector>> {
        None
    }
}

/// A vector's own way to the controllers: they know its message before it is sent. Dropping it takes it away.
pub trait MsiVector: Send {
    /// From now on [`MsiVector::signal`] sends this message. False: it can't, and sends nothing.
    fn route(&mut self, address: u64, data: u32) -> bool;
    /// Sends the message. False: it is not sent.
    fn signal(&self) -> bool;
}

/// One wire to one GSI; hands out its holders.
pub struct Wire {
    gsi: u8,
    target: Arc<dyn LineTarget>,
    state: Mutex<WireState>,
}

/// A wire, for those who look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WireState {
    /// How many hold it.
    pub holders: u32,
    /// How many of them assert it; its level is their OR.
    pub asserting: u32,
    /// How often it has risen.
    pub rises: u64,
}

impl Wire {
    /// A wire to `gsi` that nobody holds yet.
    pub fn new(gsi: u8, target: Arc<dyn LineTarget>) -> Arc<Self> {
        Arc::new(Self { gsi, target, state: Mutex::default() })
    }

    /// A new holder, its level low.
    pub fn holder(self: &Arc<Self>) -> Line {
        self.state.lock().holders += 1;
        Line { wire: Arc::clone(self), level: false }
    }

    /// Its number.
    pub fn gsi(&self) -> u8 {
        self.gsi
    }

    /// Its state, for those who look.
    pub fn state(&self) -> WireState {
        *self.state.lock()
    }

    fn change(&self, up: bool) {
        let mut state = self.state.lock();
        let before = state.asserting > 0;
        state.asserting = if up { state.asserting + 1 } else { state.asserting - 1 };
        let now = state.asserting > 0 && (up || !fault::is(Fault::SharedLineFallsEarly));
        if before != now {
            state.rises += u64::from(now);
            self.target.set_level(self.gsi, now);
        }
    }
}

/// One device's hold on a wire.
pub struct Line {
    wire: Arc<Wire>,
    level: bool,
}

impl Line {
    /// Sets this holder's level; setting the level it has is free.
    pub fn set(&mut self, level: bool) {
        if level != self.level {
            self.level = level;
            self.wire.change(level);
        }
    }

    /// A rise and a fall (or, if it was high, a fall): an edge for edge-triggered inputs.
    pub fn pulse(&mut self) {
        self.set(true);
        self.set(false);
    }

    /// This holder's level, which is not the wire's when others hold it too.
    pub fn level(&self) -> bool {
        self.level
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(false);
        self.wire.state.lock().holders -= 1;
    }
}

/// A contact between a device's line and a wire, closed at first: somebody else can take the device off the wire.
///
/// Lock order: the wire on the device's side, the switch, the wire behind it.
pub struct Switch(Mutex<Contact>);

struct Contact {
    closed: bool,
    /// What the device drives.
    level: bool,
    out: Line,
}

impl Switch {
    /// A switch in front of `out`, with the line for the device.
    pub fn new(mut out: Line) -> (Arc<Self>, Line) {
        out.set(false);
        let gsi = out.wire.gsi;
        let switch = Arc::new(Self(Mutex::new(Contact { closed: true, level: false, out })));
        let line = Wire::new(gsi, Arc::clone(&switch) as _).holder();
        (switch, line)
    }

    /// Closes or opens it. Open, the device's share of the wire is low; closed again, it is what the device drives by then.
    pub fn set_closed(&self, closed: bool) {
        let mut contact = self.0.lock();
        contact.closed = closed;
        let level = closed && contact.level;
        contact.out.set(level);
    }
}

impl LineTarget for Switch {
    fn set_level(&self, _gsi: u8, level: bool) {
        let mut contact = self.0.lock();
        contact.level = level;
        let level = contact.closed && level;
        contact.out.set(level);
    }
}

/// A device's handle for message-signalled interrupts.
#[derive(Clone)]
pub struct Msi {
    target: Arc<dyn MsiTarget>,
}

impl Msi {
    /// A handle on `target`.
    pub fn new(target: Arc<dyn MsiTarget>) -> Self {
        Self { target }
    }

    /// Sends one message.
    pub fn send(&self, address: u64, data: u32) {
        self.target.send(address, data);
    }

    /// A way of its own for one vector, if there is one.
    pub fn vector(&self) -> Option<Box<dyn MsiVector>> {
        self.target.vector()
    }

    /// Whether such a message reaches a processor that takes no interrupts: an NMI or an INIT.
    pub fn gets_through(address: u64, data: u32) -> bool {
        let mode = Message::from_msi(address, data).map(|message| message.mode);
        matches!(mode, Some(DeliveryMode::Nmi | DeliveryMode::Init))
    }
}

#[cfg(test)]
mod tests;
