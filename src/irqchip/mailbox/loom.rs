//! Models of the mailbox protocol: loom runs every interleaving and every result of a weakly ordered load that the
//! language's memory model allows. No preemption bound is set: a model is exhaustive.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p irqchip --lib loom`
//!
//! Each model that says "never" has a sibling with one ordering, one fence or one atomic step taken away, which loom
//! must find: [`weak`] is the protocol again with its strength as parameters. Its full-strength run must pass, so that a
//! failing sibling fails for what was taken away and nothing else.

use ::loom::sync::Arc;
use ::loom::thread;
use x86::apic::TriggerMode::{self, Edge, Level};

use super::*;

/// What one owner has taken, over all its looks.
#[derive(Debug, Default)]
struct Taken {
    edge: [u64; WORDS],
    level: [u64; WORDS],
    looks_with: [u32; WORDS],
    inits: u32,
    start_ups: Vec<u8>,
    /// The order of INITs and start-ups as the owner acts on them.
    order: Vec<&'static str>,
    nmis: u32,
    lint0: Option<Lint0>,
    rises: u32,
}

impl Taken {
    fn take(&mut self, mailbox: &Mailbox) {
        let events = mailbox.take(|word, edge, level| {
            self.edge[word] |= edge;
            self.level[word] |= level;
            self.looks_with[word] += 1;
        });
        self.nmis += u32::from(events.nmis);
        if events.init {
            self.inits += 1;
            self.order.push("init");
        }
        if let Some(vector) = events.start_up {
            self.start_ups.push(vector);
            self.order.push("start-up");
        }
        if let Some(lint0) = events.lint0 {
            self.rises += u32::from(lint0.rose);
            self.lint0 = Some(lint0);
        }
    }

    fn has(&self, vector: u8, trigger: TriggerMode) -> bool {
        let words = if trigger == Edge { &self.edge } else { &self.level };
        words[usize::from(vector) / 64] & 1 << (vector % 64) != 0
    }
}

/// Posts, and pays for it. What the owner was sent.
fn post_and_wake(mailbox: &Mailbox, post: impl FnOnce(&Mailbox) -> bool) -> Wake {
    if post(mailbox) { mailbox.wake() } else { Wake::Nobody }
}

/// The owner's loop until it is where it wanted to go: take, say where you go, look again.
fn settle(mailbox: &Mailbox, taken: &mut Taken, go: fn(&Mailbox) -> bool) {
    while !go(mailbox) {
        taken.take(mailbox);
    }
}

#[test]
fn a_request_never_leaves_the_owner_in_the_guest_without_a_signal() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let poster = thread::spawn({
            let mailbox = mailbox.clone();
            move || post_and_wake(&mailbox, |mailbox| mailbox.post(0x31, Edge))
        });
        let mut taken = Taken::default();
        settle(&mailbox, &mut taken, Mailbox::enter_guest);
        let wake = poster.join().unwrap();
        if mailbox.is_pending() {
            assert_eq!(wake, Wake::Signal, "asleep to a request in the guest");
        }
        taken.take(&mailbox);
        assert!(taken.has(0x31, Edge), "lost");
    });
}

#[test]
fn a_request_that_comes_between_two_entries_is_not_lost() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let poster = thread::spawn({
            let mailbox = mailbox.clone();
            move || post_and_wake(&mailbox, |mailbox| mailbox.post(0x31, Edge))
        });
        let mut taken = Taken::default();
        settle(&mailbox, &mut taken, Mailbox::enter_guest);
        mailbox.leave();
        taken.take(&mailbox);
        settle(&mailbox, &mut taken, Mailbox::enter_guest);
        let wake = poster.join().unwrap();
        // The signal may have been spent on the first entry only if the request was taken after it.
        if mailbox.is_pending() {
            assert_eq!(wake, Wake::Signal);
        }
        taken.take(&mailbox);
        assert!(taken.has(0x31, Edge));
    });
}

