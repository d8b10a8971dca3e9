//! Interrupts: from the assertion to the EOI.

use std::collections::HashMap;

use x86::apic::DeliveryMode;

use super::{End, Interrupt, Source, Step};
use crate::trace::event::{Apic, Cause, Eoi, Event, Record};

/// What waits at a vCPU: a vector, or one of the messages without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Vector(u8),
    Mode(DeliveryMode),
}

/// What a thread has sent last: where its next posts come from.
#[derive(Debug, Clone, Copy)]
struct Sent {
    source: Source,
    /// The assertion of its wire, in `all`.
    assertion: Option<usize>,
    step: Step,
    raised_by: Option<usize>,
}

/// The interrupts while they are joined; numbers are places here.
#[derive(Default)]
pub struct Interrupts {
    pub all: Vec<Interrupt>,
    /// By wire, while it is up: the assertion, and whether a controller has sent something for it.
    asserted: HashMap<u8, (usize, bool)>,
    /// By thread.
    sent: HashMap<u16, Sent>,
    /// Posted, and not in IRR, oldest first.
    posted: HashMap<(u32, Key), Vec<usize>>,
    /// In IRR.
    requested: HashMap<(u32, u8), usize>,
    /// What has last come into IRR: some that seemed to merge with it may not have.
    last: HashMap<(u32, Key), usize>,
    /// In service, by vCPU, innermost last.
    service: HashMap<u32, Vec<usize>>,
    /// The local APICs as last seen; none where records are lost since. One that was never seen is as after reset.
    apics: HashMap<u32, Option<Apic>>,
    /// Acknowledged at the 8259A pair, not yet injected, by thread; and in service there, by input.
    acknowledged: HashMap<u16, usize>,
    pic_service: HashMap<u8, usize>,
    /// By thread, the interrupt whose EOI was last, for what the I/O APIC does about it.
    ended: HashMap<u16, usize>,
}

impl Interrupts {
    /// After a reset: nothing of before comes any more.
    pub fn new_machine(&mut self) {
        *self = Self { all: std::mem::take(&mut self.all), ..Self::default() };
    }

    /// The interrupt in whose handler the guest of this vCPU is.
    pub fn in_service(&self, vcpu: u32) -> Option<usize> {
        self.service.get(&vcpu).and_then(|stack| stack.last().copied())
    }

    /// What this thread does from now on has nothing to do with what it sent before.
    pub fn forget_source(&mut self, thread: u16) {
        self.sent.remove(&thread);
    }

