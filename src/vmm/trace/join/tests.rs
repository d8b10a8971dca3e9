//! Random histories of a model machine, told as records: joining gives the histories back.

use std::collections::BTreeMap;

use super::*;
use crate::trace::event::{Apic, Cause, Eoi, Record};
use x86::apic::DeliveryMode;

const VCPUS: u32 = 2;
const VECTORS: [u8; 4] = [0x31, 0x35, 0x52, 0x71];
/// The thread of a device, after those of the vCPUs.
const DEVICE: u16 = 2;

/// A generator of numbers that is the same everywhere (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One life as it was: which post began it, and when the rest happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Life {
    vcpu: u32,
    vector: u8,
    requested: u64,
    injected: Option<u64>,
    ended: Option<u64>,
}

/// The model: sets of posts where a machine has bits.
#[derive(Default)]
struct Model {
    records: Vec<Record>,
    now: u64,
    /// Posts (by stamp) that are in a mailbox.
    mailbox: BTreeMap<(u32, u8), Vec<u64>>,
    /// Dated, and set after the next look.
    late: Vec<(u32, u8, u64)>,
    irr: BTreeMap<(u32, u8), usize>,
    isr: BTreeMap<u32, Vec<usize>>,
    lives: Vec<Life>,
    /// What became of each post: the life it is part of, and whether it began it.
    posts: BTreeMap<u64, Option<(usize, bool)>>,
}

impl Model {
    fn record(&mut self, thread: u16, event: Event) -> u64 {
        self.now += 10;
        self.records.push(Record { stamp: self.now, thread, event });
        self.now
    }

    fn apic(&self, vcpu: u32) -> Apic {
        let mut apic = Apic::default();
        let set = |words: &mut [u64; 4], vector: u8| words[usize::from(vector / 64)] |= 1 << (vector % 64);
        self.irr.keys().filter(|(of, _)| *of == vcpu).for_each(|&(_, vector)| set(&mut apic.irr, vector));
        for &life in self.isr.get(&vcpu).into_iter().flatten() {
            set(&mut apic.isr, self.lives[life].vector);
            apic.ppr = apic.ppr.max(self.lives[life].vector & 0xf0);
        }
        apic
    }

    fn post(&mut self, random: &mut Random, races: bool) {
        let (vcpu, vector) = (random.below(VCPUS.into()) as u32, VECTORS[random.below(4) as usize]);
        let sender = random.below(3) as u16;
        if sender == DEVICE {
            self.record(DEVICE, Event::Msi { address: 0xfee0_0000, data: vector.into() });
        } else {
            self.record(sender, Event::Ipi { from: sender.into(), vector, mode: DeliveryMode::Fixed });
        }
        let post = self.record(sender, Event::Posted { vcpu, vector, mode: DeliveryMode::Fixed, level: false });
        self.posts.insert(post, None);
        if races && random.below(4) == 0 {
            self.late.push((vcpu, vector, post));
        } else {
            self.mailbox.entry((vcpu, vector)).or_default().push(post);
        }
    }

    fn collect(&mut self, vcpu: u32) {
        for vector in VECTORS {
            let Some(posts) = self.mailbox.remove(&(vcpu, vector)) else { continue };
            let waits = self.irr.get(&(vcpu, vector)).copied();
            let life = waits.unwrap_or(self.lives.len());
            for (nth, &post) in posts.iter().enumerate() {
                self.posts.insert(post, Some((life, waits.is_none() && nth == 0)));
            }
            if waits.is_none() {
                self.irr.insert((vcpu, vector), life);
                let apic = self.apic(vcpu);
                let event = Event::Requested { vcpu, vector, cause: Cause::Mailbox, apic };
                let requested = self.record(vcpu as u16, event);
                self.lives.push(Life { vcpu, vector, requested, injected: None, ended: None });
            }
        }
        self.record(vcpu as u16, Event::Collected { vcpu });
        for (vcpu, vector, post) in std::mem::take(&mut self.late) {
            self.mailbox.entry((vcpu, vector)).or_default().push(post);
        }
    }

