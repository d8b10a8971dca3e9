//! From records to stories: which of them belong to one interrupt, or to one deferred item.
//!
//! Nothing travels with an interrupt that would tell it from others. What joins its records is what joins them in the machine:
//!
//! - on one thread, what follows the message that was sent is its posts;
//! - what comes into a vCPU's IRR with a vector is what was posted to it with that vector; several posts that come in as one have
//!   merged;
//! - what goes from IRR into ISR, and out of ISR, has that vector.
//!
//! A post is dated just before it is made, so that it is never dated after the owner has taken it. So one that was dated early
//! and made late may seem to have merged; when a request comes with no post before it, that one is taken back.

mod deferred;
mod interrupts;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::Recording;
use super::event::{Apic, Event};
use bottom_half::{ItemKind, Vector};
use deferred::Items;
use interrupts::Interrupts;

/// Where an interrupt came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// A wire.
    Line(u8),
    /// A wire, through this pin of the I/O APIC.
    Pin(u8),
    /// A wire, through this input of the 8259A pair.
    Pic(u8),
    /// A device's message.
    Msi,
    /// Another vCPU, or the same one.
    Ipi(u32),
    /// The vCPU's own timer.
    Timer,
    /// The vCPU's own local vector table.
    Local,
    /// The trace does not say: the user, or records are lost.
    #[default]
    Unknown,
}

/// How far an interrupt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// A wire is asserted, and no controller has sent anything for it.
    #[default]
    Asserted,
    /// The wire fell before a controller had sent anything for it.
    Withdrawn,
    /// Nobody has accepted the message.
    Refused,
    /// KVM has it: the trace ends here.
    InKvm,
    /// In the mailbox of its vCPU.
    Posted,
    /// In IRR.
    Requested,
    /// In service.
    InService,
    /// Ended; or given to the processor, if there is no EOI.
    Done,
    /// It became one with this one, which was waiting already.
    Merged(usize),
    /// Taken out of IRR or ISR by INIT, or by switching the local APIC off.
    Cleared,
}

/// One event in an interrupt's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When, as in the records.
    pub stamp: u64,
    /// On which thread.
    pub thread: u16,
    /// What.
    pub event: Event,
    /// The registers of its local APIC before it, if the event shows those after it and they are known.
    pub before: Option<Apic>,
}

/// One interrupt's life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interrupt {
    /// Its number, from 1.
    pub id: usize,
    /// Whence.
    pub source: Source,
    /// Whither, if it came so far.
    pub vcpu: Option<u32>,
    /// Its vector, if it has one.
    pub vector: Option<u8>,
    /// It is level-triggered.
    pub level: bool,
    /// An NMI.
    pub nmi: bool,
    /// Its events, in order.
    pub steps: Vec<Step>,
    /// How far it has come.
    pub end: End,
    /// The deferred item that raised it, by number.
    pub raised_by: Option<usize>,
    /// The deferred items that its handler has activated.
    pub activated: Vec<usize>,
}

/// What has activated an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activator {
    /// The handler of this interrupt, by an exit.
    Interrupt(usize),
    /// Another item.
    Item(usize),
}

/// One activation of a deferred item, up to its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// Its number, from 1.
    pub id: usize,
    /// What it is.
    pub kind: ItemKind,
    /// Tells it from others of its kind.
    pub key: u64,
    /// The vector that it is or runs from.
    pub vector: Option<Vector>,
    /// Its CPU, if it has one.
    pub cpu: Option<u32>,
    /// Its queue, if it has one.
    pub queue: String,
    /// When and on which thread it was activated; each time, if that merged.
    pub activated: Vec<(u64, u16)>,
    /// By whom, the first time.
    pub cause: Option<Activator>,
    /// When and on which thread its run began.
    pub run: Option<(u64, u16)>,
    /// When it ended.
    pub done: Option<u64>,
    /// It was cancelled before it ran.
    pub cancelled: bool,
    /// The interrupts that its run has raised.
    pub raised: Vec<usize>,
}

/// A stay in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// Whose.
    pub vcpu: u32,
    /// On its thread.
    pub thread: u16,
    /// From when.
    pub from: u64,
    /// Until when.
    pub to: u64,
    /// Why it ended.
    pub exit: crate::vcpu::ExitKind,
}

