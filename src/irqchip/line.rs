//! Interrupt lines: the only handles that a device has on the interrupt controllers.
//!
//! A device holds a [`Line`] or an [`Msi`] and can set its level or send it; it never learns a number. A wire with
//! several holders is the OR of their levels, as with wired-or interrupt lines; dropping a holder lowers it.
//!
//! Lock order: the wire's lock is taken before the chips' (which [`LineTarget::set_level`] takes) so that two holders
//! can't reorder a rise and a fall between them.

use std::sync::Arc;

use parking_lot::Mutex;

/// What lines drive: the inputs of the PIC and the I/O APIC, by GSI.
pub trait LineTarget: Send + Sync {
    /// The level of `gsi` is now `level`. Called only on changes, under the wire's lock.
    fn set_level(&self, gsi: u8, level: bool);
}

/// Where interrupt messages go.
pub trait MsiTarget: Send + Sync {
    /// A write of `data` to `address`, which may be no interrupt message at all.
    fn send(&self, address: u64, data: u32);
}

/// One wire to one GSI; hands out its holders.
pub struct Wire {
    gsi: u8,
    target: Arc<dyn LineTarget>,
    /// How many holders assert it.
    asserted: Mutex<u32>,
}

impl Wire {
    /// A wire to `gsi` that nobody holds yet.
    pub fn new(gsi: u8, target: Arc<dyn LineTarget>) -> Arc<Self> {
        Arc::new(Self { gsi, target, asserted: Mutex::new(0) })
    }

    /// A new holder, its level low.
    pub fn holder(self: &Arc<Self>) -> Line {
        Line { wire: Arc::clone(self), level: false }
    }

    fn change(&self, up: bool) {
        let mut asserted = self.asserted.lock();
        let before = *asserted > 0;
        *asserted = if up { *asserted + 1 } else { *asserted - 1 };
        let now = *asserted > 0;
        if before != now {
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
}

#[cfg(test)]
mod tests;
