//! A trace in words.

mod words;

use std::collections::BTreeMap;
use std::fmt::Write;

use bottom_half::ItemKind;

use super::event::Event;
use super::{Activator, Deferred, End, Interrupt, Source, Step, Story};
use words::{apic, step_words};
pub use words::{item_name, source_name, what_name};

/// What to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// How many there were of what, and how long they took.
    Summary,
    /// The life of the interrupt with this number.
    Interrupt(usize),
    /// The life of the deferred item with this number.
    Item(usize),
    /// The lives of so many interrupts that took longest from their first event to injection.
    Slowest(usize),
    /// The lives of those that did not come to their end.
    Lost,
}

/// Answers `question`.
///
/// # Errors
///
/// One line: there is no interrupt or item with that number.
pub fn explain(story: &Story, question: Question) -> Result<String, String> {
    let mut out = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = notes(&mut out, story);
    match question {
        Question::Summary => summary(&mut out, story),
        Question::Lost => lost(&mut out, story),
        _ => {}
    }
    lives(story, question)?.iter().for_each(|life| tell(&mut out, life));
    Ok(out)
}

impl Interrupt {
    /// From its first event to its injection, in ns.
    pub fn latency(&self) -> Option<u64> {
        let first = self.steps.first()?;
        let is_injection = |event: &Event| {
            matches!(event, Event::Injected { .. } | Event::ExtIntInjected { .. } | Event::NmiInjected { .. })
        };
        let injected = self.steps.iter().find(|step| is_injection(&step.event))?;
        Some(injected.stamp - first.stamp)
    }
}

fn no_such(what: &str, id: usize, count: usize) -> String {
    format!("there is no {what} {id} in this trace; give --id 1 to {count}, with a d before it for a deferred item")
}

/// What a reader has to know of any answer.
fn notes(out: &mut String, story: &Story) -> std::fmt::Result {
    if story.lost > 0 {
        writeln!(out, "note: {} records were lost for want of room; lives may have gaps", story.lost)?;
    }
    if let Some(why) = &story.ended_early {
        writeln!(out, "note: the trace ended before the machine did: {why}")?;
    }
    if story.mode != "user" {
        writeln!(out, "note: in mode {} the way goes on in KVM, which is not seen", story.mode)?;
    }
    Ok(())
}

fn summary(out: &mut String, story: &Story) {
    let span = (story.finish - story.start.min(story.finish)) as f64 / 1e9;
    let merged = story.interrupts.iter().filter(|i| matches!(i.end, End::Merged(_))).count();
    let done = story.interrupts.iter().filter(|i| i.end == End::Done).count();
    let _ = writeln!(
        out,
        "{} interrupts in {span:.3} s, mode {}: {done} ended, {merged} merged, {} not ended (--lost tells of them); \
         {} deferred items",
        story.interrupts.len(),
        story.mode,
        story.interrupts.iter().filter(|i| i.is_lost()).count(),
        story.items.len()
    );
    let mut rows: BTreeMap<(String, String), (usize, Vec<u64>)> = BTreeMap::new();
    for interrupt in &story.interrupts {
        let row = rows.entry((source_name(interrupt.source), what_name(interrupt))).or_default();
        row.0 += 1;
        row.1.extend(interrupt.latency());
    }
    if !rows.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<24} {:<12} {:>8} {:>12} {:>12} {:>12}",
            "FROM", "WHAT", "COUNT", "P50(us)", "P99(us)", "MAX(us)"
        );
    }
    for ((from, what), (count, mut times)) in rows {
        times.sort_unstable();
        let at = |share: f64| match times.len() {
            0 => "-".to_owned(),
            n => micros(times[((n - 1) as f64 * share).round() as usize]),
        };
        let _ = writeln!(out, "{from:<24} {what:<12} {count:>8} {:>12} {:>12} {:>12}", at(0.5), at(0.99), at(1.0));
    }
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for item in &story.items {
        let kind = kinds.entry(item_name(item)).or_default();
        kind.0 += item.activated.len();
        kind.1 += usize::from(item.run.is_some());
    }
    if !kinds.is_empty() {
        let _ = writeln!(out, "\n{:<37} {:>10} {:>10}", "DEFERRED", "ACTIVATED", "RUN");
    }
    for (name, (activated, run)) in kinds {
        let _ = writeln!(out, "{name:<37} {activated:>10} {run:>10}");
    }
}

