//! A mailbox's snapshot: what was posted and not yet taken, and what start-up messages find.

use serde::{Deserialize, Serialize};

use super::*;

/// What a mailbox holds. Saved while nobody posts and the owner is neither in the guest nor asleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Edge requests, 64 vectors a word.
    pub edge: [u64; WORDS],
    /// Level requests.
    pub level: [u64; WORDS],
    /// NMIs, 0 to 2.
    pub nmis: u8,
    /// An SMI.
    pub smi: bool,
    /// An ExtINT message.
    pub extint: bool,
    /// An INIT.
    pub init: bool,
    /// A start-up with its vector.
    pub start_up: Option<u8>,
    /// The processor waits for a start-up.
    pub waiting: bool,
    /// The processor is one that start-ups are for.
    pub application: bool,
    /// LINT0's level.
    pub lint0: bool,
    /// LINT0 rose since the owner's last look.
    pub lint0_rose: bool,
    /// The owner has yet to learn of LINT0.
    pub lint0_news: bool,
}

impl Mailbox {
    /// Its state. Requests for attention and deferred work are not in it: those are
    /// between threads, not between chips.
    pub fn save(&self) -> State {
        let load = |words: &[AtomicU64; WORDS]| std::array::from_fn(|i| words[i].load(Ordering::Acquire));
        let summary = self.summary.load(Ordering::Acquire);
        let startup = self.startup.load(Ordering::Acquire);
        let lint0 = self.lint0.load(Ordering::Acquire);
        State {
            edge: load(&self.edge),
            level: load(&self.level),
            nmis: nmis(summary),
            smi: summary & SMI != 0,
            extint: summary & EXTINT != 0,
            init: startup & INIT != 0,
            start_up: (startup & SIPI != 0).then_some((startup & SIPI_VECTOR) as u8),
            waiting: startup & WAITING != 0,
            application: startup & APPLICATION != 0,
            lint0: lint0 & LINT0_HIGH != 0,
            lint0_rose: lint0 & LINT0_ROSE != 0,
            lint0_news: summary & LINT0 != 0,
        }
    }

    /// A mailbox in the saved state.
    pub fn restore(state: &State) -> Self {
        let store = |words: [u64; WORDS]| words.map(AtomicU64::new);
        let bit = |is: bool, bit: u32| if is { bit } else { 0 };
        let names = |words: [u64; WORDS], first: usize| {
            words.iter().enumerate().fold(0, |sum, (i, word)| sum | bit(*word != 0, 1 << (first + i)))
        };
        let start_up = state.start_up.map_or(0, |vector| SIPI | u32::from(vector));
        let summary = names(state.edge, 0)
            | names(state.level, WORDS)
            | bit(state.nmis >= 1, NMI)
            | bit(state.nmis >= 2, SECOND_NMI)
            | bit(state.smi, SMI)
            | bit(state.extint, EXTINT)
            | bit(state.init || state.start_up.is_some(), STARTUP)
            | bit(state.lint0_news, LINT0);
        let startup =
            bit(state.init, INIT) | start_up | bit(state.waiting, WAITING) | bit(state.application, APPLICATION);
        Self {
            summary: AtomicU32::new(summary),
            edge: store(state.edge),
            level: store(state.level),
            startup: AtomicU32::new(startup),
            lint0: AtomicU32::new(bit(state.lint0, LINT0_HIGH) | bit(state.lint0_rose, LINT0_ROSE)),
            ..Self::default()
        }
    }
}
