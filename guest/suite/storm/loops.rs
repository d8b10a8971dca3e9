//! What a storm leaves of a CPU, and of the others.

use alloc::vec::Vec;

use kernel::storm::{Counts, NO_END};
use kernel::testing::{Failure, TestResult};
use kernel::time::tsc;
use kernel::{agent, check, test, wait};
use x86::test_record::Needs;

use super::{PROGRAM, Program, SOURCES, Storm, count, serve};

test!("storm.program_goes_on_below_saturation", [10, 11, 22], program_goes_on;
    .needs(Needs::AGENT).cpus(2).limit_ms(120_000));
test!("storm.other_cpu_keeps_half_of_its_progress", [10, 11], other_cpu;
    .needs(Needs::AGENT).cpus(2).limit_ms(120_000));

/// Rates: nanoseconds between events, and how many.
const RAMP: [(u64, u64); 7] =
    [(20_000_000, 24), (5_000_000, 64), (1_000_000, 256), (200_000, 512), (50_000, 512), (10_000, 512), (1, 512)];

/// The device has left out nothing and most events have come by themselves: the CPU can take more.
fn is_below_saturation(counts: Counts) -> bool {
    counts.skipped == 0 && 2 * count() > counts.sent
}

/// A program on the stormed CPU moves, again and again, at every rate below saturation. At the slowest it does so however busy the host
/// is; the fastest is more than any host can do.
///
/// A device that is late catches up in a batch, whose interrupts may come without a pause; so the longest stop that is allowed is a
/// quarter of all events, which for the faster rates are two such batches.
fn program_goes_on() -> TestResult {
    let _program = Program::new()?;
    for source in SOURCES {
        let storm = Storm::new(source, 1, serve)?;
        let mut fastest = 0;
        for (n, (period, events)) in RAMP.into_iter().enumerate() {
            storm.start(period, events);
            storm.ends()?;
            let (counts, stop) = (storm.channel.counts(), PROGRAM.longest_stop());
            let below = is_below_saturation(counts);
            if below {
                fastest = period;
            }
            check!(
                stop < events / 4 || !(below || n == 0),
                "{source:?} each {period} ns, {} interrupts: {stop} in a row have found the program where it was",
                count()
            );
        }
        check!(!is_below_saturation(storm.channel.counts()), "{source:?}: an event each nanosecond is no storm");
        agent::measure("fastest_period_below_saturation", fastest);
    }
    Ok(())
}

/// Turns of a loop on this CPU in 30 ms.
fn progress() -> u64 {
    let end = tsc::read() + tsc::hz() / 1000 * 30;
    let mut turns = 0;
    while tsc::read() < end {
        turns += 1;
        core::hint::spin_loop();
    }
    turns
}

/// The second CPU gets more than it can take; this one goes on at half of its pace at least. The host's other work slows this one down, too,
/// so quiet and stormy stretches alternate, the median of their ratios counts, and it may take some pairs to be sure of it.
fn other_cpu() -> TestResult {
    const PAIRS: usize = 5;
    const PAIRS_MAX: usize = 41;
    let _program = Program::new()?;
    for source in SOURCES {
        let storm = Storm::new(source, 1, serve)?;
        let mut ratios = Vec::with_capacity(PAIRS_MAX);
        loop {
            let quiet = progress();
            storm.start(1, NO_END);
            wait::for_condition(|| count() > 0)?;
            let stormy = progress();
            storm.channel.stop();
            check!(storm.channel.counts().skipped > 0, "{source:?}: an event each nanosecond is no storm");
            ratios.push(1000 * stormy / quiet.max(1));
            ratios.sort_unstable();
            let median = ratios[ratios.len() / 2];
            if ratios.len() >= PAIRS && median >= 500 {
                agent::measure("progress_of_other_cpu_permille", median);
                break;
            }
            if ratios.len() == PAIRS_MAX {
                return Err(Failure::new(format_args!("{source:?}: it has kept {median} of 1000")));
            }
        }
    }
    Ok(())
}