fn lost(out: &mut String, story: &Story) {
    let lost = story.interrupts.iter().filter(|interrupt| interrupt.is_lost()).count();
    let items = story.items.iter().filter(|item| item.is_lost()).count();
    let _ = writeln!(out, "{lost} interrupts and {items} deferred items did not come to their end");
}

impl Interrupt {
    /// It has not ended, and became part of no other that might have.
    pub fn is_lost(&self) -> bool {
        !matches!(self.end, End::Done | End::Merged(_) | End::InKvm)
    }
}

impl Deferred {
    /// It was activated, and has not run to its end. A timer that waits is not lost.
    pub fn is_lost(&self) -> bool {
        !self.cancelled && self.done.is_none() && self.kind != ItemKind::Timer
    }
}

/// The life of an interrupt or a deferred item, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// What it is and when it began.
    pub title: String,
    /// By whom it was brought about, if that is known.
    pub cause: Option<String>,
    /// Its steps, in order.
    pub moments: Vec<Moment>,
    /// How it ended, and what came of it.
    pub end: Vec<String>,
}

/// A step of a life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since the first one.
    pub after: u64,
    /// On which thread.
    pub thread: String,
    /// What happened.
    pub words: String,
    /// The local APIC's registers before and after it, where it changes them.
    pub registers: Option<(String, String)>,
}

/// The lives that `question` is about; none for the summary.
///
/// # Errors
///
/// One line: there is no interrupt or item with that number.
pub fn lives(story: &Story, question: Question) -> Result<Vec<Life>, String> {
    let interrupts = || story.interrupts.iter();
    Ok(match question {
        Question::Summary => Vec::new(),
        Question::Interrupt(id) => match story.interrupt(id) {
            Some(interrupt) => vec![of_interrupt(story, interrupt)],
            None => return Err(no_such("interrupt", id, story.interrupts.len())),
        },
        Question::Item(id) => match story.item(id) {
            Some(item) => vec![of_item(story, item)],
            None => return Err(no_such("deferred item", id, story.items.len())),
        },
        Question::Slowest(count) => {
            let mut timed: Vec<_> = interrupts().filter_map(|i| Some((i.latency()?, i))).collect();
            timed.sort_by_key(|(latency, interrupt)| (std::cmp::Reverse(*latency), interrupt.id));
            timed.iter().take(count).map(|(_, interrupt)| of_interrupt(story, interrupt)).collect()
        }
        Question::Lost => {
            let lost = interrupts().filter(|interrupt| interrupt.is_lost()).map(|lost| of_interrupt(story, lost));
            lost.chain(story.items.iter().filter(|item| item.is_lost()).map(|lost| of_item(story, lost))).collect()
        }
    })
}

fn tell(out: &mut String, life: &Life) {
    let _ = writeln!(out, "\n{}", life.title);
    if let Some(cause) = &life.cause {
        let _ = writeln!(out, "  {cause}");
    }
    for Moment { after, thread, words, registers } in &life.moments {
        let _ = writeln!(out, "  {:>12} us  {thread:<12} {words}", micros(*after));
        if let Some((before, now)) = registers {
            let _ = writeln!(out, "{:30} before: {before}\n{:30} after:  {now}", "", "");
        }
    }
    life.end.iter().for_each(|end| _ = writeln!(out, "  {end}"));
}

fn of_interrupt(story: &Story, interrupt: &Interrupt) -> Life {
    let first = interrupt.steps.first().map_or(story.start, |step| step.stamp);
    let target = interrupt.vcpu.map_or(String::new(), |vcpu| format!(" for vCPU {vcpu}"));
    let trigger = if interrupt.level { ", level" } else { "" };
    let moment = |step: &Step| Moment {
        after: step.stamp - first,
        thread: thread(story, step.thread),
        words: step_words(&step.event),
        registers: registers(&step.event)
            .map(|now| (step.before.map_or("not known".to_owned(), |before| apic(&before)), apic(now))),
    };
    let mut end = vec![end_words(story, interrupt)];
    if !interrupt.activated.is_empty() {
        let items: Vec<_> = interrupt.activated.iter().map(|id| format!("d{id}")).collect();
        end.push(format!("its handler has activated {}", items.join(", ")));
    }
    let raiser = interrupt.raised_by.and_then(|id| Some((id, story.item(id)?)));
    Life {
        title: format!(
            "interrupt {}: {}{target} from {}{trigger}, at {} s",
            interrupt.id,
            what_name(interrupt),
            source_name(interrupt.source),
            seconds(first, story)
        ),
        cause: raiser.map(|(id, item)| format!("raised by d{id}, {}", item_name(item))),
        moments: interrupt.steps.iter().map(moment).collect(),
        end,
    }
}

