//! Floods: the host raises events by the clock, whether the last one has been handled or not.
//!
//! A line that is up already is not raised again, and the host knows how often that was so; so the handlers of a level line can be
//! reckoned up to the event. Edges and messages merge in the request registers, which nobody counts: at least one handler runs, none without
//! an event, and one of them after the last event. Afterwards each source must still deliver one event by itself.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;

use kernel::agent::{self, Stream, Target, When};
use kernel::arch::frame::Frame;
use kernel::arch::percpu::{self, this_cpu};
use kernel::arch::vectors;
use kernel::chips::{apic, ioapic};
use kernel::irq::chip::Chip;
use kernel::irq::desc::{Action, Handler, IrqReturn};
use kernel::irq::flow::Flow;
use kernel::irq::manage;
use kernel::random::Random;
use kernel::smp::call;
use kernel::sync::{IrqLock, disable_interrupts, enable_interrupts, without_interrupts};
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, test, wait};
use x86::agent::Kind;
use x86::apic::reg;
use x86::test_record::Needs;

use super::devices::spoke;
use super::{LIMIT, id_of, lines_come_again, spin, tally};
use crate::irq::done;

test!("conservation.flood_of_edges", [10, 14], flood::<EDGE>; .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));
test!("conservation.flood_of_levels", [10, 14], flood::<LEVEL>; .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));
test!("conservation.flood_of_messages", [11, 14], flood::<MESSAGE>; .needs(Needs::AGENT).cpus(2).limit_ms(LIMIT));
test!("conservation.flood_of_lines_through_the_pic", [9, 14], flood::<PIC>; .needs(Needs::AGENT).limit_ms(LIMIT));

const EDGE: u64 = Kind::Edge as u64;
const LEVEL: u64 = Kind::Level as u64;
const MESSAGE: u64 = Kind::Msi as u64;
const PIC: u64 = Kind::Pic as u64;

/// Sources of a flood; as lines, these pins and inputs that no other device uses.
const LINES: [u8; SOURCES] = [5, 10, 11];
const SOURCES: usize = 3;
/// Nanoseconds between the events of a source.
const PERIOD: u64 = 100_000;
/// So many events in all, if the command line does not say.
const DEFAULT: u64 = 18_000;

/// A source: its stream, and what its handler has counted.
struct Source {
    stream: IrqLock<Option<Stream>>,
    sent: AtomicU64,
    delivered: AtomicU64,
    seen: AtomicU64,
}

static SOURCE: [Source; SOURCES] = [const {
    let [sent, delivered, seen] = [const { AtomicU64::new(0) }; 3];
    Source { stream: IrqLock::new(None), sent, delivered, seen }
}; SOURCES];

impl Source {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// Starts a stream of events. A handler that comes before the stream is noted waits for the lock.
    fn start(&'static self, target: Target, when: When, events: u64) -> TestResult {
        for count in [&self.sent, &self.delivered, &self.seen] {
            count.store(0, Ordering::SeqCst);
        }
        let mut stream = self.stream.lock();
        *stream = None;
        *stream = Some(spoke(Stream::start(target, when, events, Some(&self.sent)))?);
        Ok(())
    }
}

