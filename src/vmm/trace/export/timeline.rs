//! Tracks, slices and flows, before they have a format.

use std::collections::BTreeMap;

use crate::trace::event::{Apic, Event};
use crate::trace::explain::{item_name, source_name, what_name};
use crate::trace::{Activator, Deferred, Interrupt, Step, Story};

/// A row of a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Its number, from 1.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// Something that takes time, on a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The track's number.
    pub track: u64,
    /// In ns since the start of the trace.
    pub from: u64,
    /// More than `from`.
    pub to: u64,
    /// What it is.
    pub name: String,
    /// What a viewer shows when it is clicked on.
    pub details: Vec<(&'static str, String)>,
    /// The flows that go through it, by number.
    pub flows: Vec<u64>,
}

/// A whole trace.
#[derive(Debug, Default)]
pub struct Timeline {
    /// In the order in which they are to be shown.
    pub tracks: Vec<Track>,
    /// In the order of their beginnings; of two that begin together, the longer first.
    pub slices: Vec<Slice>,
}

/// Tracks that are no threads.
const IOAPIC: u64 = 1;
const PIC: u64 = 2;
const FIRST_THREAD: u64 = 3;
/// Flows of deferred items have this bit, those of interrupts have not.
const ITEM_FLOW: u64 = 1 << 32;

impl Timeline {
    /// The timeline of `story`.
    pub fn of(story: &Story) -> Self {
        let mut timeline = Self::default();
        let name = |thread: u16| story.threads.get(&thread).cloned().unwrap_or_else(|| format!("thread {thread}"));
        let mut threads: BTreeMap<u16, String> = story.threads.keys().map(|&thread| (thread, name(thread))).collect();
        for (&thread, vcpu) in &story.vcpus {
            threads.insert(thread, format!("vCPU {vcpu}"));
        }
        timeline.tracks.push(Track { id: IOAPIC, name: "I/O APIC".into() });
        timeline.tracks.push(Track { id: PIC, name: "8259A pair".into() });
        let thread_track = |(thread, name)| Track { id: thread_id(thread), name };
        timeline.tracks.extend(threads.into_iter().map(thread_track));
        for stay in &story.stays {
            let exit = vec![("exit", stay.exit.name().to_owned())];
            timeline.add(story, thread_id(stay.thread), (stay.from, stay.to), "guest".into(), exit, vec![]);
        }
        for item in &story.items {
            timeline.item(story, item);
        }
        for interrupt in &story.interrupts {
            timeline.interrupt(story, interrupt);
        }
        timeline.drop_loose_ends();
        timeline.slices.sort_by_key(|slice| (slice.track, slice.from, std::cmp::Reverse(slice.to)));
        timeline.nest();
        timeline.slices.sort_by_key(|slice| (slice.from, std::cmp::Reverse(slice.to)));
        timeline
    }

    fn item(&mut self, story: &Story, item: &Deferred) {
        let flow = ITEM_FLOW | item.id as u64;
        let name = item_name(item);
        let details = vec![("item", format!("d{}", item.id))];
        let mut from_there = Vec::new();
        if let Some(&(stamp, thread)) = item.activated.first()
            && item.run.is_some()
        {
            let cause = match item.cause {
                Some(Activator::Interrupt(id)) => vec![("handler of interrupt", id.to_string())],
                Some(Activator::Item(id)) => vec![("item", format!("d{id}"))],
                None => vec![],
            };
            self.add(story, thread_id(thread), (stamp, stamp + 1), format!("activate {name}"), cause, vec![flow]);
            from_there.push(flow);
        }
        if let Some((from, thread)) = item.run {
            let to = item.done.unwrap_or(story.finish);
            self.add(story, thread_id(thread), (from, to), name, details, from_there);
        }
    }

