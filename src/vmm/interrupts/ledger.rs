//! The accounts of the chips on this side, put together; and those of MSIs, which no chip has.

use std::sync::atomic::{AtomicU64, Ordering};

use irqchip::Accepted;
use irqchip::ledger::{Account, Posts};
use irqchip::pic::Cycles;

/// The accounts of the 8259A pair, the I/O APIC and MSIs: each chip's of one moment.
#[derive(Debug, Clone, Default)]
pub struct ChipLedger {
    /// The 8259A pair's inputs, the cascade's not among them: number, account, whether one is pending.
    pub inputs: Vec<(u8, (Account, bool))>,
    /// The pair's acknowledge cycles.
    pub cycles: Cycles,
    /// The I/O APIC's pins.
    pub pins: Vec<(u8, (Account, bool))>,
    /// What their messages have put into mailboxes.
    pub ioapic_posts: Posts,
    /// Messages of devices.
    pub msi: Account,
    /// What these have put into mailboxes.
    pub msi_posts: Posts,
}

/// Counts MSIs, which any thread sends: on a line of their own, each number once per message.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Msis {
    asserted: AtomicU64,
    delivered: AtomicU64,
    merged: AtomicU64,
    no_destination: AtomicU64,
    disabled: AtomicU64,
    malformed: AtomicU64,
    posts: [AtomicU64; 5],
}

impl Msis {
    pub fn asserted(&self) {
        add(&self.asserted, 1);
    }

    /// It was no interrupt message.
    pub fn malformed(&self) {
        add(&self.malformed, 1);
    }

    /// How it fared.
    pub fn sent(&self, accepted: Accepted, posts: &Posts) {
        let outcome = match accepted {
            Accepted::Yes => &self.delivered,
            Accepted::Merged => &self.merged,
            Accepted::No => &self.no_destination,
            Accepted::Disabled => &self.disabled,
        };
        add(outcome, 1);
        let Posts { requests, merged, nmis, merged_nmis, others } = *posts;
        self.posts.iter().zip([requests, merged, nmis, merged_nmis, others]).for_each(|(count, n)| add(count, n));
    }

    pub fn account(&self) -> Account {
        let mut account = Account { merged: get(&self.merged), delivered: get(&self.delivered), ..Account::default() };
        account.dropped.no_destination = get(&self.no_destination);
        account.dropped.disabled = get(&self.disabled);
        account.dropped.malformed = get(&self.malformed);
        // Read last: one that is under way is asserted, and not yet anything else.
        account.asserted = get(&self.asserted);
        account
    }

    pub fn posts(&self) -> Posts {
        let [requests, merged, nmis, merged_nmis, others] = std::array::from_fn(|i| get(&self.posts[i]));
        Posts { requests, merged, nmis, merged_nmis, others }
    }
}

fn add(count: &AtomicU64, n: u64) {
    if n != 0 {
        count.fetch_add(n, Ordering::Relaxed);
    }
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
