//! The test agent: interrupts that the host raises by itself, with numbers that say how far it is.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::agent::{self, Stream, Target, When};
use kernel::arch::frame::Frame;
use kernel::arch::nmi;
use kernel::chips::apic;
use kernel::irq::chip::Chip;
use kernel::irq::desc::{Action, IrqReturn};
use kernel::irq::flow::Flow;
use kernel::irq::manage;
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, test, wait};
use x86::agent::{Kind, Op, Status};
use x86::test_record::Needs;

use crate::irq::{Number, done};

test!("agent.refuses_what_is_wrong", [14], refuses; .needs(Needs::AGENT));
test!("agent.pulses_are_edges", [10, 14], pulses; .needs(Needs::AGENT));
test!("agent.level_stays_until_it_is_acknowledged", [10, 14], level; .needs(Needs::AGENT).needs(Needs::IN_SERVICE));
test!("agent.messages_arrive", [10, 14], messages; .needs(Needs::AGENT));
test!("agent.nmis_arrive", [7], nmis; .needs(Needs::AGENT));
test!("agent.delayed_and_repeated_streams_run_to_their_end", [14], schedules; .needs(Needs::AGENT));
test!("agent.stopped_stream_is_silent", [14], stopped; .needs(Needs::AGENT));
test!("agent.shared_level_line_is_an_or", [10, 14], shared_line; .needs(Needs::AGENT).needs(Needs::IN_SERVICE));

/// A pin that no device of the machine has.
const PIN: u8 = 21;

static COUNT: AtomicU32 = AtomicU32::new(0);
/// The number of the event that was raised last.
static SENT: AtomicU64 = AtomicU64::new(0);

fn count() -> u64 {
    COUNT.load(Ordering::SeqCst).into()
}

fn counting(_: u32, _: usize) -> IrqReturn {
    COUNT.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

fn granted<T>(result: Result<T, Status>) -> Result<T, Failure> {
    result.map_err(|status| Failure::new(format_args!("the agent says {status:?}")))
}

fn reset() {
    COUNT.store(0, Ordering::SeqCst);
    SENT.store(0, Ordering::SeqCst);
}

/// With the pin set up and handled.
fn with_pin(level: bool, handler: fn(u32, usize) -> IrqReturn, body: impl FnOnce() -> TestResult) -> TestResult {
    reset();
    done(manage::set_up_pin(PIN, level))?;
    let action = Action { handler, thread: None, device: 0, name: "agent", shared: false };
    let result = done(manage::request(PIN.into(), action)).and_then(|()| body());
    let _ = agent::set_line(PIN.into(), false);
    done(manage::free(PIN.into(), 0))?;
    done(manage::tear_down(PIN.into()))?;
    result
}

fn refuses() -> TestResult {
    let answer = |op, args| agent::call(op, args).err();
    check_eq!(answer(Op::SetLine, [24, 1, 0, 0, 0]), Some(Status::BadArgument), "a GSI beyond the last");
    check_eq!(answer(Op::Raise, [9, 1, 0, 1, 0]), Some(Status::BadArgument), "a source that is none");
    check_eq!(answer(Op::Raise, [1, 1, 0, 0, 0]), Some(Status::BadArgument), "no events");
    check_eq!(answer(Op::Raise, [1, 1, 0, 1, 4]), Some(Status::BadArgument), "a counter that is not aligned");
    check_eq!(answer(Op::Query, [u64::MAX, 0, 0, 0, 0]), Some(Status::BadArgument), "a stream that is none");
    check_eq!(answer(Op::Stop, [u64::MAX, 0, 0, 0, 0]), Some(Status::BadArgument), "stopping a stream that is none");
    Ok(())
}

fn pulses() -> TestResult {
    with_pin(false, counting, || {
        for n in 1..=20 {
            let stream = granted(Stream::start(Target::Pulse(PIN.into()), When::Now, 1, Some(&SENT)))?;
            wait::for_condition(|| count() == n)?;
            check_eq!(SENT.load(Ordering::SeqCst), 1, "the event's number");
            let progress = granted(stream.stop())?;
            check_eq!((progress.sent, progress.merged), (1, 0), "the host's counts");
        }
        agent::count(Kind::Edge, 20, count(), 20 - count(), 0);
        Ok(())
    })
}

/// The line is up until the acknowledge: an unserved handler is called again and again.
fn level() -> TestResult {
    static HANDLE: AtomicU64 = AtomicU64::new(0);
    fn handler(_: u32, _: usize) -> IrqReturn {
        if COUNT.fetch_add(1, Ordering::SeqCst) >= 2 {
            let _ = agent::call(Op::Acknowledge, [HANDLE.load(Ordering::SeqCst), 0, 0, 0, 0]);
        }
        IrqReturn::Handled
    }
    with_pin(true, handler, || {
        HANDLE.store(0, Ordering::SeqCst);
        // The handler must know what to acknowledge, however late this vCPU is.
        let stream = without_interrupts(|| {
            let started = Stream::start(Target::Level(PIN.into()), When::After(1_000_000), 1, Some(&SENT));
            started.inspect(|stream| HANDLE.store(stream.handle(), Ordering::SeqCst))
        });
        let stream = granted(stream)?;
        wait::for_condition(|| count() == 3)?;
        kernel::time::delay(3_000);
        check_eq!(count(), 3, "interrupts after the acknowledge");
        check_eq!(granted(stream.stop())?.sent, 1, "events");
        agent::count(Kind::Level, 1, 1, 0, 0);
        Ok(())
    })
}

fn messages() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    done(manage::request(
        number.irq,
        Action { handler: counting, thread: None, device: 0, name: "msi", shared: false },
    ))?;
    let (address, data) = done(manage::message(number.irq))?;
    for n in 1..=20 {
        let stream = granted(Stream::start(Target::Msi { address, data }, When::Now, 1, None))?;
        wait::for_condition(|| count() == n)?;
        check_eq!(granted(stream.stop())?.sent, 1, "events");
    }
    agent::count(Kind::Msi, 20, count(), 20 - count(), 0);
    if let Ok(injected) = agent::injected(apic::id(), number.vector) {
        check_eq!(injected, 20, "what the host has injected");
    }
    Ok(())
}