/// A message to two targets has one fence, between all posts and all looks.
#[test]
fn one_fence_is_enough_for_all_targets_of_a_message() {
    ::loom::model(|| {
        let mailboxes = [Arc::new(Mailbox::default()), Arc::new(Mailbox::default())];
        let poster = thread::spawn({
            let mailboxes = mailboxes.clone();
            move || {
                let owed = mailboxes.each_ref().map(|mailbox| mailbox.post(0x31, Edge));
                order_posts();
                assert_eq!(owed, [true; 2]);
                mailboxes.map(|mailbox| mailbox.wake_ordered())
            }
        });
        // Each owner by itself: what one does is nothing to the other.
        let entered = mailboxes.each_ref().map(|mailbox| mailbox.enter_guest());
        let wakes = poster.join().unwrap();
        for ((mailbox, entered), wake) in mailboxes.iter().zip(entered).zip(wakes) {
            if entered && mailbox.is_pending() {
                assert_eq!(wake, Wake::Signal, "asleep to a request in the guest");
            }
            let mut taken = Taken::default();
            taken.take(mailbox);
            assert!(taken.has(0x31, Edge), "lost");
        }
    });
}

#[test]
fn an_owner_never_sleeps_on_something_pending_unless_its_futex_is_owed() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let poster = thread::spawn({
            let mailbox = mailbox.clone();
            move || post_and_wake(&mailbox, Mailbox::post_nmi)
        });
        let mut taken = Taken::default();
        settle(&mailbox, &mut taken, Mailbox::halt);
        let wake = poster.join().unwrap();
        if mailbox.is_pending() {
            assert_eq!(wake, Wake::Futex);
            // FUTEX_WAIT compares first: a wake-up before the sleep counts too.
            assert_ne!(mailbox.whereabouts.load(Ordering::Relaxed), HALTED);
        }
        taken.take(&mailbox);
        assert_eq!(taken.nmis, 1);
    });
}

#[test]
fn an_owner_that_wakes_by_itself_and_enters_the_guest_is_signalled() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let poster = thread::spawn({
            let mailbox = mailbox.clone();
            move || post_and_wake(&mailbox, |mailbox| mailbox.post(0x31, Edge))
        });
        let mut taken = Taken::default();
        // Its timer wakes it: a poster that saw it asleep may be about to say so.
        settle(&mailbox, &mut taken, Mailbox::halt);
        mailbox.leave();
        taken.take(&mailbox);
        settle(&mailbox, &mut taken, Mailbox::enter_guest);
        let wake = poster.join().unwrap();
        if mailbox.is_pending() {
            assert_eq!(wake, Wake::Signal);
        }
        taken.take(&mailbox);
        assert!(taken.has(0x31, Edge));
    });
}

/// What an owner that goes to the guest takes of two posts, and then of what is left.
fn taken_of_two(posts: [fn(&Mailbox) -> bool; 2]) -> Taken {
    let mailbox = Arc::new(Mailbox::default());
    let posters = posts.map(|post| {
        let mailbox = mailbox.clone();
        thread::spawn(move || post_and_wake(&mailbox, post))
    });
    let mut taken = Taken::default();
    settle(&mailbox, &mut taken, Mailbox::enter_guest);
    let wakes = posters.map(|poster| poster.join().unwrap());
    if mailbox.is_pending() {
        assert!(wakes.contains(&Wake::Signal), "each left it to the other");
    }
    taken.take(&mailbox);
    taken
}

#[test]
fn two_posters_merge_and_neither_is_lost() {
    ::loom::model(|| {
        let taken = taken_of_two([|mailbox| mailbox.post(0x31, Edge), Mailbox::post_nmi]);
        assert!(taken.has(0x31, Edge) && taken.nmis == 1);
    });
}

/// What a processor can hold, it gets, however its two senders and its looks fall.
#[test]
fn two_nmis_are_two() {
    ::loom::model(|| assert_eq!(taken_of_two([Mailbox::post_nmi, Mailbox::post_nmi]).nmis, 2));
}

#[test]
fn two_posters_that_meet_no_owner_owe_one_wake_up() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let other = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.post(0x91, Edge)
        });
        let mine = mailbox.post(0x31, Level);
        assert!(mine != other.join().unwrap(), "the kicks merge into one");
        let mut taken = Taken::default();
        taken.take(&mailbox);
        assert!(taken.has(0x31, Level) && taken.has(0x91, Edge));
    });
}

