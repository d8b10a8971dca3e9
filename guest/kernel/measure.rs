//! Measuring, for `tophalf bench`: one measurement is a loop that takes samples and hands them to the host.
//!
//! All samples are in ticks of the TSC. The host turns them into nanoseconds: it gets TSC and clock at the beginning and at the
//! end, so that no calibration of this kernel's is in the figures.
//!
//! A **closed loop** causes something, waits for it, and only then causes the next: right where the CPU itself is the cause. Where the
//! cause is outside, an **open loop** is honest: the host raises events at times that it has drawn before ([`agent::When::Drawn`]),
//! whether or not this CPU has been slow with the last one.
//!
//! To read more: Gil Tene, "How NOT to Measure Latency" (coordinated omission).

mod events;

use alloc::vec::Vec;
use core::fmt;

use x86::agent::{Op, SAMPLES_MAX, Sample, words};
use x86_64::instructions::port::Port;

use crate::boot::info::boot_info;
use crate::testing::{Failure, TestResult};
use crate::time::tsc;
use crate::{agent, log};
pub use events::Events;

/// What the host takes as the thing itself; any other name is that of a part of it.
pub const LATENCY: &str = "latency";
/// The most events of a measurement.
pub const EVENTS_MAX: usize = 1000;
/// Samples that are taken first and thrown away: caches, page tables and the host's polling find their state.
const WARM_UP: usize = 4;
/// So many have room in a line of the log, whatever they are.
const SAMPLES_PER_LINE: usize = 4;

/// Puts a measurement into the image, as `test!` does with a test.
#[macro_export]
macro_rules! measurement {
    ($name:literal, $body:path $(; $($more:tt)*)?) => {
        const _: () = {
            // SAFETY: the section holds records of this type and nothing else.
            #[unsafe(link_section = "tophalf_measurements")]
            #[used]
            static RECORD: x86::test_record::TestRecord<$crate::testing::Body> =
                x86::test_record::TestRecord::new($name, &[], $body as $crate::testing::Body) $($($more)*)?;
        };
    };
}

/// How many events a measurement takes: what the command line says, or what suits the host.
pub fn events() -> usize {
    let usual = if boot_info().software_host() { 40 } else { 400 };
    let wanted = boot_info().number(words::COUNT).and_then(|count| usize::try_from(count).ok());
    wanted.unwrap_or(usual).clamp(1, EVENTS_MAX)
}

/// From one reading of the TSC to another.
pub fn between(from: u64, to: u64) -> Sample {
    Sample { ticks: to.wrapping_sub(from).cast_signed(), nanos: 0 }
}

/// Takes [`events`] samples, one after the other, after a few that do not count, and hands them over.
pub fn closed_loop(mut sample: impl FnMut() -> Result<Sample, Failure>) -> TestResult {
    for _ in 0..WARM_UP {
        sample()?;
    }
    let mut samples = Vec::with_capacity(events());
    watched(|| {
        while samples.len() < events() {
            samples.push(sample()?);
        }
        Ok(())
    })?;
    hand_over(LATENCY, &samples);
    Ok(())
}

/// Runs `body` between two looks at the clocks and at the machine's counts. Two looks at the counts come before it, so that the host
/// knows what looking costs.
pub fn watched(body: impl FnOnce() -> TestResult) -> TestResult {
    let look = |op| _ = agent::call(op, [0; 5]);
    look(Op::Clock);
    look(Op::Tally);
    look(Op::Tally);
    body()?;
    look(Op::Tally);
    look(Op::Clock);
    Ok(())
}

/// Gives samples to the host: by the agent, or as text over the serial port.
pub fn hand_over(name: &str, samples: &[Sample]) {
    if !agent::is_present() {
        return samples.chunks(SAMPLES_PER_LINE).for_each(|some| log!("{}", Line(name, some)));
    }
    for some in samples.chunks(SAMPLES_MAX as usize) {
        let text = [name.as_ptr() as u64, name.len() as u64];
        let _ = agent::call(Op::Samples, [text[0], text[1], some.as_ptr() as u64, some.len() as u64, 0]);
    }
}

/// Some samples as the agent writes them for the host.
struct Line<'a>(&'a str, &'a [Sample]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, samples) = *self;
        write!(out, "{{\"event\":\"samples\",\"name\":{name:?},\"samples\":[")?;
        for (n, sample) in samples.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(out, "{comma}[{},{}]", sample.ticks, sample.nanos)?;
        }
        write!(out, "]}}")
    }
}

/// Spins until `done`, with interrupts as they are, without leaving the guest. Fails the measurement after some seconds.
///
/// Only the CPU's own time counts: the TSC goes on while the CPU, or the whole host, stands still, and what is waited for may come with the
/// first instruction after that.
#[track_caller]
pub fn spin_until(done: impl Fn() -> bool) -> TestResult {
    let (limit, most_of_a_turn) = (5 * tsc::hz(), tsc::hz() / 1000);
    let (mut last, mut waited) = (tsc::read(), 0);
    while !done() {
        let now = tsc::read();
        waited += now.wrapping_sub(last).min(most_of_a_turn);
        last = now;
        if waited > limit {
            return Err(Failure::new(format_args!("waited in vain at {}", core::panic::Location::caller())));
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// Spins for so many nanoseconds, about.
pub fn pause(nanos: u64) {
    let (from, ticks) = (tsc::read(), (u128::from(nanos) * u128::from(tsc::hz()) / 1_000_000_000) as u64);
    while tsc::read().wrapping_sub(from) < ticks {
        core::hint::spin_loop();
    }
}

/// Writes the diagnostic port, which has no effect; the write leaves the guest.
pub fn write_port() {
    // SAFETY: nothing listens to power-on self-test codes here.
    unsafe { Port::<u8>::new(0x80).write(0) };
}