    /// The next record; `own` is the vCPU of its thread, and `running` the deferred item that runs there.
    pub fn take(&mut self, record: &Record, own: Option<u32>, running: Option<usize>) {
        let mut step = Step { stamp: record.stamp, thread: record.thread, event: record.event, before: None };
        match record.event {
            Event::Line { gsi, level: true } => {
                let first = Interrupt { source: Source::Line(gsi), raised_by: running, ..Interrupt::default() };
                let assertion = self.add(first, step);
                self.asserted.insert(gsi, (assertion, false));
            }
            Event::Line { gsi, level: false } => {
                if let Some((assertion, sent)) = self.asserted.remove(&gsi)
                    && !sent
                {
                    self.all[assertion].steps.push(step);
                    self.all[assertion].end = End::Withdrawn;
                }
            }
            Event::PicRequested { input } | Event::PicWithdrawn { input } => self.on_assertion(gsi_of(input), step),
            Event::PicAcknowledged { input, vector } => self.acknowledge_pic(input, vector, step),
            Event::PicEnded { input } => {
                if let Some(at) = self.pic_service.remove(&input) {
                    self.all[at].steps.push(step);
                    self.end(at, own, End::Done);
                }
            }
            Event::PinSent { pin, .. } => {
                let assertion = self.asserted.get(&pin).map(|&(at, _)| at);
                self.sent.insert(record.thread, Sent { source: Source::Pin(pin), assertion, step, raised_by: running });
            }
            Event::PinRefused { pin, .. } => self.on_assertion(pin, step),
            Event::PinEnded { .. } => {
                if let Some(&at) = self.ended.get(&record.thread) {
                    self.all[at].steps.push(step);
                }
            }
            Event::Msi { .. } => self.sends(Source::Msi, step, running),
            Event::Ipi { from, .. } => self.sends(Source::Ipi(from), step, running),
            Event::MsiRefused => {
                if let Some(sent) = self.sent.remove(&record.thread) {
                    let refused = Interrupt { source: sent.source, raised_by: sent.raised_by, ..Interrupt::default() };
                    let at = self.add(refused, sent.step);
                    self.all[at].steps.push(step);
                    self.all[at].end = End::Refused;
                }
            }
            Event::InKvm { vector } => {
                let at = self.sent_by(record.thread);
                self.all[at].steps.push(step);
                (self.all[at].vector, self.all[at].end) = (Some(vector), End::InKvm);
            }
            Event::Posted { mode: DeliveryMode::ExtInt, .. } => {}
            Event::Posted { vcpu, vector, mode, level } => {
                let at = self.sent_by(record.thread);
                let key = key(mode, vector);
                let interrupt = &mut self.all[at];
                interrupt.steps.push(step);
                (interrupt.vcpu, interrupt.level, interrupt.end) = (Some(vcpu), level, End::Posted);
                interrupt.vector = matches!(key, Key::Vector(_)).then_some(vector);
                interrupt.nmi = mode == DeliveryMode::Nmi;
                self.posted.entry((vcpu, key)).or_default().push(at);
            }
            Event::Kicked { vcpu, .. } => self.on_posted(vcpu, step, |event| matches!(event, Event::Kicked { .. })),
            Event::Left { vcpu, .. } | Event::Woke { vcpu } => {
                self.on_posted(vcpu, step, |event| matches!(event, Event::Left { .. } | Event::Woke { .. }));
            }
            Event::Collected { vcpu } => self.settle(vcpu, |_| true),
            Event::Entered { vcpu } => {
                // What a vCPU sends itself is in IRR at once.
                self.settle(vcpu, |post| post.thread == record.thread);
                self.ended.remove(&record.thread);
            }
            Event::Taken { vcpu, mode } => self.take_message(vcpu, Key::Mode(mode), step),
            Event::NmiInjected { vcpu } => self.take_message(vcpu, Key::Mode(DeliveryMode::Nmi), step),
            Event::Requested { vcpu, vector, cause, apic } => {
                step.before = self.see(vcpu, apic);
                self.request(vcpu, vector, cause, step);
            }
            Event::Injected { vcpu, vector, apic } => {
                step.before = self.see(vcpu, apic);
                let at = self.requested.remove(&(vcpu, vector)).unwrap_or_else(|| self.stranger(vcpu, vector));
                self.inject(at, vcpu, step);
            }
            Event::ExtIntInjected { vcpu, vector } => {
                let at = self.acknowledged.remove(&record.thread).unwrap_or_else(|| self.stranger(vcpu, vector));
                self.all[at].vcpu = Some(vcpu);
                let automatic_eoi = self.all[at].end == End::Done;
                self.inject(at, vcpu, step);
                if automatic_eoi {
                    self.end(at, Some(vcpu), End::Done);
                }
            }
            Event::Marked { vector } => {
                let stack = own.and_then(|vcpu| self.service.get(&vcpu));
                let at = stack.and_then(|stack| stack.iter().rev().find(|&&at| self.all[at].vector == Some(vector)));
                if let Some(&at) = at {
                    self.all[at].steps.push(step);
                }
            }
            Event::Ended { vcpu, vector, how, apic } => {
                step.before = self.see(vcpu, apic);
                let stack = self.service.entry(vcpu).or_default();
                if let Some(at) = stack.iter().rev().copied().find(|&at| self.all[at].vector == Some(vector)) {
                    self.all[at].steps.push(step);
                    self.end(at, Some(vcpu), if how == Eoi::Cleared { End::Cleared } else { End::Done });
                    self.ended.insert(record.thread, at);
                }
            }
            Event::Cleared { vcpu, vector, apic } => {
                step.before = self.see(vcpu, apic);
                if let Some(at) = self.requested.remove(&(vcpu, vector)) {
                    self.all[at].steps.push(step);
                    self.all[at].end = End::Cleared;
                }
            }
            Event::Priority { vcpu, apic } => {
                step.before = self.see(vcpu, apic);
                let waits = self.requested.iter().filter(|((of, _), _)| *of == vcpu).map(|(_, &at)| at);
                waits.collect::<Vec<_>>().into_iter().for_each(|at| self.all[at].steps.push(step));
            }
            Event::Dropped { .. } => {
                if let Some(vcpu) = own {
                    self.apics.insert(vcpu, None);
                }
            }
            // A stay is two records by now.
            Event::Thread { .. }
            | Event::Machine { .. }
            | Event::Slept { .. }
            | Event::Stayed { .. }
            | Event::Deferred { .. } => {}
        }
    }