#[test]
fn a_vector_posted_as_edge_and_as_level_keeps_both_trigger_modes() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let edge = thread::spawn({
            let mailbox = mailbox.clone();
            move || post_and_wake(&mailbox, |mailbox| mailbox.post(0x31, Edge))
        });
        let level = thread::spawn({
            let mailbox = mailbox.clone();
            move || post_and_wake(&mailbox, |mailbox| mailbox.post(0x31, Level))
        });
        let mut taken = Taken::default();
        taken.take(&mailbox);
        let _ = (edge.join().unwrap(), level.join().unwrap());
        taken.take(&mailbox);
        assert!(taken.has(0x31, Edge) && taken.has(0x31, Level));
        assert!(taken.looks_with[0] <= 2, "and none is taken twice");
    });
}

#[test]
fn a_start_up_close_behind_an_init_always_starts_an_application_processor() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.wait_for_start_up();
        let _ = mailbox.post_start_up(1);
        let mut taken = Taken::default();
        taken.take(&mailbox);
        assert_eq!(taken.order, ["start-up"], "it runs");
        let poster = thread::spawn({
            let mailbox = mailbox.clone();
            move || {
                let _ = post_and_wake(&mailbox, Mailbox::post_init);
                let _ = post_and_wake(&mailbox, |mailbox| mailbox.post_start_up(2));
                // The second of the usual two: it may start nothing by itself.
                let _ = post_and_wake(&mailbox, |mailbox| mailbox.post_start_up(3));
            }
        });
        taken.take(&mailbox);
        taken.take(&mailbox);
        poster.join().unwrap();
        taken.take(&mailbox);
        assert_eq!(taken.inits, 1);
        assert_eq!(taken.order, ["start-up", "init", "start-up"]);
        assert_eq!(taken.start_ups, [1, 2]);
    });
}

#[test]
fn an_nmi_beside_init_and_start_up_takes_nothing_from_them() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.wait_for_start_up();
        let nmi = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.post_nmi()
        });
        let start = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.post_init() | mailbox.post_start_up(2)
        });
        let mut taken = Taken::default();
        taken.take(&mailbox);
        assert!(nmi.join().unwrap() | start.join().unwrap(), "somebody wakes the owner");
        taken.take(&mailbox);
        assert_eq!((taken.nmis, taken.inits, taken.start_ups), (1, 1, vec![2]));
        assert_eq!(taken.order, ["init", "start-up"]);
    });
}

#[test]
fn of_two_start_ups_from_two_processors_one_counts() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.wait_for_start_up();
        let other = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.post_start_up(2)
        });
        let mine = mailbox.post_start_up(1);
        let theirs = other.join().unwrap();
        assert!(mine != theirs);
        let mut taken = Taken::default();
        taken.take(&mailbox);
        assert_eq!(taken.start_ups, [if mine { 1 } else { 2 }]);
    });
}

#[test]
fn a_lint0_pulse_is_seen_as_one_rise_and_ends_low() {
    ::loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let chip = thread::spawn({
            let mailbox = mailbox.clone();
            move || {
                let _ = post_and_wake(&mailbox, |mailbox| mailbox.post_lint0(true));
                let _ = post_and_wake(&mailbox, |mailbox| mailbox.post_lint0(false));
            }
        });
        let mut taken = Taken::default();
        taken.take(&mailbox);
        chip.join().unwrap();
        taken.take(&mailbox);
        assert_eq!(taken.rises, 1);
        assert_eq!(taken.lint0.map(|lint0| lint0.level), Some(false));
    });
}

/// The protocol with one vector, and what makes it strong as parameters.
mod weak {
    use super::super::{HALTED, IN_GUEST, OUTSIDE};
    use ::loom::sync::Arc;
    use ::loom::sync::atomic::{AtomicU32, Ordering, fence};
    use ::loom::thread;

