//! The mailbox: how other threads reach a local APIC, without a lock.
//!
//! The protocol (modelled with loom in `loom.rs`):
//!
//! 1. A poster sets a request bit (release). There are two sets of 256, one for edge and one for level requests, so a
//!    request and its trigger mode are one atomic step.
//! 2. It sets, in the summary word, the bit that says which word to look at (acquire-release). If the summary was
//!    not 0, an earlier poster's wake-up is on its way or the owner has yet to look: done, the kicks have merged.
//! 3. Else it owes a wake-up: after posting to all its targets it has a SeqCst fence ([`order_posts`]), and then looks where
//!    each vCPU is ([`Mailbox::wake_ordered`]): OUTSIDE needs nothing, IN_GUEST a signal, HALTED a futex wake.
//! 4. The owner swaps the summary with 0 (acquire) and takes the words it names. Before entering the guest or halting
//!    it says so in `whereabouts`, has a SeqCst fence, and looks at the summary once more.
//!
//! Either the owner's last look sees the summary bit, or the poster sees IN_GUEST or HALTED: the two fences order it.

#[cfg(all(test, loom))]
mod loom;
mod state;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(not(any(loom, shuttle)))]
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
use ::loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(shuttle)]
use ::shuttle::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use fault::Fault;
use x86::apic::TriggerMode;

pub use state::State;

/// Words of 64 requests.
const WORDS: usize = 4;
/// Summary bits 0-3: edge words; 4-7: level words; then these.
const NMI: u32 = 1 << 8;
const SECOND_NMI: u32 = 1 << 15;
const STARTUP: u32 = 1 << 9;
const LINT0: u32 = 1 << 10;
const EXTINT: u32 = 1 << 11;
const SMI: u32 = 1 << 12;
const ATTENTION: u32 = 1 << 13;
const DEFERRED: u32 = 1 << 14;

/// The start-up word: a pending INIT, a latched start-up with its vector, whether the owner waits for one, and whether
/// it ever does (the bootstrap processor takes no start-up).
const INIT: u32 = 1 << 8;
const SIPI: u32 = 1 << 9;
const WAITING: u32 = 1 << 10;
const APPLICATION: u32 = 1 << 11;
const SIPI_VECTOR: u32 = 0xff;

/// The LINT0 word.
const LINT0_HIGH: u32 = 1;
const LINT0_ROSE: u32 = 2;

/// Values of the whereabouts word.
const OUTSIDE: u32 = 0;
const IN_GUEST: u32 = 1;
const HALTED: u32 = 2;

/// How to get the owner's attention.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// It will look by itself.
    Nobody,
    /// It is in the guest: send its thread the kick signal.
    Signal,
    /// It sleeps on [`Mailbox::futex`]: wake it.
    Futex,
}

/// What became of a post.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The caller owes a [`Mailbox::wake`].
    pub owed: bool,
    /// There was one like it that the owner has not taken yet, and takes both as one.
    pub merged: bool,
}

/// Pin LINT0 since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lint0 {
    /// Its level now.
    pub level: bool,
    /// It rose in between, whatever it is now: an edge is not lost because it was short.
    pub rose: bool,
}

/// What came besides interrupt requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// NMIs: two at most.
    pub nmis: u8,
    /// An SMI.
    pub smi: bool,
    /// INIT.
    pub init: bool,
    /// A start-up with its vector; comes after `init`, if both are there.
    pub start_up: Option<u8>,
    /// An ExtINT message.
    pub extint: bool,
    /// LINT0 changed.
    pub lint0: Option<Lint0>,
    /// Somebody wants the owner to look up (stop, pause, report).
    pub attention: bool,
    /// Deferred work waits for the owner's thread.
    pub deferred: bool,
}

/// One local APIC's mailbox. It shares no cache line with another, and what an edge request touches is on one.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Mailbox {
    edge: [AtomicU64; WORDS],
    summary: AtomicU32,
    whereabouts: AtomicU32,
    startup: AtomicU32,
    lint0: AtomicU32,
    /// The owner's processor priority, for lowest-priority arbitration: a hint, always a little old.
    priority: AtomicU8,
    level: [AtomicU64; WORDS],
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            summary: AtomicU32::new(0),
            edge: std::array::from_fn(|_| AtomicU64::new(0)),
            level: std::array::from_fn(|_| AtomicU64::new(0)),
            startup: AtomicU32::new(0),
            whereabouts: AtomicU32::new(OUTSIDE),
            lint0: AtomicU32::new(0),
            priority: AtomicU8::new(0),
        }
    }
}

/// The posters' side, for every thread. A returned `true` means that the caller owes a [`Mailbox::wake`].
impl Mailbox {
    /// Posts a fixed interrupt, for those who keep no ledger.
    #[must_use]
    #[inline]
    pub fn post(&self, vector: u8, trigger: TriggerMode) -> bool {
        self.request(vector, trigger).owed
    }

