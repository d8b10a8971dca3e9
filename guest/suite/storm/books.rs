//! Every event that the device says it has raised arrives, or merges where the architecture merges.

use kernel::agent;
use kernel::boot::info::boot_info;
use kernel::storm::{self, Counts, Source};
use kernel::testing::TestResult;
use kernel::{check, check_eq, test, wait};
use x86::agent::{Kind, words};
use x86::test_record::Needs;

use super::{CPUS, Ordering, SOURCES, Storm, count, serve};
use crate::conservation::quiesce;

test!("storm.each_ring_is_an_interrupt", [10, 11], rings; .needs(Needs::AGENT).cpus(2).needs(Needs::IN_SERVICE));
test!("storm.pulses_are_conserved", [10, 11], flood::<{ Source::Pulse as u32 }>;
    .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));
test!("storm.levels_are_conserved", [10, 11], flood::<{ Source::Level as u32 }>;
    .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT).needs(Needs::IN_SERVICE));
test!("storm.messages_are_conserved", [11], flood::<{ Source::Msi as u32 }>;
    .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));

/// CPU time in milliseconds, also for counts of millions.
const LIMIT: u32 = 3_600_000;
/// Nanoseconds between the events of a flood.
const PERIOD: u64 = 100_000;
/// So many events on both CPUs, if the command line does not say.
const DEFAULT: u64 = 4_000;

/// With no period and each waiting for the one before, nothing merges.
fn rings() -> TestResult {
    const RINGS: u64 = 30;
    for source in SOURCES {
        for cpu in 0..2 {
            let storm = Storm::new(source, cpu, serve)?;
            storm.start(0, RINGS);
            for n in 1..=RINGS {
                check!(storm.channel.is_running(), "{source:?} has stopped after {n} of {RINGS}");
                storm::ring();
                wait::for_condition(|| count() == n)?;
            }
            storm.ends()?;
            let expected = Counts { sent: RINGS, merged: 0, skipped: 0 };
            check_eq!(storm.channel.counts(), expected, "what {source:?} has counted");
            // It is at its end: no more.
            storm::ring();
            quiesce();
            check_eq!(count(), RINGS, "handlers of {source:?} on CPU {cpu}");
            check_eq!(CPUS.load(Ordering::SeqCst), 1 << cpu, "the CPUs of {source:?}");
        }
    }
    Ok(())
}

/// By the clock, whether the last one has been handled or not. A level's merging is known to the device, to the event; edges and
/// messages merge in the request register, which nobody counts: their handlers are no more than the events, and the last event was followed
/// by one.
fn flood<const SOURCE: u32>() -> TestResult {
    let source = SOURCES[SOURCE as usize];
    let kind = [Kind::Edge, Kind::Level, Kind::Msi][SOURCE as usize];
    let events = boot_info().number(words::COUNT).unwrap_or(DEFAULT) / 2 + 1;
    for cpu in 0..2 {
        let storm = Storm::new(source, cpu, serve)?;
        storm.start(PERIOD, events);
        storm.ends()?;
        let Counts { sent, merged, skipped } = storm.channel.counts();
        check_eq!(sent + skipped, events, "events raised, and {skipped} left out");
        check!((1..=sent).contains(&count()), "{} handlers on CPU {cpu} for {sent} events", count());
        if source == Source::Level {
            check_eq!(count() + merged, sent, "handlers on CPU {cpu} and merged events");
        } else {
            check_eq!(merged, 0, "merged edges");
        }
        check_eq!(CPUS.load(Ordering::SeqCst), 1 << cpu, "the CPUs");
        agent::count(kind, sent, count(), sent - count(), 0);
    }
    Ok(())
}