    fn interrupt(&mut self, story: &Story, interrupt: &Interrupt) {
        let flow = interrupt.id as u64;
        let what = what_name(interrupt);
        let details = || vec![("interrupt", flow.to_string()), ("from", source_name(interrupt.source))];
        let begins = |event: &Event| {
            matches!(event, Event::Injected { .. } | Event::ExtIntInjected { .. } | Event::NmiInjected { .. })
        };
        let injected = interrupt.steps.iter().find(|step| begins(&step.event));
        for step in &interrupt.steps {
            let moment = (step.stamp, step.stamp + 1);
            let (track, name) = match step.event {
                Event::Line { gsi, level: true } => (thread_id(step.thread), format!("line {gsi} rises")),
                Event::Msi { .. } => (thread_id(step.thread), format!("MSI {what}")),
                Event::Ipi { .. } => (thread_id(step.thread), format!("IPI {what}")),
                Event::PinSent { pin, .. } => (IOAPIC, format!("pin {pin} sends {what}")),
                Event::PinEnded { pin, .. } => (IOAPIC, format!("pin {pin} ends")),
                Event::PicAcknowledged { input, .. } => (PIC, format!("IRQ {input} acknowledged")),
                Event::Kicked { vcpu, .. } => (thread_id(step.thread), format!("kick vCPU {vcpu}")),
                Event::Marked { .. } => (thread_id(step.thread), "handler entered".into()),
                _ => continue,
            };
            let before = injected.is_some_and(|injected| step.stamp < injected.stamp);
            self.add(story, track, moment, name, details(), if before { vec![flow] } else { vec![] });
        }
        if let Some(injected) = injected {
            let ends = |step: &&Step| matches!(step.event, Event::Ended { .. } | Event::PicEnded { .. });
            let to = match interrupt.steps.iter().find(ends) {
                Some(step) => step.stamp,
                None if interrupt.nmi => injected.stamp + 1,
                None => story.finish,
            };
            let mut details = details();
            if let Event::Injected { apic: Apic { tpr, ppr, .. }, .. } = injected.event {
                details.extend([("TPR", format!("{tpr:#04x}")), ("PPR", format!("{ppr:#04x}"))]);
            }
            self.add(story, thread_id(injected.thread), (injected.stamp, to), what, details, vec![flow]);
        }
    }

    fn add(
        &mut self,
        story: &Story,
        track: u64,
        (from, to): (u64, u64),
        name: String,
        details: Vec<(&'static str, String)>,
        flows: Vec<u64>,
    ) {
        let since = |stamp: u64| stamp.saturating_sub(story.start);
        let from = since(from);
        self.slices.push(Slice { track, from, to: since(to).max(from + 1), name, details, flows });
    }

    /// A flow that goes through one slice only leads nowhere.
    fn drop_loose_ends(&mut self) {
        let mut slices: BTreeMap<u64, usize> = BTreeMap::new();
        self.slices.iter().flat_map(|slice| &slice.flows).for_each(|&flow| *slices.entry(flow).or_default() += 1);
        self.slices.iter_mut().for_each(|slice| slice.flows.retain(|flow| slices[flow] > 1));
    }

    /// Has slices of a track end with those that they begin in: an EOI may be that of an outer interrupt (and chips are
    /// looked at by several threads). Of several steps of one chip at the same time only one is shown.
    fn nest(&mut self) {
        let mut open: Vec<u64> = Vec::new();
        let mut last: Option<(u64, u64, u64, String)> = None;
        self.slices.retain_mut(|slice| {
            if last.as_ref().is_none_or(|(track, ..)| *track != slice.track) {
                open.clear();
            }
            while open.last().is_some_and(|&end| end <= slice.from) {
                open.pop();
            }
            if let Some(&end) = open.last() {
                slice.to = slice.to.min(end);
            }
            let this = (slice.track, slice.from, slice.to, slice.name.clone());
            let again = last.as_ref() == Some(&this) && slice.flows.is_empty();
            last = Some(this);
            if !again {
                open.push(slice.to);
            }
            !again
        });
    }
}

fn thread_id(thread: u16) -> u64 {
    FIRST_THREAD + u64::from(thread)
}
