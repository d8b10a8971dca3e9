//! The APIC bus: takes a message to the mailboxes of those it is for.
//!
//! Shared by every thread. Posting takes no lock: the destination table is read through an [`ArcSwap`]. Wake-ups are
//! collected in [`Kicks`] and sent by the caller when all targets have their post and no lock is held.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use fault::Fault;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use x86::apic::{DeliveryMode, Shorthand, TriggerMode};

use crate::destination::{Address, DestinationTable};
use crate::lapic::{Ipi, LocalApic};
use crate::ledger::{Posts, Source};
use crate::mailbox::{self, Mailbox, Posted, Wake};
use crate::message::{Accepted, Destination, Message};
use crate::state::{BadState, check};

/// The most local APICs on a bus.
pub const MOST_APICS: usize = 4096;

/// Indexes of the local APICs whose owners are still to be woken: a bit each, so that none is woken twice and nothing is
/// allocated. With it, what was posted meanwhile, for the sender's ledger.
#[must_use = "the owners of these local APICs are still to be woken"]
#[derive(Debug, Clone)]
pub struct Kicks {
    /// Which words have a bit.
    used: u64,
    words: [u64; MOST_APICS / 64],
    posts: Posts,
}

impl Default for Kicks {
    fn default() -> Self {
        Self::new()
    }
}

impl Kicks {
    /// Nobody yet.
    pub const fn new() -> Self {
        let posts = Posts { requests: 0, merged: 0, nmis: 0, merged_nmis: 0, others: 0 };
        Self { used: 0, words: [0; MOST_APICS / 64], posts }
    }

    /// Takes the count of what was posted, which is the sender's.
    #[must_use]
    pub fn take_posts(&mut self) -> Posts {
        std::mem::take(&mut self.posts)
    }

    /// Adds one, below [`MOST_APICS`].
    pub fn add(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
        self.used |= 1 << (index / 64);
    }

    /// Adds those of `others`.
    pub fn append(&mut self, others: &Self) {
        self.used |= others.used;
        for_each_bit(others.used, |word| self.words[word] |= others.words[word]);
    }

    /// Calls `kick` with each and the way to wake its owner, whose mailbox is in `mailboxes`, and forgets them. To be called
    /// when all posts are made, and no lock is held.
    pub fn pay(&mut self, mailboxes: &[Mailbox], mut kick: impl FnMut(usize, Wake)) {
        if self.is_empty() {
            return;
        }
        mailbox::order_posts();
        self.drain(|index| match mailboxes[index].wake_ordered() {
            Wake::Nobody => {}
            wake => kick(index, wake),
        });
    }

    /// Calls `kick` for each, and forgets them.
    pub fn drain(&mut self, mut kick: impl FnMut(usize)) {
        for_each_bit(std::mem::take(&mut self.used), |word| {
            for_each_bit(std::mem::take(&mut self.words[word]), |bit| kick(word * 64 + bit));
        });
    }

    /// Nobody is to be woken.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}

fn for_each_bit(mut bits: u64, mut found: impl FnMut(usize)) {
    while bits != 0 {
        found(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// Sees what is posted: a tracer.
pub trait PostObserver: Send + Sync + 'static {
    /// `message` is about to be posted to the local APIC with this `index`, on the calling thread, which may hold a chip's
    /// lock. Must not block.
    fn posting(&self, index: usize, message: &Message);
}

/// What a bus remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// By index.
    pub mailboxes: Vec<mailbox::State>,
    /// The last winner of a lowest-priority arbitration.
    pub rotor: u32,
}

/// The local APICs as others see them.
#[derive(Debug)]
pub struct ApicBus {
    mailboxes: Arc<[Mailbox]>,
    table: ArcSwap<DestinationTable>,
    /// What the next table is made of. Leaf lock, taken only when an address changes.
    addresses: Mutex<Vec<Address>>,
    /// Where the search for the lowest priority starts, so that ties go round.
    rotor: AtomicU32,
    observer: Observer,
}

/// Who sees the posts, if anybody does.
#[derive(Default)]
struct Observer(Option<Arc<dyn PostObserver>>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Observer" } else { "none" })
    }
}

impl ApicBus {
    /// A bus with a local APIC for each of `addresses`.
    ///
    /// # Panics
    ///
    /// For more than [`MOST_APICS`].
    pub fn new(addresses: Vec<Address>) -> Self {
        assert!(addresses.len() <= MOST_APICS, "{} local APICs on one bus", addresses.len());
        Self {
            mailboxes: addresses.iter().map(|_| Mailbox::default()).collect(),
            table: ArcSwap::from_pointee(DestinationTable::new(addresses.clone())),
            addresses: Mutex::new(addresses),
            rotor: AtomicU32::new(0),
            observer: Observer::default(),
        }
    }

    /// The same, with somebody who sees each post.
    #[must_use]
    pub fn observed_by(self, observer: Option<Arc<dyn PostObserver>>) -> Self {
        Self { observer: Observer(observer), ..self }
    }

    /// Its state: what is in the mailboxes, and whose turn it is. To be saved while nobody posts.
    pub fn save(&self) -> State {
        State {
            mailboxes: self.mailboxes.iter().map(Mailbox::save).collect(),
            rotor: self.rotor.load(Ordering::Relaxed),
        }
    }