fn of_item(story: &Story, item: &Deferred) -> Life {
    let first = item.activated.first().copied().or(item.run);
    let (first, by) = first.unwrap_or((story.start, u16::MAX));
    let moment = |stamp: u64, on: u16, words: &str| Moment {
        after: stamp.saturating_sub(first),
        thread: thread(story, on),
        words: words.to_owned(),
        registers: None,
    };
    let activations = item.activated.iter().enumerate();
    let mut moments: Vec<_> = activations
        .map(|(nth, &(stamp, on))| moment(stamp, on, if nth > 0 { "activated, merged" } else { "activated" }))
        .collect();
    moments.extend(item.run.map(|(stamp, on)| moment(stamp, on, "runs")));
    moments.extend(item.done.map(|stamp| moment(stamp, item.run.map_or(by, |(_, on)| on), "done")));
    let end = match (item.run, item.done) {
        _ if item.cancelled => "it was cancelled before it ran".to_owned(),
        (None, _) => "it has not run".to_owned(),
        (Some(_), None) => "its run has not ended".to_owned(),
        (Some(_), Some(_)) if item.raised.is_empty() => "it has raised no interrupt".to_owned(),
        (Some(_), Some(_)) => {
            let raised: Vec<_> = item.raised.iter().map(ToString::to_string).collect();
            format!("it has raised interrupt {}", raised.join(", "))
        }
    };
    Life {
        title: format!("deferred item d{}: {}, at {} s", item.id, item_name(item), seconds(first, story)),
        cause: item.cause.map(|cause| match cause {
            Activator::Interrupt(id) => format!("activated by the handler of interrupt {id}"),
            Activator::Item(id) => {
                format!("activated by d{id}, {}", story.item(id).map(item_name).unwrap_or_default())
            }
        }),
        moments,
        end: vec![end],
    }
}

fn registers(event: &Event) -> Option<&super::event::Apic> {
    match event {
        Event::Requested { apic, .. }
        | Event::Injected { apic, .. }
        | Event::Ended { apic, .. }
        | Event::Cleared { apic, .. }
        | Event::Priority { apic, .. } => Some(apic),
        _ => None,
    }
}

fn end_words(story: &Story, interrupt: &Interrupt) -> String {
    match interrupt.end {
        End::Asserted => "it stops here: the wire is up, and no controller has sent anything (masked?)".into(),
        End::Withdrawn => "it stops here: the wire fell before a controller had sent anything (masked?)".into(),
        End::Refused => "it stops here: no local APIC has accepted it".into(),
        End::InKvm => "in KVM".into(),
        End::Posted if interrupt.vector.is_none() => {
            "it stops here: posted, and not taken (a start-up that nobody waits for is ignored)".into()
        }
        End::Posted => "it stops here: posted, and never seen in IRR".into(),
        End::Requested if interrupt.source_is_pic() => "it stops here: acknowledged, and not injected".into(),
        End::Requested => "it stops here: in IRR, and not injected".into(),
        End::InService => "it stops here: in service, and no EOI has come".into(),
        End::Done => "ended".into(),
        End::Merged(into) => match story.interrupt(into) {
            Some(into) => format!("merged with interrupt {}", into.id),
            None => "merged".into(),
        },
        End::Cleared => "it stops here: cleared by INIT, or by switching the local APIC off".into(),
    }
}

impl Interrupt {
    fn source_is_pic(&self) -> bool {
        matches!(self.source, Source::Pic(_))
    }
}

fn thread(story: &Story, number: u16) -> String {
    story.threads.get(&number).cloned().unwrap_or_else(|| format!("thread {number}"))
}

fn micros(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1000.0)
}

fn seconds(stamp: u64, story: &Story) -> String {
    format!("{:.9}", stamp.saturating_sub(story.start) as f64 / 1e9)
}