/// An edge or a message: one of those that had been sent when it began.
fn handler(_: u32, device: usize) -> IrqReturn {
    let source = &SOURCE[device];
    source.seen.fetch_max(source.sent(), Ordering::SeqCst);
    source.delivered.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// A line is up until its device has been served; whatever was sent before that is seen.
fn serving_handler(_: u32, device: usize) -> IrqReturn {
    let source = &SOURCE[device];
    if let Some(Ok(progress)) = source.stream.lock().as_ref().map(Stream::acknowledge) {
        source.seen.fetch_max(progress.sent, Ordering::SeqCst);
    }
    source.delivered.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// The same where a line may come again for nothing: its device says how often it has asked, and asked once more it must have.
fn asking_handler(_: u32, device: usize) -> IrqReturn {
    let source = &SOURCE[device];
    let Some(Ok(progress)) = source.stream.lock().as_ref().map(Stream::acknowledge) else { return IrqReturn::None };
    source.seen.fetch_max(progress.sent, Ordering::SeqCst);
    if progress.sent - progress.merged == source.delivered() {
        return IrqReturn::None;
    }
    source.delivered.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// What raises source `n`, set up and requested; given back when dropped.
struct Number(u32);

impl Number {
    fn new(kind: u64, n: usize) -> Result<Self, Failure> {
        let line = LINES[n];
        let (irq, handler): (u32, Handler) = match kind {
            MESSAGE => {
                let cpu = n % percpu::cpus().count();
                (done(manage::create(Chip::Msi, Flow::Edge, 1 << cpu))?, handler)
            }
            PIC => {
                done(manage::set_up(line.into(), Chip::Pic(line), Flow::Level, true, 1))?;
                (line.into(), serving_handler)
            }
            _ => {
                done(manage::set_up_pin(line, kind == LEVEL))?;
                let serving = if lines_come_again() { asking_handler } else { serving_handler };
                (line.into(), if kind == LEVEL { serving } else { handler })
            }
        };
        let number = Self(irq);
        done(manage::request(irq, Action { handler, thread: None, device: n, name: "flood", shared: false }))?;
        Ok(number)
    }

    fn target(&self, kind: u64) -> Result<Target, Failure> {
        Ok(match kind {
            MESSAGE => {
                let (address, data) = done(manage::message(self.0))?;
                Target::Msi { address, data }
            }
            EDGE => Target::Pulse(self.0),
            _ => Target::Level(self.0),
        })
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        SOURCE.iter().for_each(|source| drop(source.stream.lock().take()));
        for device in 0..SOURCES {
            let _ = manage::free(self.0, device);
        }
        let _ = manage::tear_down(self.0);
    }
}

static STOP: AtomicU32 = AtomicU32::new(0);

/// What makes a CPU's interrupts wait.
fn hold_back(random: &mut Random) {
    if random.below(2) == 0 {
        apic::write(reg::TPR, (1 + random.below(15) as u32) << 4);
        spin(random, 100);
        apic::write(reg::TPR, 0);
    } else {
        without_interrupts(|| spin(random, 100));
    }
    spin(random, 100);
}

/// What the other CPUs do, with interrupts on inside the call.
fn work(_: usize) {
    enable_interrupts();
    let mut random = Random::from_seed(this_cpu().number() as u64);
    while STOP.load(Ordering::SeqCst) == 0 {
        hold_back(&mut random);
    }
    disable_interrupts();
    STOP.fetch_add(1, Ordering::SeqCst);
}

fn flood<const KIND: u64>() -> TestResult {
    tally::begin(DEFAULT);
    let each = tally::take(u64::MAX) / SOURCES as u64;
    let mut numbers = Vec::new();
    for n in 0..SOURCES {
        numbers.push(Number::new(KIND, n)?);
    }
    if KIND == PIC {
        apic::connect_pic(true);
    }
    STOP.store(0, Ordering::SeqCst);
    call::call_on_others(work, 0, false);
    let result = run::<KIND>(&numbers, each);
    STOP.store(1, Ordering::SeqCst);
    let others = percpu::cpus().count() as u32 - 1;
    let ended = wait::for_condition(|| STOP.load(Ordering::SeqCst) == 1 + others);
    drop(numbers);
    if KIND == PIC {
        apic::connect_pic(false);
    }
    result.and(ended)
}

fn run<const KIND: u64>(numbers: &[Number], each: u64) -> TestResult {
    for (source, number) in SOURCE.iter().zip(numbers) {
        source.start(number.target(KIND)?, When::Every(PERIOD), each)?;
    }
    let mut random = Random::from_seed(0);
    let sent = || SOURCE.iter().map(Source::sent).sum::<u64>();
    let cpus = percpu::cpus().count() as u64;
    while sent() < each * SOURCES as u64 {
        let number = &numbers[random.below(SOURCES as u64) as usize];
        match random.below(4) {
            0 => {
                done(manage::disable(number.0))?;
                hold_back(&mut random);
                done(manage::enable(number.0))?;
            }
            1 if KIND == EDGE || KIND == LEVEL => {
                ioapic::set_destination(number.0 as u8, id_of(random.below(cpus) as usize) as u8);
            }
            _ => hold_back(&mut random),
        }
        let before = sent();
        if before < each * SOURCES as u64 {
            wait::for_condition(|| sent() > before)?;
        }
    }
    for (n, source) in SOURCE.iter().enumerate() {
        balance::<KIND>(n, source, each)?;
    }
    // The last of the flood may still be on its way to a handler that saw it sent; when each CPU has answered from below all of
    // these vectors it is not.
    quiesce();
    for (n, (source, number)) in SOURCE.iter().zip(numbers).enumerate() {
        for _ in 0..10 {
            source.start(number.target(KIND)?, When::Now, 1)?;
            wait::for_condition(|| source.delivered() >= 1)?;
            quiesce();
            check_eq!(source.delivered(), 1, "handlers of source {n} after one event");
        }
    }
    Ok(())
}

/// Has every CPU take an interrupt of the lowest class, below all others that were under way.
pub fn quiesce() {
    const LOWEST: u8 = 0x31;
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    fn answer(_: &mut Frame) {
        ANSWERS.fetch_add(1, Ordering::SeqCst);
        apic::eoi();
    }
    if !vectors::claim(LOWEST, answer) {
        return;
    }
    ANSWERS.store(0, Ordering::SeqCst);
    percpu::cpus().for_each(|cpu| apic::send_to(id_of(cpu.number()), LOWEST));
    let _ = wait::for_condition(|| ANSWERS.load(Ordering::SeqCst) as usize == percpu::cpus().count());
    vectors::release(LOWEST);
}

/// The books of one source after its flood.
fn balance<const KIND: u64>(n: usize, source: &Source, each: u64) -> TestResult {
    wait::for_condition(|| source.seen.load(Ordering::SeqCst) == each)?;
    quiesce();
    let progress = match &*source.stream.lock() {
        Some(stream) => spoke(stream.progress())?,
        None => return Err(Failure::new(format_args!("source {n} has no stream"))),
    };
    let delivered = source.delivered();
    check_eq!(progress.sent, each, "events of source {n}");
    check!((1..=each).contains(&delivered), "{delivered} handlers of source {n} for {each} events");
    if KIND == LEVEL || KIND == PIC {
        check_eq!(delivered + progress.merged, each, "handlers and merged events of source {n}");
    }
    agent::count(Kind::from_bits(KIND).unwrap_or(Kind::Edge), each, delivered, each - delivered, 0);
    Ok(())
}