    /// What is left of the protocol.
    #[derive(Clone, Copy)]
    pub struct Strength {
        /// Step 3's fence, between the post and the look at the whereabouts.
        pub poster_fence: bool,
        /// Step 4's fence, between saying where one goes and the last look.
        pub owner_fence: bool,
        /// Step 4's last look itself.
        pub last_look: bool,
        /// The summary bit is set after the request bit.
        pub request_first: bool,
        /// Step 2's ordering of the summary bit.
        pub publish: Ordering,
        /// Step 4's ordering of the summary's exchange.
        pub collect: Ordering,
        /// The trigger mode and the request are one step (else the trigger mode comes after).
        pub trigger_with_request: bool,
        /// Taking an INIT and opening the door for the start-up are one step.
        pub init_opens_door: bool,
    }

    pub const FULL: Strength = Strength {
        poster_fence: true,
        owner_fence: true,
        last_look: true,
        request_first: true,
        publish: Ordering::AcqRel,
        collect: Ordering::Acquire,
        trigger_with_request: true,
        init_opens_door: true,
    };

    struct Model {
        strength: Strength,
        summary: AtomicU32,
        request: AtomicU32,
        trigger: AtomicU32,
        whereabouts: AtomicU32,
    }

    /// Request bits: an edge request, a level one (with the trigger mode in the same word).
    const REQUEST: u32 = 1;
    const LEVEL: u32 = 2;

    impl Model {
        fn new(strength: Strength) -> Arc<Self> {
            Arc::new(Self {
                strength,
                summary: AtomicU32::new(0),
                request: AtomicU32::new(0),
                trigger: AtomicU32::new(0),
                whereabouts: AtomicU32::new(OUTSIDE),
            })
        }

        /// Posts a level request. The whereabouts seen by the one who owes a wake-up.
        fn post(&self) -> Option<u32> {
            let summarise = || self.summary.fetch_or(1, self.strength.publish) == 0;
            let owed = if self.strength.request_first {
                self.set_request();
                summarise()
            } else {
                let owed = summarise();
                self.set_request();
                owed
            };
            if !owed {
                return None;
            }
            if self.strength.poster_fence {
                fence(Ordering::SeqCst);
            }
            Some(self.whereabouts.load(Ordering::Relaxed))
        }

        fn set_request(&self) {
            if self.strength.trigger_with_request {
                self.request.fetch_or(REQUEST | LEVEL, Ordering::Release);
            } else {
                self.request.fetch_or(REQUEST, Ordering::Release);
                self.trigger.fetch_or(LEVEL, Ordering::Release);
            }
        }

        /// The requests taken.
        fn take(&self) -> u32 {
            if self.summary.swap(0, self.strength.collect) == 0 {
                return 0;
            }
            // A word is looked at before it is exchanged, as a sparse sweep would: a stale look loses a request.
            if self.request.load(Ordering::Relaxed) == 0 {
                return 0;
            }
            let request = self.request.swap(0, Ordering::Acquire);
            request | if self.strength.trigger_with_request { 0 } else { self.trigger.swap(0, Ordering::Acquire) }
        }

        fn go(&self, to: u32) -> bool {
            self.whereabouts.store(to, Ordering::Relaxed);
            if self.strength.owner_fence {
                fence(Ordering::SeqCst);
            }
            if !self.strength.last_look || self.summary.load(Ordering::Relaxed) == 0 {
                return true;
            }
            self.whereabouts.store(OUTSIDE, Ordering::Release);
            false
        }
    }

    /// One poster, and an owner who looks, goes to `to`, and stays there until it is woken.
    fn post_against(strength: Strength, to: u32) {
        ::loom::model(move || {
            let mailbox = Model::new(strength);
            let poster = thread::spawn({
                let mailbox = mailbox.clone();
                move || mailbox.post()
            });
            let mut taken = mailbox.take();
            while !mailbox.go(to) {
                taken |= mailbox.take();
            }
            let seen = poster.join().unwrap();
            if mailbox.summary.load(Ordering::Relaxed) != 0 {
                assert_eq!(seen, Some(to), "nobody wakes it");
            }
            taken |= mailbox.take();
            assert_eq!(taken & REQUEST, REQUEST, "the request is lost");
        });
    }