    fn inject(&mut self, vcpu: u32) {
        let ppr = self.apic(vcpu).ppr;
        let highest = self.irr.keys().filter(|(of, _)| *of == vcpu).map(|&(_, vector)| vector).max();
        let Some(vector) = highest.filter(|vector| vector & 0xf0 > ppr) else { return };
        let life = self.irr.remove(&(vcpu, vector)).expect("it was found there");
        self.isr.entry(vcpu).or_default().push(life);
        let apic = self.apic(vcpu);
        self.lives[life].injected = Some(self.record(vcpu as u16, Event::Injected { vcpu, vector, apic }));
    }

    fn eoi(&mut self, vcpu: u32) {
        let Some(life) = self.isr.entry(vcpu).or_default().pop() else { return };
        let (vector, apic) = (self.lives[life].vector, self.apic(vcpu));
        let how = Eoi::Register;
        self.lives[life].ended = Some(self.record(vcpu as u16, Event::Ended { vcpu, vector, how, apic }));
    }

    fn run(seed: u64, races: bool) -> Self {
        let (mut model, mut random) = (Self::default(), Random(seed | 1));
        for _ in 0..600 {
            let vcpu = random.below(VCPUS.into()) as u32;
            match random.below(6) {
                0 | 1 => model.post(&mut random, races),
                2 | 3 => model.collect(vcpu),
                4 => model.inject(vcpu),
                _ => model.eoi(vcpu),
            }
        }
        model
    }

    fn story(&self) -> Story {
        let records = self.records.clone();
        Story::of(&Recording { records, start: 0, lost: 0, ended_early: None })
    }
}

/// The life that the joined interrupt tells of, if it came into IRR.
fn life(interrupt: &Interrupt) -> Option<Life> {
    let at = |is: fn(&Event) -> bool| interrupt.steps.iter().find(|step| is(&step.event)).map(|step| step.stamp);
    Some(Life {
        vcpu: interrupt.vcpu?,
        vector: interrupt.vector?,
        requested: at(|event| matches!(event, Event::Requested { .. }))?,
        injected: at(|event| matches!(event, Event::Injected { .. })),
        ended: at(|event| matches!(event, Event::Ended { .. })),
    })
}

fn posted(interrupt: &Interrupt) -> Option<u64> {
    let is_post = |step: &&Step| matches!(step.event, Event::Posted { .. });
    interrupt.steps.iter().find(is_post).map(|step| step.stamp)
}

