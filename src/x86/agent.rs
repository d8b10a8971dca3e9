//! The test agent: how the guest kernel of `guest/` and the program that tests with it talk to each other.
//!
//! The agent is a device with eight ports at [`PORT`]. A guest fills a [`Request`] in its memory, writes the request's
//! physical address to [`PORT`] as four bytes, and finds the answer in the same block when the instruction is over: every
//! request is complete before the guest's next instruction. So requests need no lock: each CPU, and each context down
//! to an NMI handler, has a block of its own.
//!
//! | port | read | write |
//! |---|---|---|
//! | `PORT` (4 bytes) | [`SIGNATURE`] | physical address of a [`Request`], a multiple of 64: carry it out |
//! | `PORT + 4` (4 bytes) | [`VERSION`] | ignored |
//!
//! Where there is no agent (other machine monitors) the ports read as all ones; tests that need one are skipped. A
//! request at an address that is not RAM or not aligned is dropped: nobody could be told.
//!
//! # What the host raises
//!
//! [`Op::Raise`] starts a **stream**: a source ([`Source`]), a schedule ([`Schedule`]) and a number of events. Each event of a
//! stream has a sequence number, 1 and up. Just before it raises event *n* the host stores *n* to the stream's counter in guest
//! memory (one aligned 64-bit store, if the guest gave an address), so that a handler can see how far the sender is.
//! What happens to an event depends on the source:
//!
//! - [`Source::Pulse`]: the line goes up and down at once. Each event counts as sent.
//! - [`Source::Level`]: the line goes up and stays up until [`Op::Acknowledge`]. An event that is due while the line is
//!   still up by this stream is sent *and* counted as merged.
//! - [`Source::Msi`]: one write of the message. Each event counts as sent.
//! - [`Source::Nmi`]: one NMI straight to the vCPU, without an APIC. The host can't know of merging.
//!
//! With [`Schedule::Now`] all events are raised before the request completes. Timed schedules follow the machine's monotonic clock;
//! late events are not skipped: they follow at once, each with its number. All streams are stopped when the machine
//! stops. The agent has a line of its own to each GSI, which is OR-ed with the others on that wire.
//!
//! # Measuring
//!
//! A stream of [`Schedule::Drawn`] is the sender of an open-loop measurement: its times are drawn from a seed, whatever the guest is
//! doing, and behind its counter, [`PAIR_SIZE`] bytes from it, there is an array of [`Slot`]s. Before it raises event *n* the host writes
//! to slot *n* - 1 what the guest's TSC read when the event was *meant* to be raised, and what it reads now; then, with release semantics,
//! *n* to the counter. So the guest gets the latency of each event by one subtraction, and an event that waited because the one before
//! was slow is counted as slow. The two TSCs are joined through the vCPUs' TSC offset; where that is not known, such a stream is
//! [`Status::Unsupported`].
//!
//! **Which events an interrupt stands for is a matter of numbers, not of times.** Every event that has merged into an interrupt was counted
//! before the interrupt was accepted, so the counter as it is at the handler's entry covers it; so does the reply of [`Op::Acknowledge`]
//! for a level, since what finds the line up and what lowers it are under one lock. A handler that went by the times instead would, if the
//! two TSCs were not quite the same, wait for an interrupt that has been.
//!
//! [`Op::Samples`] hands measured values back, [`Op::Clock`] gives TSC and clock at one moment, so that two of them tell the TSC's
//! rate, and [`Op::Tally`] reports what the machine has done so far.
//!
//! # The command line
//!
//! Facts for the kernel come as words of its command line: see [`words`].

#[cfg(test)]
mod tests;

