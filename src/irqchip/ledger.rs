//! The ledger: what became of every interrupt.
//!
//! Each source has an [`Account`], and each account balances at any moment:
//!
//! > asserted = delivered + merged + pending + dropped
//!
//! *Asserted* is counted where the interrupt begins, the others where it ends, in different places of the code, and
//! *pending* is not counted at all: it is looked up in the chip's state (a request bit, an asserted pin). So an account that does
//! not balance has an interrupt lost or made up. docs/ledger.md says what each number means for each source.
//!
//! An account is plain numbers of its chip's owner: whoever has `&mut` on the chip counts, nobody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// No machine counts that far; a snapshot that says so is none of ours, and going on from there would overflow.
pub(crate) fn plausible(count: u64) -> bool {
    count < 1 << 56
}

/// Why an interrupt went nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dropped {
    /// An edge at a masked input, an expiry of a masked timer.
    pub masked: u64,
    /// There is no local APIC at its destination.
    pub no_destination: u64,
    /// Those at its destination were disabled: by software (SVR), or globally (IA32_APIC_BASE).
    pub disabled: u64,
    /// Its vector was below 16.
    pub illegal_vector: u64,
    /// It was no interrupt message, or of a reserved delivery mode or combination.
    pub malformed: u64,
    /// It was a level, or an edge at an 8259A, that went away before anybody took it; or the guest programmed it away.
    pub withdrawn: u64,
    /// INIT, a reset or an ICW1 cleared it.
    pub reset: u64,
    /// Its processor waited for a start-up message, and has no use for it.
    pub not_started: u64,
}

impl Dropped {
    /// The reasons by their names in the file, with how many.
    pub fn reasons(&self) -> [(&'static str, u64); 8] {
        let Self { masked, no_destination, disabled, illegal_vector, malformed, withdrawn, reset, not_started } = *self;
        [
            ("masked", masked),
            ("no_destination", no_destination),
            ("disabled", disabled),
            ("illegal_vector", illegal_vector),
            ("malformed", malformed),
            ("withdrawn", withdrawn),
            ("reset", reset),
            ("not_started", not_started),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.reasons().iter().fold(0, |sum, (_, n)| sum.wrapping_add(*n))
    }
}

/// One source's interrupts since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Account {
    /// Begun.
    pub asserted: u64,
    /// Handed on to the next chip, or to the processor.
    pub delivered: u64,
    /// Those that found one like them that had not been taken yet: one delivery does for both.
    pub merged: u64,
    /// Gone.
    pub dropped: Dropped,
}

impl Account {
    /// What is missing (above 0) or was made up (below), when `pending` are on their way. 0: it balances.
    pub fn difference(&self, pending: u64) -> i128 {
        let ends = [self.delivered, self.merged, self.dropped.total(), pending];
        i128::from(self.asserted) - ends.into_iter().map(i128::from).sum::<i128>()
    }

    /// A chip may have counted this.
    pub(crate) fn is_plausible(&self) -> bool {
        let reasons = self.dropped.reasons();
        reasons.iter().all(|(_, count)| plausible(*count))
            && [self.asserted, self.delivered, self.merged].into_iter().all(plausible)
    }

    /// Nothing has happened here.
    pub fn is_unused(&self) -> bool {
        *self == Self::default()
    }

    /// Counts how a message fared that nobody keeps if it was refused.
    pub(crate) fn count(&mut self, accepted: crate::Accepted) {
        use crate::Accepted;
        *match accepted {
            Accepted::Yes => &mut self.delivered,
            Accepted::Merged => &mut self.merged,
            Accepted::No => &mut self.dropped.no_destination,
            Accepted::Disabled => &mut self.dropped.disabled,
        } += 1;
    }
}

/// Copies of messages as they were put into mailboxes: a message to many has one for each. The posting side of the link to the
/// mailboxes' owners, who count what they take out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Posts {
    /// Fixed interrupts whose bit was not set: the owner will find them.
    pub requests: u64,
    /// Fixed interrupts whose bit was set, by one that the owner has not taken yet.
    pub merged: u64,
    /// NMIs that the owner will find.
    pub nmis: u64,
    /// NMIs that found two.
    pub merged_nmis: u64,
    /// SMI, ExtINT, INIT and start-up messages.
    pub others: u64,
}

impl Posts {
    /// Adds those of `more`.
    pub fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.merged += more.merged;
        self.nmis += more.nmis;
        self.merged_nmis += more.merged_nmis;
        self.others += more.others;
    }
}

/// What asks a local APIC for an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Others, through the mailbox.
    Mailbox,
    /// Its vCPU's own IPIs.
    SelfIpi,
    /// The timer.
    Timer,
    /// Pin LINT0, unless it is set to ExtINT: then the 8259A pair has the accounts.
    Lint0,
    /// Pin LINT1, likewise.
    Lint1,
    /// The error entry.
    Error,
    /// Corrected machine checks.
    Cmci,
    /// The thermal sensor.
    Thermal,
    /// Performance counters.
    Perf,
}