    /// Posts a fixed interrupt.
    #[inline]
    pub fn request(&self, vector: u8, trigger: TriggerMode) -> Posted {
        if fault::now_and_then(Fault::PostLost) {
            return Posted { owed: false, merged: false };
        }
        let word = usize::from(vector >> 6);
        let (words, first) = match trigger {
            TriggerMode::Edge => (&self.edge, 0),
            TriggerMode::Level => (&self.level, WORDS),
        };
        let bit = 1 << (vector & 63);
        let merged = words[word].fetch_or(bit, Ordering::Release) & bit != 0;
        Posted { owed: self.raise(1 << (first + word)), merged }
    }

    /// Posts an NMI, for those who keep no ledger.
    #[must_use]
    pub fn post_nmi(&self) -> bool {
        self.nmi().owed
    }

    /// Posts an NMI. Two are kept apart, further ones merge: a processor that is in no NMI handler would have taken the first at
    /// once, and holds one more (Intel SDM vol. 3A, section "Handling Multiple NMIs"); whether this one is in a handler is for the
    /// owner to know.
    pub fn nmi(&self) -> Posted {
        let before = self.summary.fetch_or(NMI, Ordering::AcqRel);
        if before & NMI == 0 {
            return Posted { owed: before == 0, merged: false };
        }
        let before = self.summary.fetch_or(SECOND_NMI, Ordering::AcqRel);
        Posted { owed: before == 0, merged: before & SECOND_NMI != 0 }
    }

    /// Posts an SMI.
    #[must_use]
    pub fn post_smi(&self) -> bool {
        self.raise(SMI)
    }

    /// Posts an ExtINT message.
    #[must_use]
    pub fn post_extint(&self) -> bool {
        self.raise(EXTINT)
    }

    /// Asks the owner to look up.
    #[must_use]
    pub fn post_attention(&self) -> bool {
        self.raise(ATTENTION)
    }

    /// Says that deferred work waits for the owner's thread.
    #[must_use]
    pub fn post_deferred(&self) -> bool {
        self.raise(DEFERRED)
    }

    /// Drives LINT0; the level that it has is no news. Callers are ordered among themselves by the lock of the chip
    /// that drives the pin.
    #[must_use]
    pub fn post_lint0(&self, level: bool) -> bool {
        let set = |word: u32| match (level, word & LINT0_HIGH != 0) {
            (true, false) => Some(word | LINT0_HIGH | LINT0_ROSE),
            (false, true) => Some(word & !LINT0_HIGH),
            _ => None,
        };
        self.lint0.fetch_update(Ordering::AcqRel, Ordering::Acquire, set).is_ok() && self.raise(LINT0)
    }

    /// Posts an INIT, which also undoes a start-up that the owner has not taken yet.
    #[must_use]
    pub fn post_init(&self) -> bool {
        let set = |word: u32| Some(word & !(SIPI | SIPI_VECTOR) | INIT);
        // `set` never refuses.
        let _ = self.startup.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        self.raise(STARTUP)
    }

    /// Posts a start-up: latched while an application processor waits for one or has an INIT pending, else ignored; of
    /// several, the first counts (Intel SDM vol. 3A, section "MP Initialization Protocol Algorithm for MP Systems").
    #[must_use]
    pub fn post_start_up(&self, vector: u8) -> bool {
        let set = |word: u32| {
            // The fault is to take it for an INIT as well.
            let init = if fault::is(Fault::StartUpWhileRunning) { INIT } else { 0 };
            let open = word & APPLICATION != 0 && (word | init) & (WAITING | INIT) != 0 && word & SIPI == 0;
            open.then(|| word & !SIPI_VECTOR | SIPI | init | u32::from(vector))
        };
        self.startup.fetch_update(Ordering::AcqRel, Ordering::Acquire, set).is_ok() && self.raise(STARTUP)
    }

    /// Pays the wake-up that a post returned `true` for.
    pub fn wake(&self) -> Wake {
        order_posts();
        self.wake_ordered()
    }

    /// The same for one of several, when [`order_posts`] has been called after the last post.
    pub fn wake_ordered(&self) -> Wake {
        if fault::now_and_then(Fault::WakeLost) {
            return Wake::Nobody;
        }
        match self.whereabouts.load(Ordering::Relaxed) {
            IN_GUEST => Wake::Signal,
            HALTED => match self.whereabouts.compare_exchange(HALTED, OUTSIDE, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => Wake::Futex,
                // It has woken by itself since, and looks before it goes anywhere.
                Err(_) => Wake::Nobody,
            },
            _ => Wake::Nobody,
        }
    }