    /// The registers of a local APIC are these now; gives those before.
    fn see(&mut self, vcpu: u32, apic: Apic) -> Option<Apic> {
        self.apics.insert(vcpu, Some(apic)).unwrap_or(Some(Apic::default()))
    }

    fn add(&mut self, interrupt: Interrupt, step: Step) -> usize {
        self.all.push(Interrupt { steps: vec![step], ..interrupt });
        self.all.len() - 1
    }

    /// An interrupt whose beginning the trace does not have.
    fn stranger(&mut self, vcpu: u32, vector: u8) -> usize {
        self.all.push(Interrupt { vcpu: Some(vcpu), vector: Some(vector), ..Interrupt::default() });
        self.all.len() - 1
    }

    fn sends(&mut self, source: Source, step: Step, raised_by: Option<usize>) {
        self.sent.insert(step.thread, Sent { source, assertion: None, step, raised_by });
    }

    /// The interrupt that this thread posts: the assertion itself for the first post of a wire, else a new one.
    fn sent_by(&mut self, thread: u16) -> usize {
        let Some(sent) = self.sent.get(&thread).copied() else {
            self.all.push(Interrupt::default());
            return self.all.len() - 1;
        };
        let Some(assertion) = sent.assertion else {
            return self
                .add(Interrupt { source: sent.source, raised_by: sent.raised_by, ..Interrupt::default() }, sent.step);
        };
        let first = self.all[assertion].end == End::Asserted;
        if let Source::Pin(pin) = sent.source
            && let Some((_, is_sent)) = self.asserted.get_mut(&pin)
        {
            *is_sent = true;
        }
        if first {
            let interrupt = &mut self.all[assertion];
            interrupt.source = sent.source;
            interrupt.steps.push(sent.step);
            return assertion;
        }
        // The wire is still up, or the message has several targets.
        let (raised_by, rise) = (self.all[assertion].raised_by, self.all[assertion].steps.first().copied());
        let at = self.add(Interrupt { source: sent.source, raised_by, ..Interrupt::default() }, sent.step);
        let sent_to_many = rise.is_some_and(|rise| rise.thread == thread && self.all[assertion].end == End::Posted);
        if sent_to_many && let Some(rise) = rise {
            self.all[at].steps.insert(0, rise);
        }
        at
    }

    fn on_assertion(&mut self, gsi: u8, step: Step) {
        if let Some(&(at, false)) = self.asserted.get(&gsi) {
            self.all[at].steps.push(step);
        }
    }

    /// A step of all that waits in a vCPU's mailbox, and has none of its kind.
    fn on_posted(&mut self, vcpu: u32, step: Step, is_one: impl Fn(&Event) -> bool) {
        for ((of, _), waiting) in &self.posted {
            for &at in waiting.iter().filter(|_| *of == vcpu) {
                let steps = &mut self.all[at].steps;
                if !steps.iter().any(|old| is_one(&old.event)) {
                    steps.push(step);
                }
            }
        }
    }

    /// Posts of these that found their vector in IRR have merged with what is there.
    fn settle(&mut self, vcpu: u32, which: impl Fn(&Step) -> bool) {
        for (&(of, key), waiting) in &mut self.posted {
            let Key::Vector(vector) = key else { continue };
            let Some(&into) = self.requested.get(&(of, vector)).filter(|_| of == vcpu) else { continue };
            waiting.retain(|&at| {
                let merges = post_of(&self.all[at]).is_some_and(&which);
                if merges {
                    self.all[at].end = End::Merged(into);
                }
                !merges
            });
        }
    }