fn nmis() -> TestResult {
    fn handler(_: &Frame) {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    reset();
    let old = nmi::set_handler(Some(handler));
    let result = (1..=10).try_for_each(|n| {
        let stream = granted(Stream::start(Target::Nmi(apic::id()), When::Now, 1, None))?;
        wait::for_condition(|| count() == n)?;
        granted(stream.stop()).map(|_| ())
    });
    nmi::set_handler(old);
    result?;
    agent::count(Kind::Nmi, 10, count(), 0, 0);
    Ok(())
}

/// Each event is raised, however late; the handlers may be fewer, where edges have merged.
fn schedules() -> TestResult {
    with_pin(false, counting, || {
        for (when, events) in [(When::After(2_000_000), 1), (When::Every(1_000_000), 25)] {
            reset();
            let stream = granted(Stream::start(Target::Pulse(PIN.into()), when, events, Some(&SENT)))?;
            wait::for_condition(|| SENT.load(Ordering::SeqCst) == events)?;
            let progress = granted(stream.stop())?;
            check_eq!(progress.sent, events, "events");
            wait::for_condition(|| count() >= 1)?;
            check!(count() <= events, "{} interrupts from {events} events", count());
        }
        Ok(())
    })
}

fn stopped() -> TestResult {
    with_pin(false, counting, || {
        let stream = granted(Stream::start(Target::Pulse(PIN.into()), When::Every(1_000_000), 1_000_000, Some(&SENT)))?;
        wait::for_condition(|| count() >= 3)?;
        let sent = granted(stream.stop())?.sent;
        kernel::time::delay(10_000);
        check_eq!(SENT.load(Ordering::SeqCst), sent, "events after it was stopped");
        check!(count() <= sent, "{} interrupts from {sent} events", count());
        Ok(())
    })
}

/// The agent's own line and a stream's on one wire: it is down when both are.
fn shared_line() -> TestResult {
    fn handler(_: u32, _: usize) -> IrqReturn {
        if COUNT.fetch_add(1, Ordering::SeqCst) == 1 {
            let _ = agent::set_line(PIN.into(), false);
        }
        IrqReturn::Handled
    }
    with_pin(true, handler, || {
        granted(agent::set_line(PIN.into(), true))?;
        wait::for_condition(|| count() == 2)?;
        kernel::time::delay(3_000);
        check_eq!(count(), 2, "interrupts after it was lowered");
        Ok(())
    })
}