impl Source {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Mailbox,
        Self::SelfIpi,
        Self::Timer,
        Self::Lint0,
        Self::Lint1,
        Self::Error,
        Self::Cmci,
        Self::Thermal,
        Self::Perf,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::SelfIpi => "self-ipi",
            Self::Timer => "timer",
            Self::Lint0 => "lint0",
            Self::Lint1 => "lint1",
            Self::Error => "error",
            Self::Cmci => "cmci",
            Self::Thermal => "thermal",
            Self::Perf => "perf",
        }
    }
}

/// An account for each [`Source`]; in a file by their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, Account>", try_from = "BTreeMap<String, Account>")]
pub struct Sources([Account; Source::ALL.len()]);

impl Sources {
    /// That of `source`.
    pub fn of(&self, source: Source) -> &Account {
        &self.0[source as usize]
    }
}

impl From<Sources> for BTreeMap<String, Account> {
    fn from(sources: Sources) -> Self {
        Source::ALL.iter().map(|source| (source.name().to_owned(), *sources.of(*source))).collect()
    }
}

impl TryFrom<BTreeMap<String, Account>> for Sources {
    type Error = String;

    fn try_from(named: BTreeMap<String, Account>) -> Result<Self, String> {
        let mut sources = Self::default();
        for (name, account) in named {
            let source = Source::ALL.iter().find(|source| source.name() == name);
            sources.0[*source.ok_or_else(|| format!("there is no source {name:?}"))? as usize] = account;
        }
        Ok(sources)
    }
}

/// A local APIC's accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApicLedger {
    /// By [`Source`]: *delivered* is a new bit in IRR or an event of the processor, *merged* found its bit set.
    pub sources: Sources,
    /// Among what the sources delivered: NMI, SMI and INIT by an LVT entry, which are no requests.
    pub events: u64,
    /// Bits of IRR: *delivered* went to ISR.
    pub requests: Account,
    /// Bits of ISR: *delivered* were ended by an EOI.
    pub in_service: Account,
    /// NMIs of LVT entries: *delivered* were taken by the processor.
    pub nmis: Account,
    /// Commands written to ICR (or SELF IPI): *delivered* reached somebody.
    pub ipis: Account,
    /// What these put into others' mailboxes.
    pub posts: Posts,
}

impl ApicLedger {
    pub(crate) fn source(&mut self, source: Source) -> &mut Account {
        &mut self.sources.0[source as usize]
    }

    /// An APIC may have counted this.
    pub(crate) fn is_plausible(&self) -> bool {
        let Posts { requests, merged, nmis, merged_nmis, others } = self.posts;
        let accounts = [self.requests, self.in_service, self.nmis, self.ipis];
        self.sources.0.iter().chain(&accounts).all(Account::is_plausible)
            && [self.events, requests, merged, nmis, merged_nmis, others].into_iter().all(plausible)
    }

    /// A number that changes with every interrupt, for those who copy this when it has changed.
    pub fn activity(&self) -> u64 {
        let sources = self.sources.0.iter().fold(0_u64, |sum, source| sum.wrapping_add(source.asserted));
        [self.requests.delivered, self.in_service.delivered, self.ipis.asserted, self.nmis.delivered]
            .into_iter()
            .fold(sources, u64::wrapping_add)
    }

    /// The accounts that do not balance, with the difference; `pending` are the bits in IRR, in ISR, and of a waiting NMI.
    pub fn imbalances(&self, pending: Pending) -> Vec<(&'static str, i128)> {
        let of_sources = self.sources.0.iter().map(|source| i128::from(source.delivered)).sum::<i128>();
        let mut all: Vec<_> = Source::ALL.iter().map(|s| (s.name(), self.sources.of(*s).difference(0))).collect();
        all.extend([
            ("requests", self.requests.difference(pending.requests)),
            ("in service", self.in_service.difference(pending.in_service)),
            ("LVT NMIs", self.nmis.difference(pending.nmis)),
            ("IPIs", self.ipis.difference(0)),
            ("sources to IRR", of_sources - i128::from(self.requests.asserted) - i128::from(self.events)),
            ("IRR to ISR", i128::from(self.requests.delivered) - i128::from(self.in_service.asserted)),
        ]);
        all.retain(|(_, difference)| *difference != 0);
        all
    }
}

/// What is under way in a local APIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Bits in IRR.
    pub requests: u64,
    /// Bits in ISR.
    pub in_service: u64,
    /// An NMI of an LVT entry waits.
    pub nmis: u64,
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