/// The first of the agent's eight ports.
pub const PORT: u16 = 0x5a0;
/// What a four-byte read of [`PORT`] gives where there is an agent: "TpHf".
pub const SIGNATURE: u32 = 0x6648_7054;
/// Version of this protocol; a guest that finds another treats the agent as absent.
pub const VERSION: u32 = 2;
/// Size and alignment of a [`Request`] in bytes.
pub const REQUEST_SIZE: usize = 64;
/// The longest text of a request in bytes; the host cuts off what is beyond.
pub const TEXT_MAX: usize = 4096;
/// The most events of a [`Schedule::Now`], whose request must end, and of a [`Schedule::After`].
pub const EVENTS_AT_ONCE_MAX: u64 = 65_536;
/// The shortest time between two events of [`Schedule::Every`], in nanoseconds.
pub const PERIOD_MIN: u64 = 1_000;
/// The most samples of one [`Op::Samples`].
pub const SAMPLES_MAX: u64 = 4096;
/// How many streams may run at once; a request for one more is answered with [`Status::Busy`].
pub const STREAMS_MAX: usize = 64;

/// What a request asks for. Arguments and replies are words, named `args[n]` and `reply[n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Op {
    /// Text for the log: `args[0]` physical address, `args[1]` length in bytes. UTF-8, one or more whole lines, without the last
    /// line break.
    Log = 1,
    /// The kernel gives up: text as in [`Op::Log`]. The test has failed and the machine stops.
    Panic = 2,
    /// A test begins: `args[0]` is its index in the record section, from 0. Its limit counts from here.
    Begin = 3,
    /// The test that began last is over: `args[0]` is an [`Outcome`], `args[1]` and `args[2]` address and length of a text
    /// that says why (none for [`Outcome::Passed`]).
    Complete = 4,
    /// A measured value: `args[0]` and `args[1]` address and length of its name, `args[2]` the value, unsigned.
    Measure = 5,
    /// Adds to the counts of a kind of interrupt in this test: `args[0]` a [`Kind`], `args[1]` sent, `args[2]` delivered,
    /// `args[3]` merged where the architecture merges, `args[4]` spurious.
    Count = 6,
    /// Starts a stream: `args[0]` low byte a [`Source`], next byte a [`Schedule`], high 32 bits the seed of
    /// [`Schedule::Drawn`] (else 0); `args[1]` the target, see [`Source`];
    /// `args[2]` nanoseconds, see [`Schedule`]; `args[3]` number of events, at least 1 (and at
    /// most [`EVENTS_AT_ONCE_MAX`] unless [`Schedule::Every`]); `args[4]` physical address of the
    /// stream's counter, a multiple of 8, or 0 (for [`Schedule::Drawn`] with as many slots behind it as events, and never 0).
    /// `reply[0]` is the stream's handle.
    Raise = 7,
    /// Stops a stream: `args[0]` its handle. When the request completes, nothing more comes from it; a line that it holds up is
    /// lowered. `reply` as for [`Op::Query`]. The handle is free afterwards.
    Stop = 8,
    /// How far a stream is: `args[0]` its handle. `reply[0]` events sent so far, `reply[1]` those of them that were merged. A
    /// stream that has sent all its events can be queried until it is stopped.
    Query = 9,
    /// Lowers the line of a [`Source::Level`] stream: `args[0]` its handle. `reply` as for [`Op::Query`].
    Acknowledge = 10,
    /// Sets the agent's own line: `args[0]` the GSI, `args[1]` 1 for up and 0 for down.
    SetLine = 11,
    /// What the host has injected: `args[0]` an APIC ID, `args[1]` a vector, or [`INJECTED_NMI`]. `reply[0]` is how many times since the
    /// machine started. [`Status::Unsupported`] where the kernel injects by itself.
    Injected = 12,
    /// How many times a vCPU has gone to sleep in HLT, and for good or ill woken up: `args[0]` an APIC ID; `reply[0]` went to sleep,
    /// `reply[1]` woke up. [`Status::Unsupported`] where HLT stays in the kernel.
    Halts = 13,
    /// Hands over [`Sample`]s: `args[0]` and `args[1]` address and length of what they are called, `args[2]` their physical address,
    /// `args[3]` their number, at most [`SAMPLES_MAX`].
    Samples = 14,
    /// Reports TSC and clock at one moment, and gives them: `reply[0]` the guest's TSC, `reply[1]` nanoseconds of the machine's clock.
    /// Where the TSC offset is not known it is reported all the same (rates do not depend on it), and answered with
    /// [`Status::Unsupported`].
    Clock = 15,
    /// Reports how many exits, kicks and system calls there have been so far, on all vCPUs together.
    Tally = 16,
}

