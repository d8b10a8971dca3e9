//! The guest's end of the test agent's protocol ([`x86::agent`]): a request block on the stack and one port write each.
//!
//! Without an agent everything here answers "unsupported", and the records of tests that need one say so.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x86::agent::{Kind, Op, Outcome, PORT, Request, SIGNATURE, Schedule, Source, Status, VERSION};
use x86_64::instructions::port::Port;

use crate::measure::{EVENTS_MAX, Events};

static PRESENT: AtomicBool = AtomicBool::new(false);

/// Looks for the agent. Called once, before the first line of the log.
pub(crate) fn init() {
    // SAFETY: reading the agent's ports has no effect; where there is none they read as all ones.
    let (signature, version) = unsafe { (Port::<u32>::new(PORT).read(), Port::<u32>::new(PORT + 4).read()) };
    PRESENT.store(signature == SIGNATURE && version == VERSION, Ordering::Relaxed);
}

/// There is an agent that speaks our version.
pub fn is_present() -> bool {
    PRESENT.load(Ordering::Relaxed)
}

/// Carries out one request.
pub fn call(op: Op, args: [u64; 5]) -> Result<[u64; 2], Status> {
    if !is_present() {
        return Err(Status::Unsupported);
    }
    let mut request = Request { op: op as u32, status: Status::Unsupported as u32, args, reply: [0; 2] };
    let address = &raw mut request as u64;
    // SAFETY: the block lives on this stack, which is mapped one to one below 4 GiB, and the host is done with it when the
    // instruction is. The instruction may read and write memory, so the compiler keeps nothing of the block in registers.
    unsafe {
        core::arch::asm!("out dx, eax", in("dx") PORT, in("eax") address as u32, options(nostack, preserves_flags));
    }
    match Status::from_bits(request.status) {
        Some(Status::Done) => Ok(request.reply),
        Some(status) => Err(status),
        None => Err(Status::Unsupported),
    }
}

/// A request that hands over a text.
pub(crate) fn text(op: Op, text: &str) {
    // A lost line of the log can't be reported anywhere.
    let _ = call(op, [text.as_ptr() as u64, text.len() as u64, 0, 0, 0]);
}

/// Says that the test of this index begins.
pub(crate) fn begin(index: usize) {
    let _ = call(Op::Begin, [index as u64, 0, 0, 0, 0]);
}

/// Says how the test ended.
pub(crate) fn complete(outcome: Outcome, why: &str) {
    let _ = call(Op::Complete, [outcome as u64, why.as_ptr() as u64, why.len() as u64, 0, 0]);
}

/// Reports a measured value.
pub fn measure(name: &str, value: u64) {
    let _ = call(Op::Measure, [name.as_ptr() as u64, name.len() as u64, value, 0, 0]);
}

/// Adds to the counts of a kind of interrupt.
pub fn count(kind: Kind, sent: u64, delivered: u64, merged: u64, spurious: u64) {
    let _ = call(Op::Count, [kind as u64, sent, delivered, merged, spurious]);
}

/// Sets the agent's own line to a GSI.
pub fn set_line(gsi: u32, up: bool) -> Result<(), Status> {
    call(Op::SetLine, [gsi.into(), up.into(), 0, 0, 0]).map(|_| ())
}

/// How often the host has injected a vector into the CPU with this APIC ID.
pub fn injected(apic_id: u32, vector: u8) -> Result<u64, Status> {
    call(Op::Injected, [apic_id.into(), vector.into(), 0, 0, 0]).map(|reply| reply[0])
}

/// What a stream raises.
#[derive(Clone, Copy)]
pub enum Target {
    /// A pulse on the line of this GSI.
    Pulse(u32),
    /// The line of this GSI, until it is acknowledged.
    Level(u32),
    /// A message.
    Msi {
        /// Its address.
        address: u32,
        /// Its data.
        data: u32,
    },
    /// A non-maskable interrupt to the CPU with this APIC ID.
    Nmi(u32),
}

/// When it raises.
#[derive(Clone, Copy)]
pub enum When {
    /// Before [`Stream::start`] returns.
    Now,
    /// After so many nanoseconds.
    After(u64),
    /// Again and again, so many nanoseconds apart.
    Every(u64),
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Events raised.
    pub sent: u64,
    /// Those of them that the wire merged, because it was up already.
    pub merged: u64,
}

/// Interrupts that the host raises by itself; stopped when dropped.
pub struct Stream {
    handle: u64,
}

impl Stream {
    /// Starts raising `events` events. The number of each is stored to `counter` before it is raised.
    pub fn start(target: Target, when: When, events: u64, counter: Option<&'static AtomicU64>) -> Result<Self, Status> {
        let (schedule, time) = match when {
            When::Now => (Schedule::Now, 0),
            When::After(delay) => (Schedule::After, delay),
            When::Every(period) => (Schedule::Every, period),
        };
        Self::raise(target, schedule as u64, time, events, counter.map_or(0, |counter| counter.as_ptr() as u64))
    }

    /// Starts raising `events` events (at most [`EVENTS_MAX`]) at times that the host draws from `seed`, `mean` nanoseconds apart
    /// on average. What it knows of each is written to `written` before it is raised.
    pub fn start_drawn(
        target: Target,
        mean: u64,
        seed: u32,
        events: usize,
        written: &'static Events,
    ) -> Result<Self, Status> {
        let events = events.min(EVENTS_MAX) as u64;
        Self::raise(
            target,
            Schedule::Drawn as u64 | u64::from(seed) << 24,
            mean,
            events,
            written.counter().as_ptr() as u64,
        )
    }

    /// `schedule`: what [`Op::Raise`] has above the source.
    fn raise(target: Target, schedule: u64, time: u64, events: u64, counter: u64) -> Result<Self, Status> {
        let (source, target) = match target {
            Target::Pulse(gsi) => (Source::Pulse, gsi.into()),
            Target::Level(gsi) => (Source::Level, gsi.into()),
            Target::Msi { address, data } => (Source::Msi, u64::from(address) << 32 | u64::from(data)),
            Target::Nmi(apic_id) => (Source::Nmi, apic_id.into()),
        };
        let what = source as u64 | schedule << 8;
        call(Op::Raise, [what, target, time, events, counter]).map(|reply| Self { handle: reply[0] })
    }

    /// Its handle, for requests that handlers make.
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// How far it is.
    pub fn progress(&self) -> Result<Progress, Status> {
        self.call(Op::Query)
    }

    /// Lowers the line of a [`Target::Level`] stream.
    pub fn acknowledge(&self) -> Result<Progress, Status> {
        self.call(Op::Acknowledge)
    }

    /// Stops it.
    pub fn stop(self) -> Result<Progress, Status> {
        let progress = self.call(Op::Stop);
        core::mem::forget(self);
        progress
    }

    fn call(&self, op: Op) -> Result<Progress, Status> {
        call(op, [self.handle, 0, 0, 0, 0]).map(|[sent, merged]| Progress { sent, merged })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.call(Op::Stop);
    }
}