/// All that a trace tells.
#[derive(Debug, Default)]
pub struct Story {
    /// In the order of their first steps; number 1 is the first.
    pub interrupts: Vec<Interrupt>,
    /// In the order of their activations; number 1 is the first.
    pub items: Vec<Deferred>,
    /// Stays in the guest.
    pub stays: Vec<Stay>,
    /// The threads' names.
    pub threads: HashMap<u16, String>,
    /// Which thread is a vCPU's.
    pub vcpus: HashMap<u16, u32>,
    /// Who had the controllers.
    pub mode: &'static str,
    /// The time that others are counted from.
    pub start: u64,
    /// Of the last record.
    pub finish: u64,
    /// Records that were lost.
    pub lost: u64,
    /// The error that ended the trace early.
    pub ended_early: Option<String>,
}

impl Story {
    /// Joins the records.
    pub fn of(recording: &Recording) -> Self {
        let mut story = Self {
            start: recording.start,
            finish: recording.records.last().map_or(recording.start, |record| record.stamp),
            lost: recording.lost,
            ended_early: recording.ended_early.clone(),
            mode: super::event::MODES[0],
            ..Self::default()
        };
        let (mut interrupts, mut items) = (Interrupts::default(), Items::default());
        let mut entered: HashMap<u32, u64> = HashMap::new();
        for record in &recording.records {
            match record.event {
                Event::Thread { name } => {
                    let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
                    story.threads.insert(record.thread, name);
                }
                Event::Machine { mode, .. } => {
                    story.mode = super::event::MODES[usize::from(mode).min(2)];
                    interrupts.new_machine();
                }
                Event::Entered { vcpu } => {
                    story.vcpus.insert(record.thread, vcpu);
                    entered.insert(vcpu, record.stamp);
                }
                Event::Left { vcpu, exit } => {
                    if let Some(from) = entered.remove(&vcpu) {
                        story.stays.push(Stay { vcpu, thread: record.thread, from, to: record.stamp, exit });
                    }
                }
                _ => {}
            }
            let in_handler = story.vcpus.get(&record.thread).and_then(|&vcpu| interrupts.in_service(vcpu));
            items.take(record, in_handler, &mut interrupts);
            let vcpu = story.vcpus.get(&record.thread).copied();
            interrupts.take(record, vcpu, items.running(record.thread));
        }
        story.items = items.all;
        story.interrupts = interrupts.all;
        story.number();
        story
    }

    /// The deferred item with this number.
    pub fn item(&self, id: usize) -> Option<&Deferred> {
        self.items.get(id.checked_sub(1)?)
    }

    /// The interrupt with this number.
    pub fn interrupt(&self, id: usize) -> Option<&Interrupt> {
        self.interrupts.get(id.checked_sub(1)?)
    }

    /// Replaces the numbers that joining used (by place, from 0) by those in order of time (from 1), and makes the links that
    /// lead back.
    fn number(&mut self) {
        let first = |interrupt: &Interrupt| interrupt.steps.first().map_or(u64::MAX, |step| step.stamp);
        let mut order: Vec<usize> = (0..self.interrupts.len()).collect();
        order.sort_by_key(|&at| first(&self.interrupts[at]));
        let mut id = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, &at)| id[at] = rank + 1);
        let mut sorted: Vec<_> = order.iter().map(|&at| std::mem::take(&mut self.interrupts[at])).collect();
        for (rank, interrupt) in sorted.iter_mut().enumerate() {
            interrupt.id = rank + 1;
            if let End::Merged(into) = &mut interrupt.end {
                *into = id[*into];
            }
            interrupt.raised_by = interrupt.raised_by.map(|item| item + 1);
        }
        self.interrupts = sorted;
        for (at, item) in self.items.iter_mut().enumerate() {
            item.id = at + 1;
            item.cause = match item.cause {
                Some(Activator::Interrupt(by)) => {
                    self.interrupts[id[by] - 1].activated.push(item.id);
                    Some(Activator::Interrupt(id[by]))
                }
                Some(Activator::Item(by)) => Some(Activator::Item(by + 1)),
                None => None,
            };
        }
        for interrupt in &self.interrupts {
            if let Some(item) = interrupt.raised_by {
                self.items[item - 1].raised.push(interrupt.id);
            }
        }
    }
}
