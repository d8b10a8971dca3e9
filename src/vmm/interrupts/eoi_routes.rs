//! Which level-triggered messages KVM's local APICs are to report the EOI of.
//!
//! With split controllers KVM exits for an EOI only if it finds the vector among the level-triggered message routes of
//! the first GSIs (api.rst, section "KVM_CAP_SPLIT_IRQCHIP"; the destination counts too). These GSIs carry no interrupt: our
//! I/O APIC sends its messages itself. So a slot is not a pin but a message, and there may be more of them than pins:
//! an entry that the guest changes while its interrupt is in service must be heard of by the old vector and
//! destination, or its pin would be dead for good.
//!
//! A message gets its slot before it is sent for the first time and keeps it until space is short, since replacing KVM's
//! table costs more than an interrupt: a guest that moves an interrupt to and fro pays once for each place.

use irqchip::Message;
use x86::ioapic::PINS;

#[cfg(test)]
mod tests;

/// Slots; each is a GSI of KVM's, from 0 up.
pub const SLOTS: usize = 4 * PINS;
/// The most messages that an I/O APIC can await at once: two a pin.
const MOST_AWAITED: usize = 2 * PINS;

/// The slots.
#[derive(Debug)]
pub struct EoiRoutes {
    slots: [Option<Message>; SLOTS],
}

impl EoiRoutes {
    /// All free.
    pub fn new() -> Self {
        Self { slots: [None; SLOTS] }
    }

    /// Makes sure that `message` has a slot. True: it was new, and KVM is to be told before the message is sent.
    #[must_use]
    pub fn add(&mut self, message: &Message) -> bool {
        if self.slots.contains(&Some(*message)) {
            return false;
        }
        // `prune` has left one free for each pin, and between two prunings each pin sends at most one new message.
        if let Some(free) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(*message);
        }
        true
    }

    /// Frees slots if space is short; keeps those of the messages that are `awaited`. To be called after each change of
    /// the I/O APIC. KVM need not know: a route too many costs an exit at most.
    pub fn prune(&mut self, awaited: impl Iterator<Item = Message>) {
        let used = self.slots.iter().flatten().count();
        if used + PINS <= SLOTS {
            return;
        }
        let awaited: Vec<_> = awaited.take(MOST_AWAITED).collect();
        self.slots.iter_mut().filter(|slot| slot.is_some_and(|m| !awaited.contains(&m))).for_each(|slot| *slot = None);
    }

    /// The slots in use, with their GSIs.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Message)> {
        (0..).zip(&self.slots).filter_map(|(gsi, slot)| Some((gsi, slot.as_ref()?)))
    }
}