impl Op {
    /// The operation of this number.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            1 => Self::Log,
            2 => Self::Panic,
            3 => Self::Begin,
            4 => Self::Complete,
            5 => Self::Measure,
            6 => Self::Count,
            7 => Self::Raise,
            8 => Self::Stop,
            9 => Self::Query,
            10 => Self::Acknowledge,
            11 => Self::SetLine,
            12 => Self::Injected,
            13 => Self::Halts,
            14 => Self::Samples,
            15 => Self::Clock,
            16 => Self::Tally,
            _ => return None,
        })
    }
}

/// Instead of a vector in [`Op::Injected`]: non-maskable interrupts.
pub const INJECTED_NMI: u64 = 0x100;

/// The agent's answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Done = 0,
    /// No such operation.
    NoSuchOp = 1,
    /// An argument is out of its range, or an address is not in RAM.
    BadArgument = 2,
    /// Not in this mode or on this host.
    Unsupported = 3,
    /// Too many streams.
    Busy = 4,
}

impl Status {
    /// The status of this number.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            0 => Self::Done,
            1 => Self::NoSuchOp,
            2 => Self::BadArgument,
            3 => Self::Unsupported,
            4 => Self::Busy,
            _ => return None,
        })
    }
}

/// A request block in guest memory, [`REQUEST_SIZE`] bytes, all fields little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Request {
    /// An [`Op`].
    pub op: u32,
    /// A [`Status`], written by the host.
    pub status: u32,
    /// Arguments; those that the operation does not name are ignored.
    pub args: [u64; 5],
    /// Replies, written by the host if the status is [`Status::Done`].
    pub reply: [u64; 2],
}

impl Request {
    /// Decodes a block as read from guest memory.
    pub fn from_bytes(bytes: &[u8; REQUEST_SIZE]) -> Self {
        let args = core::array::from_fn(|i| word(bytes, 8 + 8 * i));
        let reply = core::array::from_fn(|i| word(bytes, 48 + 8 * i));
        Self { op: word(bytes, 0) as u32, status: (word(bytes, 0) >> 32) as u32, args, reply }
    }
}

/// What the host says of an event of [`Schedule::Drawn`]: 16 bytes in guest memory, little-endian, all zero before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Slot {
    /// What the guest's TSC read when the event was due.
    pub due: u64,
    /// What it read when the host was about to raise it; not 0.
    pub raised: u64,
}

/// A measured duration: `ticks` of the guest's TSC, less `nanos`. 16 bytes, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Sample {
    /// Ticks from the start to the end; negative if the end came first.
    pub ticks: i64,
    /// What was meant to pass between the two, such as a timer's time.
    pub nanos: u64,
}

/// Size of a [`Slot`] and of a [`Sample`] in bytes.
pub const PAIR_SIZE: usize = 16;

impl Sample {
    /// Decodes a sample as read from guest memory.
    pub fn from_bytes(bytes: &[u8; PAIR_SIZE]) -> Self {
        Self { ticks: word(bytes, 0).cast_signed(), nanos: word(bytes, 8) }
    }
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Outcome {
    /// Every check held.
    Passed = 0,
    /// A check failed.
    Failed = 1,
    /// It could not run here; the text says what is missing.
    Skipped = 2,
}

impl Outcome {
    /// The outcome of this number.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits {
            0 => Self::Passed,
            1 => Self::Failed,
            2 => Self::Skipped,
            _ => return None,
        })
    }
}