    /// What is posted and not taken: fixed interrupts, NMIs. A look without a lock: exact while nobody posts.
    pub fn waiting(&self) -> (u64, u64) {
        let bits = |word: &AtomicU64| u64::from(word.load(Ordering::Relaxed).count_ones());
        let requests = self.edge.iter().chain(&self.level).map(bits).sum();
        (requests, nmis(self.summary.load(Ordering::Relaxed)).into())
    }

    /// The owner's processor priority as last published.
    pub fn priority(&self) -> u8 {
        self.priority.load(Ordering::Relaxed)
    }

    #[inline]
    fn raise(&self, bit: u32) -> bool {
        self.summary.fetch_or(bit, Ordering::AcqRel) == 0
    }
}

/// NMIs that the summary tells of. The second may be there without the first, if the owner took that one in between.
fn nmis(summary: u32) -> u8 {
    u8::from(summary & NMI != 0) + u8::from(summary & SECOND_NMI != 0)
}

/// Orders all posts of this thread before its looks where their owners are: the poster's half of the protocol's two
/// fences, one for any number of targets.
pub fn order_posts() {
    fence(Ordering::SeqCst);
}

/// The owner's side: one thread.
impl Mailbox {
    /// There is something to take.
    pub fn is_pending(&self) -> bool {
        self.summary.load(Ordering::Acquire) != 0
    }

    /// Takes everything: calls `requests` with word index, edge and level bits for each word that has any.
    pub fn take(&self, mut requests: impl FnMut(usize, u64, u64)) -> Events {
        let summary = self.summary.swap(0, Ordering::Acquire);
        if summary == 0 {
            return Events::default();
        }
        for word in 0..WORDS {
            let take = |words: &[AtomicU64; WORDS], first: usize| match summary & 1 << (first + word) {
                0 => 0,
                _ => words[word].swap(0, Ordering::Acquire),
            };
            let (edge, level) = (take(&self.edge, 0), take(&self.level, WORDS));
            if edge | level != 0 {
                requests(word, edge, level);
            }
        }
        let (init, start_up) = if summary & STARTUP != 0 { self.take_start_up() } else { (false, None) };
        Events {
            nmis: nmis(summary),
            smi: summary & SMI != 0,
            init,
            start_up,
            extint: summary & EXTINT != 0,
            lint0: (summary & LINT0 != 0).then(|| self.take_lint0()),
            attention: summary & ATTENTION != 0,
            deferred: summary & DEFERRED != 0,
        }
    }

    fn take_lint0(&self) -> Lint0 {
        let word = self.lint0.fetch_and(!LINT0_ROSE, Ordering::Acquire);
        Lint0 { level: word & LINT0_HIGH != 0, rose: word & LINT0_ROSE != 0 }
    }

    /// Makes this an application processor's: a start-up is awaited, from now on and again after each INIT. To be
    /// called once, before anybody posts. A mailbox without it is the bootstrap processor's, which ignores start-ups.
    pub fn wait_for_start_up(&self) {
        self.startup.fetch_or(APPLICATION | WAITING, Ordering::AcqRel);
    }

    /// Publishes the processor priority.
    pub fn publish_priority(&self, ppr: u8) {
        self.priority.store(ppr, Ordering::Relaxed);
    }

    /// About to enter the guest. False: something has come, don't; the owner is OUTSIDE again.
    #[must_use]
    pub fn enter_guest(&self) -> bool {
        self.go(IN_GUEST)
    }

    /// About to sleep on [`Mailbox::futex`]. False: something has come, don't; the owner is OUTSIDE again.
    #[must_use]
    pub fn halt(&self) -> bool {
        self.go(HALTED)
    }

    /// Back from the guest or from sleep.
    pub fn leave(&self) {
        self.whereabouts.store(OUTSIDE, Ordering::Release);
    }

    /// The word to sleep on and the value to sleep while it holds.
    #[cfg(not(loom))]
    pub fn futex(&self) -> (&AtomicU32, u32) {
        (&self.whereabouts, HALTED)
    }

    fn go(&self, to: u32) -> bool {
        self.whereabouts.store(to, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let blind = to == HALTED && fault::is(Fault::NoLookBeforeSleep);
        if self.summary.load(Ordering::Relaxed) == 0 || blind {
            return true;
        }
        self.leave();
        false
    }

    /// Takes INIT and start-up. An INIT alone makes an application processor wait for a start-up in the same step, so
    /// that one which follows at once is not lost; a start-up ends the waiting.
    fn take_start_up(&self) -> (bool, Option<u8>) {
        let clear = |word: u32| {
            let kept = word & APPLICATION;
            Some(match word & (INIT | SIPI) {
                INIT if kept != 0 => kept | WAITING,
                0 => kept | word & WAITING,
                _ => kept,
            })
        };
        match self.startup.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear) {
            Ok(word) => (word & INIT != 0, (word & SIPI != 0).then_some((word & SIPI_VECTOR) as u8)),
            Err(_) => (false, None),
        }
    }
}