    fn request(&mut self, vcpu: u32, vector: u8, cause: Cause, step: Step) {
        let key = Key::Vector(vector);
        let mut waiting = self.posted.remove(&(vcpu, key)).unwrap_or_default().into_iter();
        let at = match waiting.next() {
            Some(at) => at,
            None if matches!(cause, Cause::Timer | Cause::Register) => {
                let source = if cause == Cause::Timer { Source::Timer } else { Source::Local };
                self.all.push(Interrupt { source, vcpu: Some(vcpu), vector: Some(vector), ..Interrupt::default() });
                self.all.len() - 1
            }
            None => self.take_back(vcpu, key).unwrap_or_else(|| self.stranger(vcpu, vector)),
        };
        waiting.for_each(|other| self.all[other].end = End::Merged(at));
        self.all[at].steps.push(step);
        self.all[at].end = End::Requested;
        self.requested.insert((vcpu, vector), at);
        self.last.insert((vcpu, key), at);
    }

    /// The last post that seemed to merge with the request before.
    fn take_back(&mut self, vcpu: u32, key: Key) -> Option<usize> {
        let into = *self.last.get(&(vcpu, key))?;
        let merged = |interrupt: &Interrupt| interrupt.end == End::Merged(into);
        // Not far: it was posted at about the time of that request.
        self.all.iter().rposition(merged)
    }

    /// NMI, INIT, start-up: all that wait become one, and are done.
    fn take_message(&mut self, vcpu: u32, key: Key, step: Step) {
        let injected = matches!(step.event, Event::NmiInjected { .. });
        let mut waiting = self.posted.remove(&(vcpu, key)).unwrap_or_default().into_iter();
        let at = match waiting.next() {
            Some(at) => at,
            None if !injected => return,
            None => match self.take_back(vcpu, key) {
                Some(at) => at,
                None => {
                    self.all.push(Interrupt { vcpu: Some(vcpu), nmi: true, ..Interrupt::default() });
                    self.all.len() - 1
                }
            },
        };
        waiting.for_each(|other| self.all[other].end = End::Merged(at));
        self.all[at].steps.push(step);
        self.all[at].end = End::Done;
        self.last.insert((vcpu, key), at);
    }

    fn acknowledge_pic(&mut self, input: u8, vector: u8, step: Step) {
        let gsi = gsi_of(input);
        let at = match self.asserted.get_mut(&gsi) {
            Some((at, sent)) if !*sent => {
                *sent = true;
                *at
            }
            _ => {
                self.all.push(Interrupt::default());
                self.all.len() - 1
            }
        };
        let interrupt = &mut self.all[at];
        interrupt.steps.push(step);
        (interrupt.source, interrupt.vector, interrupt.end) = (Source::Pic(input), Some(vector), End::Requested);
        self.acknowledged.insert(step.thread, at);
        self.pic_service.insert(input, at);
    }

    fn inject(&mut self, at: usize, vcpu: u32, step: Step) {
        self.all[at].steps.push(step);
        self.all[at].end = End::InService;
        self.service.entry(vcpu).or_default().push(at);
    }

    fn end(&mut self, at: usize, vcpu: Option<u32>, end: End) {
        self.all[at].end = end;
        let stack = vcpu.or(self.all[at].vcpu).and_then(|vcpu| self.service.get_mut(&vcpu));
        if let Some(stack) = stack {
            stack.retain(|&other| other != at);
        }
    }
}

fn key(mode: DeliveryMode, vector: u8) -> Key {
    match mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => Key::Vector(vector),
        mode => Key::Mode(mode),
    }
}

/// The wire behind an input of the 8259A pair.
fn gsi_of(input: u8) -> u8 {
    x86::platform::isa_irq_to_gsi(input).unwrap_or(input)
}

fn post_of(interrupt: &Interrupt) -> Option<&Step> {
    interrupt.steps.iter().find(|step| matches!(step.event, Event::Posted { .. }))
}