/// Kinds of interrupts that are counted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Kind {
    /// Edge-triggered lines.
    Edge = 0,
    /// Level-triggered lines.
    Level = 1,
    /// Message-signalled interrupts.
    Msi = 2,
    /// IPIs to the sender itself.
    SelfIpi = 3,
    /// IPIs to other CPUs.
    Ipi = 4,
    /// Local APIC timers.
    Timer = 5,
    /// Non-maskable interrupts.
    Nmi = 6,
    /// Lines through the 8259A pair.
    Pic = 7,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Edge, Self::Level, Self::Msi, Self::SelfIpi, Self::Ipi, Self::Timer, Self::Nmi, Self::Pic];

    /// The kind of this number.
    pub fn from_bits(bits: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(bits).ok()?).copied()
    }
}

/// What a stream raises, and what its target word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// A line that goes up and down: the target is a GSI.
    Pulse = 1,
    /// A line that stays up until it is acknowledged: the target is a GSI.
    Level = 2,
    /// A message: the target is its address in the high and its data in the low 32 bits.
    Msi = 3,
    /// A non-maskable interrupt: the target is an APIC ID.
    Nmi = 4,
}

impl Source {
    /// The source of this number.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Pulse,
            2 => Self::Level,
            3 => Self::Msi,
            4 => Self::Nmi,
            _ => return None,
        })
    }
}

/// When a stream raises its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Schedule {
    /// All of them before the request completes; the time is ignored.
    Now = 0,
    /// All of them together, this many nanoseconds after the request.
    After = 1,
    /// One each time this many nanoseconds (at least [`PERIOD_MIN`]) have passed, the first after that time.
    Every = 2,
    /// One after the other, at distances drawn evenly from half to one and a half times this many nanoseconds (at least
    /// [`PERIOD_MIN`]).
    Drawn = 3,
}

impl Schedule {
    /// The schedule of this number.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Now,
            1 => Self::After,
            2 => Self::Every,
            3 => Self::Drawn,
            _ => return None,
        })
    }
}

/// Words of the kernel's command line, `KEY=VALUE`, separated by blanks. A kernel ignores words that it does not know.
pub mod words {
    /// The name of a test to run: exactly that one; or, with a `*`, all whose names match, one after the other. Without this
    /// word all tests are run.
    pub const TEST: &str = "test";
    /// Instead of [`TEST`]: names of measurements to run, separated by commas, each as for [`TEST`].
    pub const MEASURE: &str = "measure";
    /// The seed of everything random, decimal. 1 if missing.
    pub const SEED: &str = "seed";
    /// How many interrupts a conservation test sends in all, decimal. The kernel chooses if missing.
    pub const COUNT: &str = "count";
    /// The interrupt controllers' mode: one of [`USER`], [`SPLIT`], [`KERNEL`]; missing where that is not known.
    pub const IRQCHIP: &str = "irqchip";
    /// Mode: all controllers in the machine monitor.
    pub const USER: &str = "user";
    /// Mode: local APICs in the kernel.
    pub const SPLIT: &str = "split";
    /// Mode: all controllers in the kernel.
    pub const KERNEL: &str = "kernel";
    /// What runs the guest: [`SOFTWARE`] if ring 0 is interpreted, anything else means a processor (real or emulated).
    pub const HOST: &str = "host";
    /// A host that interprets ring 0.
    pub const SOFTWARE: &str = "software";
    /// Whether no interrupt is delivered between STI and the instruction after it: [`LOST`] where one may be, missing elsewhere.
    pub const SHADOW: &str = "shadow";
    /// Whoever has the local APICs forgets the shadow of STI at an exit.
    pub const LOST: &str = "lost";
    /// Where the log goes when there is an agent: [`SERIAL`] sends it to the first serial port as well.
    pub const LOG: &str = "log";
    /// The first serial port.
    pub const SERIAL: &str = "serial";
}

/// The eight bytes at `at`, little-endian; 0 where there are not that many.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