fn first_seed() -> u64 {
    let seed = std::env::var("TOPHALF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("TOPHALF_SEED={seed}");
    seed
}

#[test]
fn joining_gives_each_posts_history_back() {
    let first = first_seed();
    for seed in first..first + 200 {
        let model = Model::run(seed, false);
        let story = model.story();
        assert_eq!(story.interrupts.len(), model.posts.len(), "seed {seed}");
        for interrupt in &story.interrupts {
            let post = posted(interrupt).expect("each begins with a post");
            let steps = &interrupt.steps;
            assert!(steps.windows(2).all(|pair| pair[0].stamp < pair[1].stamp), "seed {seed}: {interrupt:?}");
            match model.posts[&post] {
                None => assert_eq!((interrupt.end, life(interrupt)), (End::Posted, None), "seed {seed}"),
                Some((of, true)) => {
                    assert_eq!(life(interrupt), Some(model.lives[of]), "seed {seed}");
                    let Life { injected, ended, .. } = model.lives[of];
                    let end = match (injected, ended) {
                        (None, _) => End::Requested,
                        (Some(_), None) => End::InService,
                        (Some(_), Some(_)) => End::Done,
                    };
                    assert_eq!(interrupt.end, end, "seed {seed}");
                }
                Some((of, false)) => {
                    let End::Merged(into) = interrupt.end else { panic!("seed {seed}: {interrupt:?}") };
                    let into = story.interrupt(into).expect("it is in the story");
                    assert_eq!(life(into), Some(model.lives[of]), "seed {seed}");
                }
            }
        }
    }
}

/// A post may be dated before its owner's look and be made after it.
#[test]
fn posts_that_race_with_a_look_lose_no_life_and_make_none() {
    let first = first_seed();
    for seed in first..first + 200 {
        let model = Model::run(seed, true);
        let story = model.story();
        let mut told: Vec<Life> = story.interrupts.iter().filter_map(life).collect();
        told.sort_unstable();
        let mut lives = model.lives.clone();
        lives.sort_unstable();
        assert_eq!(told, lives, "seed {seed}");
        for interrupt in story.interrupts.iter().filter(|interrupt| life(interrupt).is_some()) {
            let post = posted(interrupt).unwrap_or_else(|| panic!("seed {seed}: no post in {interrupt:?}"));
            assert!(life(interrupt).is_some_and(|life| post < life.requested), "seed {seed}: {interrupt:?}");
        }
        // What is told to wait in a mailbox at the end does.
        let waiting = story.interrupts.iter().filter(|interrupt| interrupt.end == End::Posted).count();
        let really = model.posts.values().filter(|fate| fate.is_none()).count();
        assert!(waiting <= really, "seed {seed}: {waiting} of {really}");
    }
}

#[test]
fn registers_before_a_step_are_those_after_the_step_before() {
    let model = Model::run(7, false);
    let story = model.story();
    let mut steps: Vec<_> = story.interrupts.iter().flat_map(|interrupt| &interrupt.steps).collect();
    steps.sort_by_key(|step| step.stamp);
    let mut seen = 0;
    for step in steps {
        if let Event::Injected { vector, apic, .. } = step.event {
            let before = step.before.expect("a request came before it");
            let bit = |set: &[u64; 4]| set[usize::from(vector / 64)] >> (vector % 64) & 1;
            assert_eq!((bit(&before.irr), bit(&before.isr)), (1, 0));
            assert_eq!((bit(&apic.irr), bit(&apic.isr)), (0, 1));
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

fn record(stamp: u64, thread: u16, event: Event) -> Record {
    Record { stamp, thread, event }
}

fn story_of(events: &[(u16, Event)]) -> Story {
    let records = events.iter().enumerate().map(|(at, &(thread, event))| record(at as u64 * 10 + 10, thread, event));
    Story::of(&Recording { records: records.collect(), start: 0, lost: 0, ended_early: None })
}

fn with_vector(set: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    set.iter().for_each(|vector| words[usize::from(vector / 64)] |= 1 << (vector % 64));
    words
}

fn apic(irr: &[u8], isr: &[u8]) -> Apic {
    Apic { tpr: 0, ppr: isr.iter().max().map_or(0, |v| v & 0xf0), irr: with_vector(irr), isr: with_vector(isr) }
}

/// A level interrupt whose line is still up at its EOI comes again, and is the same assertion's.
#[test]
fn a_line_that_is_still_up_fires_again() {
    let (vcpu, vector) = (0, 0x41);
    let posted = Event::Posted { vcpu, vector, mode: DeliveryMode::Fixed, level: true };
    let requested = Event::Requested { vcpu, vector, cause: Cause::Mailbox, apic: apic(&[vector], &[]) };
    let injected = Event::Injected { vcpu, vector, apic: apic(&[], &[vector]) };
    let ended = Event::Ended { vcpu, vector, how: Eoi::Register, apic: apic(&[], &[]) };
    let sent = Event::PinSent { pin: 10, vector, level: true };
    let story = story_of(&[
        (1, Event::Line { gsi: 10, level: true }),
        (1, sent),
        (1, posted),
        (0, requested),
        (0, injected),
        (0, ended),
        (0, Event::PinEnded { pin: 10, asserted: true, damped: false }),
        (0, sent),
        (0, posted),
        (0, requested),
        (0, injected),
        (1, Event::Line { gsi: 10, level: false }),
        (0, ended),
        (0, Event::PinEnded { pin: 10, asserted: false, damped: false }),
    ]);
    let [first, again] = &story.interrupts[..] else { panic!("{:?}", story.interrupts) };
    assert_eq!((first.end, again.end), (End::Done, End::Done));
    assert_eq!((first.source, again.source), (Source::Pin(10), Source::Pin(10)));
    assert_eq!((first.steps.len(), again.steps.len()), (7, 6), "{first:?} {again:?}");
}

#[test]
fn a_line_that_nobody_sends_for_is_lost() {
    let story = story_of(&[
        (1, Event::Line { gsi: 5, level: true }),
        (1, Event::PicRequested { input: 5 }),
        (1, Event::Line { gsi: 5, level: false }),
        (1, Event::Line { gsi: 6, level: true }),
    ]);
    let ends: Vec<_> = story.interrupts.iter().map(|interrupt| interrupt.end).collect();
    assert_eq!(ends, [End::Withdrawn, End::Asserted]);
    assert!(story.interrupts.iter().all(Interrupt::is_lost));
}

/// From a guest's access in a handler through a tasklet to the interrupt that it raises.
#[test]
fn deferred_items_are_linked_to_their_cause_and_their_effect() {
    use bottom_half::Happened;
    let (vcpu, vector) = (0, 0x41);
    let deferred = |happened, kind, key| Event::Deferred {
        happened,
        kind,
        vector: Some(Vector::Block),
        cpu: Some(0),
        key,
        queue: [0; 8],
    };
    let story = story_of(&[
        (0, Event::Entered { vcpu }),
        (0, Event::Requested { vcpu, vector, cause: Cause::Timer, apic: apic(&[vector], &[]) }),
        (0, Event::Injected { vcpu, vector, apic: apic(&[], &[vector]) }),
        (0, deferred(Happened::Activated, ItemKind::Tasklet, 3)),
        (0, deferred(Happened::Activated, ItemKind::Softirq, 4)),
        (0, deferred(Happened::Activated, ItemKind::Tasklet, 3)),
        (0, deferred(Happened::Run, ItemKind::Softirq, 4)),
        (0, deferred(Happened::Run, ItemKind::Tasklet, 3)),
        (0, Event::Msi { address: 0xfee0_0000, data: 0x52 }),
        (0, Event::Posted { vcpu: 1, vector: 0x52, mode: DeliveryMode::Fixed, level: false }),
        (0, deferred(Happened::Done, ItemKind::Tasklet, 3)),
        (0, deferred(Happened::Done, ItemKind::Softirq, 4)),
        (0, deferred(Happened::Activated, ItemKind::Tasklet, 3)),
    ]);
    let [tasklet, softirq, pending] = &story.items[..] else { panic!("{:?}", story.items) };
    let [timer, msi] = &story.interrupts[..] else { panic!("{:?}", story.interrupts) };
    assert_eq!((tasklet.cause, softirq.cause), (Some(Activator::Interrupt(1)), Some(Activator::Interrupt(1))));
    assert_eq!(tasklet.activated.len(), 2, "the second activation has merged");
    assert_eq!((&tasklet.raised[..], msi.raised_by), (&[2][..], Some(1)));
    assert_eq!((timer.source, &timer.activated[..]), (Source::Timer, &[1, 2, 3][..]));
    assert!(tasklet.done.is_some() && softirq.done.is_some());
    assert!(pending.is_lost() && !tasklet.is_lost());
}

#[test]
fn registers_are_not_known_after_records_were_lost() {
    let (vcpu, vector) = (0, 0x41);
    let requested = Event::Requested { vcpu, vector, cause: Cause::Timer, apic: apic(&[vector], &[]) };
    let injected = Event::Injected { vcpu, vector, apic: apic(&[], &[vector]) };
    let story =
        story_of(&[(0, Event::Entered { vcpu }), (0, requested), (0, Event::Dropped { records: 3 }), (0, injected)]);
    let before: Vec<_> = story.interrupts[0].steps.iter().map(|step| step.before).collect();
    assert_eq!(before, [Some(apic(&[], &[])), None], "at first it is as after reset");
}