    /// One poster, and an owner who delivers what it takes, with the trigger mode that it has then.
    fn trigger_against(strength: Strength) {
        ::loom::model(move || {
            let mailbox = Model::new(strength);
            let poster = thread::spawn({
                let mailbox = mailbox.clone();
                move || {
                    // Somebody else's summary bit has the owner look at any moment.
                    mailbox.summary.fetch_or(1, Ordering::AcqRel);
                    mailbox.post();
                }
            });
            for _ in 0..2 {
                let taken = mailbox.take();
                assert!(taken & REQUEST == 0 || taken & LEVEL != 0, "a level request taken for an edge: no EOI");
            }
            poster.join().unwrap();
        });
    }

    /// INIT, then a start-up, against an owner who takes the INIT.
    fn start_up_against(strength: Strength) {
        const INIT: u32 = 1;
        const SIPI: u32 = 2;
        const WAITING: u32 = 4;
        ::loom::model(move || {
            let word = Arc::new(AtomicU32::new(0));
            let poster = thread::spawn({
                let word = word.clone();
                move || {
                    word.fetch_or(INIT, Ordering::AcqRel);
                    let set = |word: u32| (word & (INIT | WAITING) != 0).then_some(word | SIPI);
                    word.fetch_update(Ordering::AcqRel, Ordering::Acquire, set).is_ok()
                }
            });
            if strength.init_opens_door {
                let take = |word: u32| (word == INIT).then_some(WAITING);
                let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
            } else if word.compare_exchange(INIT, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                word.fetch_or(WAITING, Ordering::AcqRel);
            }
            assert!(poster.join().unwrap(), "the start-up found the door shut");
        });
    }

    #[test]
    fn full_strength_holds() {
        post_against(FULL, IN_GUEST);
        post_against(FULL, HALTED);
        trigger_against(FULL);
        start_up_against(FULL);
    }

    #[test]
    #[should_panic = "nobody wakes it"]
    fn without_the_posters_fence_the_guest_runs_on() {
        post_against(Strength { poster_fence: false, ..FULL }, IN_GUEST);
    }

    #[test]
    #[should_panic = "nobody wakes it"]
    fn without_the_owners_fence_the_guest_runs_on() {
        post_against(Strength { owner_fence: false, ..FULL }, IN_GUEST);
    }

    #[test]
    #[should_panic = "nobody wakes it"]
    fn without_the_posters_fence_the_owner_sleeps_on() {
        post_against(Strength { poster_fence: false, ..FULL }, HALTED);
    }

    #[test]
    #[should_panic = "nobody wakes it"]
    fn without_the_owners_fence_the_owner_sleeps_on() {
        post_against(Strength { owner_fence: false, ..FULL }, HALTED);
    }

    #[test]
    #[should_panic = "nobody wakes it"]
    fn without_the_last_look_the_owner_sleeps_on() {
        post_against(Strength { last_look: false, ..FULL }, HALTED);
    }

    #[test]
    #[should_panic = "the request is lost"]
    fn with_the_summary_before_the_request_it_is_lost() {
        post_against(Strength { request_first: false, ..FULL }, IN_GUEST);
    }

    #[test]
    #[should_panic = "the request is lost"]
    fn with_a_relaxed_summary_bit_the_request_is_lost() {
        post_against(Strength { publish: Ordering::Relaxed, ..FULL }, IN_GUEST);
    }

    #[test]
    #[should_panic = "the request is lost"]
    fn with_a_relaxed_collection_the_request_is_lost() {
        post_against(Strength { collect: Ordering::Relaxed, ..FULL }, IN_GUEST);
    }

    #[test]
    #[should_panic = "a level request taken for an edge"]
    fn with_the_trigger_mode_in_a_second_step_an_eoi_is_lost() {
        trigger_against(Strength { trigger_with_request: false, ..FULL });
    }

    #[test]
    #[should_panic = "the start-up found the door shut"]
    fn with_the_door_opened_in_a_second_step_a_start_up_is_lost() {
        start_up_against(Strength { init_opens_door: false, ..FULL });
    }
}