    /// A bus in the saved state; `addresses` are those of the restored local APICs.
    ///
    /// # Errors
    ///
    /// When there is not one mailbox for each address, there are more than [`MOST_APICS`], or a mailbox holds more NMIs than two.
    pub fn restore(addresses: Vec<Address>, state: &State) -> Result<Self, BadState> {
        let count = addresses.len();
        check(count == state.mailboxes.len() && count <= MOST_APICS, "the number of local APICs on the bus")?;
        check(state.mailboxes.iter().all(|mailbox| mailbox.nmis <= 2), "NMIs in a mailbox")?;
        let mailboxes = state.mailboxes.iter().map(Mailbox::restore).collect();
        Ok(Self { mailboxes, rotor: AtomicU32::new(state.rotor), ..Self::new(addresses) })
    }

    /// The mailboxes, by index.
    pub fn mailboxes(&self) -> &Arc<[Mailbox]> {
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
        self.deliver(
            message,
            |_| true,
            |index| {
                let posted = self.post(index, message, &mut kicks.posts);
                if posted.owed {
                    kicks.add(index);
                }
                posted.merged
            },
        )
    }

    /// Sends an IPI from `sender`, which has this `index`. The sender's own copy of an interrupt goes straight into its
    /// IRR; events that are the vCPU's business (NMI, INIT) go through its mailbox, where it looks before it enters the
    /// guest again. Neither needs a kick.
    pub fn send_ipi(&self, sender: &mut LocalApic, index: usize, ipi: &Ipi, kicks: &mut Kicks) {
        let in_scope = |target: usize| match ipi.shorthand {
            Shorthand::None | Shorthand::All => true,
            Shorthand::Myself => target == index,
            Shorthand::AllButSelf => target != index || fault::is(Fault::AllButSelfIncludesSelf),
        };
        let destination = match ipi.shorthand {
            Shorthand::None => ipi.message.destination,
            _ => Destination::Broadcast,
        };
        let message = Message { destination, ..ipi.message };
        let mut posts = Posts::default();
        let post = |target: usize| match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if target == index => {
                sender.accept_from(Source::SelfIpi, message.vector, TriggerMode::Edge)
            }
            _ => {
                let posted = self.post(target, &message, &mut posts);
                // The sender's owner is running this very code.
                if posted.owed && target != index {
                    kicks.add(target);
                }
                posted.merged
            }
        };
        // Nobody there is nothing that a sender would notice.
        let accepted = self.deliver(&message, in_scope, post);
        sender.sent_ipi(accepted, &posts);
    }

    /// Calls `post` with the index of each local APIC that takes `message`, of those `in_scope`; it says whether the
    /// message merged there.
    fn deliver(
        &self,
        message: &Message,
        in_scope: impl Fn(usize) -> bool,
        mut post: impl FnMut(usize) -> bool,
    ) -> Accepted {
        let table = self.table.load();
        // A software-disabled APIC responds to INIT, NMI, SMI and start-up only (Intel SDM vol. 3A, section "Local APIC
        // State After It Has Been Software Disabled"; AMD APM vol. 2, section "Spurious Interrupts").
        let needs_enable =
            matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority | DeliveryMode::ExtInt)
                && !fault::is(Fault::DisabledStillTakes);
        let disabled = Cell::new(false);
        let takes = |index: usize| {
            let enabled = !needs_enable || table.address(index).is_some_and(|address| address.enabled);
            disabled.set(disabled.get() || in_scope(index) && !enabled);
            in_scope(index) && enabled
        };
        let refused = || if disabled.get() { Accepted::Disabled } else { Accepted::No };
        let mut post = |index: usize| {
            if let Some(observer) = &self.observer.0 {
                observer.posting(index, message);
            }
            post(index)
        };
        if message.mode == DeliveryMode::LowestPriority && !fault::is(Fault::LowestPriorityIsAll) {
            return match self.lowest_priority(&table, message.destination, takes) {
                Some(index) => how(post(index)),
                None => refused(),
            };
        }
        let mut accepted = None;
        table.for_each(message.destination, |index| {
            if takes(index) {
                let merged = post(index) && accepted != Some(Accepted::Yes);
                accepted = Some(how(merged));
            }
        });
        accepted.unwrap_or_else(refused)
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
        if fault::is(Fault::LowestPriorityIsFirst) {
            return (0..table.len()).find(|&index| takes(index));
        }
        self.rotor.store(index as u32, Ordering::Relaxed);
        Some(index)
    }

    fn post(&self, index: usize, message: &Message, posts: &mut Posts) -> Posted {
        let mailbox = &self.mailboxes[index];
        let owed = match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                let posted = mailbox.request(message.vector, message.trigger);
                *if posted.merged { &mut posts.merged } else { &mut posts.requests } += 1;
                return posted;
            }
            DeliveryMode::Nmi => {
                let posted = mailbox.nmi();
                *if posted.merged { &mut posts.merged_nmis } else { &mut posts.nmis } += 1;
                return posted;
            }
            DeliveryMode::Smi => mailbox.post_smi(),
            DeliveryMode::Init => mailbox.post_init(),
            DeliveryMode::StartUp => mailbox.post_start_up(message.vector),
            DeliveryMode::ExtInt => mailbox.post_extint(),
            // No source makes these.
            DeliveryMode::RemoteRead => false,
        };
        posts.others += 1;
        Posted { owed, merged: false }
    }
}

fn how(merged: bool) -> Accepted {
    if merged { Accepted::Merged } else { Accepted::Yes }
}

#[cfg(all(test, not(loom)))]
mod tests;
