//! The APIC bus: takes a message to the mailboxes of those it is for.
//!
//! Shared by every thread. Posting takes no lock: the destination table is read through an [`ArcSwap`]. Wake-ups are
//! collected in [`Kicks`] and sent by the caller when all targets have their post and no lock is held.

use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use x86::apic::{DeliveryMode, Shorthand, TriggerMode};

use crate::destination::{Address, DestinationTable};
use crate::lapic::{Ipi, LocalApic};
use crate::mailbox::Mailbox;
use crate::message::{Accepted, Destination, Message};

/// Indexes of the local APICs whose owners are still to be woken. Up to 64 without allocating.
#[must_use = "the owners of these local APICs are still to be woken"]
#[derive(Debug, Default)]
pub struct Kicks {
    first: u64,
    rest: Vec<usize>,
}

impl Kicks {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn add(&mut self, index: usize) {
        match index {
            0..64 => self.first |= 1 << index,
            _ => self.rest.push(index),
        }
    }

    /// Calls `kick` for each, and forgets them.
    pub fn drain(&mut self, mut kick: impl FnMut(usize)) {
        let mut first = std::mem::take(&mut self.first);
        while first != 0 {
            kick(first.trailing_zeros() as usize);
            first &= first - 1;
        }
        self.rest.drain(..).for_each(kick);
    }

    /// Nobody is to be woken.
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.is_empty()
    }
}

/// The local APICs as others see them.
#[derive(Debug)]
pub struct ApicBus {
    mailboxes: Box<[Mailbox]>,
    table: ArcSwap<DestinationTable>,
    /// What the next table is made of. Leaf lock, taken only when an address changes.
    addresses: Mutex<Vec<Address>>,
    /// Where the search for the lowest priority starts, so that ties go round.
    rotor: AtomicU32,
}

impl ApicBus {
    /// A bus with a local APIC for each of `addresses`.
    pub fn new(addresses: Vec<Address>) -> Self {
        Self {
            mailboxes: addresses.iter().map(|_| Mailbox::default()).collect(),
            table: ArcSwap::from_pointee(DestinationTable::new(addresses.clone())),
            addresses: Mutex::new(addresses),
            rotor: AtomicU32::new(0),
        }
    }

    /// The mailboxes, by index.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.mailboxes
    }

    /// Publishes a changed address. Messages sent after this returns go by it. The caller then lets the I/O APICs try
    /// again what nobody had accepted.
    pub fn readdress(&self, index: usize, address: Address) {
        let mut addresses = self.addresses.lock();
        if addresses[index] != address {
            addresses[index] = address;
            self.table.store(DestinationTable::new(addresses.clone()).into());
        }
    }

    /// Posts a message from a device, an I/O APIC or the platform.
    pub fn send(&self, message: &Message, kicks: &mut Kicks) -> Accepted {
        let post = &mut |index: usize| {
            if self.post(index, message) {
                kicks.add(index);
            }
        };
        self.deliver(message, |_| true, post)
    }

    /// Sends an IPI from `sender`, which has this `index`. The sender's own copy of an interrupt goes straight into its
    /// IRR; events that are the vCPU's business (NMI, INIT) go through its mailbox, where it looks before it enters the
    /// guest again. Neither needs a kick.
    pub fn send_ipi(&self, sender: &mut LocalApic, index: usize, ipi: &Ipi, kicks: &mut Kicks) {
        let in_scope = |target: usize| match ipi.shorthand {
            Shorthand::None | Shorthand::All => true,
            Shorthand::Myself => target == index,
            Shorthand::AllButSelf => target != index,
        };
        let destination = match ipi.shorthand {
            Shorthand::None => ipi.message.destination,
            _ => Destination::Broadcast,
        };
        let message = Message { destination, ..ipi.message };
        let post = &mut |target: usize| match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if target == index => {
                sender.accept(message.vector, TriggerMode::Edge);
            }
            _ => {
                let owed = self.post(target, &message);
                // The sender's owner is running this very code.
                if owed && target != index {
                    kicks.add(target);
                }
            }
        };
        // Nobody there is nothing that a sender would notice.
        let _ = self.deliver(&message, in_scope, post);
    }

    /// Calls `post` with the index of each local APIC that takes `message`, of those `in_scope`.
    fn deliver(&self, message: &Message, in_scope: impl Fn(usize) -> bool, post: &mut dyn FnMut(usize)) -> Accepted {
        let table = self.table.load();
        // A software-disabled APIC responds to INIT, NMI, SMI and start-up only (Intel SDM vol. 3A, section "Local APIC
        // State After It Has Been Software Disabled"; AMD APM vol. 2, section "Spurious Interrupts").
        let needs_enable =
            matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority | DeliveryMode::ExtInt);
        let takes = |index: usize| {
            in_scope(index) && (!needs_enable || table.address(index).is_some_and(|address| address.enabled))
        };
        let mut accepted = Accepted::No;
        if message.mode == DeliveryMode::LowestPriority {
            if let Some(index) = self.lowest_priority(&table, message.destination, takes) {
                post(index);
                accepted = Accepted::Yes;
            }
            return accepted;
        }
        table.for_each(message.destination, |index| {
            if takes(index) {
                post(index);
                accepted = Accepted::Yes;
            }
        });
        accepted
    }

    /// The target with the lowest processor priority; among equals, the next one after the last winner.
    fn lowest_priority(
        &self,
        table: &DestinationTable,
        destination: Destination,
        takes: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let last = self.rotor.load(Ordering::Relaxed) as usize;
        let mut best: Option<(u8, bool, usize)> = None;
        table.for_each(destination, |index| {
            if takes(index) {
                let candidate = (self.mailboxes[index].priority() & 0xf0, index <= last, index);
                best = Some(best.map_or(candidate, |b| b.min(candidate)));
            }
        });
        let (_, _, index) = best?;
        self.rotor.store(index as u32, Ordering::Relaxed);
        Some(index)
    }

    fn post(&self, index: usize, message: &Message) -> bool {
        let mailbox = &self.mailboxes[index];
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => mailbox.post(message.vector, message.trigger),
            DeliveryMode::Smi => mailbox.post_smi(),
            DeliveryMode::Nmi => mailbox.post_nmi(),
            DeliveryMode::Init => mailbox.post_init(),
            DeliveryMode::StartUp => mailbox.post_start_up(message.vector),
            DeliveryMode::ExtInt => mailbox.post_extint(),
            // No source makes these.
            DeliveryMode::RemoteRead => false,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
