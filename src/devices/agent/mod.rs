//! The test agent: what a guest under test asks of its host, and interrupts that the host raises for it.
//!
//! The protocol is [`x86::agent`]'s. A request is complete when [`Agent::write`] returns. What a guest reports goes to
//! the [`AgentHost`] with no lock held, on the vCPU's thread: a host that takes its time holds up the guest, so that
//! nothing that a test reported is lost. Streams have a lock of their own, taken where a device's lock would be.

mod streams;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use irqchip::line::{Msi, Wire};
use parking_lot::Mutex;
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress, GuestMemory};
use x86::Nanos;
use x86::agent::{
    INJECTED_NMI, Kind, Op, Outcome, PAIR_SIZE, REQUEST_SIZE, Request, SAMPLES_MAX, SIGNATURE, Sample, Status,
    TEXT_MAX, VERSION,
};

use crate::traits::Alarm;
use streams::{Order, Streams};

/// Where the reply words of a request lie in it.
const REPLY_OFFSET: u64 = 48;
/// Where its status lies.
const STATUS_OFFSET: u64 = 4;

/// What a guest under test reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Text for the log.
    Log {
        /// Whole lines.
        text: String,
    },
    /// The guest gives up; the machine is about to stop.
    Panic {
        /// Why.
        text: String,
    },
    /// A test begins.
    Begin {
        /// Its record's number in the image.
        index: u64,
    },
    /// The test that began last is over.
    Complete {
        /// How it ended.
        #[serde(serialize_with = "outcome_name")]
        outcome: Outcome,
        /// Why, if it did not pass.
        text: String,
    },
    /// A measured value.
    Measure {
        /// What was measured.
        name: String,
        /// The value.
        value: u64,
    },
    /// Counts to add to those of a kind of interrupt.
    Count {
        /// The kind.
        #[serde(serialize_with = "kind_name")]
        kind: Kind,
        /// Sent.
        sent: u64,
        /// Delivered.
        delivered: u64,
        /// Merged where the architecture merges.
        merged: u64,
        /// Spurious.
        spurious: u64,
    },
    /// Measured durations.
    Samples {
        /// What was measured.
        name: String,
        /// Ticks of the TSC, and nanoseconds to subtract.
        samples: Vec<(i64, u64)>,
    },
    /// TSC and clock at one moment.
    Clock {
        /// The TSC.
        tsc: u64,
        /// Nanoseconds.
        ns: Nanos,
    },
    /// What the machine has done so far.
    Tally(Tally),
}

/// What all vCPUs together have done since the machine was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Exits from the guest to the program.
    pub exits: u64,
    /// Kicks of a vCPU's thread by others.
    pub kicks: u64,
    /// Calls of KVM_RUN and other ioctls on the vCPUs' threads.
    pub ioctls: u64,
    /// All system calls on the vCPUs' threads that are counted.
    pub system_calls: u64,
}

/// TSC and clock, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The guest's TSC; the host's where the offset between them is not known.
    pub tsc: u64,
    /// It is the guest's.
    pub is_guests: bool,
    /// The machine's clock.
    pub ns: Nanos,
    /// The TSC's ticks in a second, as measured with the clock.
    pub hz: u64,
}

impl Moment {
    /// What the TSC read at a time not long before, or will read not long after.
    pub fn tsc_at(&self, ns: Nanos) -> u64 {
        let ticks = |ns: u64| (u128::from(ns) * u128::from(self.hz) / 1_000_000_000) as u64;
        if ns >= self.ns {
            self.tsc.wrapping_add(ticks(ns - self.ns))
        } else {
            self.tsc.wrapping_sub(ticks(self.ns - ns))
        }
    }
}

fn outcome_name<S: serde::Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    })
}

fn kind_name<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match kind {
        Kind::Edge => "edge",
        Kind::Level => "level",
        Kind::Msi => "msi",
        Kind::SelfIpi => "self-ipi",
        Kind::Ipi => "ipi",
        Kind::Timer => "timer",
        Kind::Nmi => "nmi",
        Kind::Pic => "pic",
    })
}

/// The agent's side of the machine. All of it is called from vCPU threads and the main loop.
pub trait AgentHost: Send + Sync {
    /// The guest reports; called with no lock held, may take its time.
    fn event(&self, event: Event);
    /// Sends an NMI straight to the vCPU with this APIC ID; false if there is none.
    fn nmi(&self, apic_id: u32) -> bool;
    /// How often a vCPU was given a vector, or an NMI; `None` if that is not known here.
    fn injected(&self, apic_id: u32, what: Injected) -> Option<u64>;
    /// How often a vCPU has gone to sleep in HLT and woken up; `None` if that is not known here.
    fn halts(&self, apic_id: u32) -> Option<(u64, u64)>;
    /// TSC and clock now. May be called with the streams' lock held.
    fn moment(&self) -> Moment;
    /// What the vCPUs have done so far.
    fn tally(&self) -> Tally;
}

/// What was injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// An interrupt with this vector.
    Vector(u8),
    /// A non-maskable interrupt.
    Nmi,
}

/// The agent; `M` is the guest's memory.
pub struct Agent<M> {
    memory: M,
    host: Arc<dyn AgentHost>,
    streams: Mutex<Streams<M>>,
}

impl<M: GuestMemory + Clone> Agent<M> {
    /// An agent with a line of its own to each of `wires` (by GSI), without streams.
    pub fn new(memory: M, wires: Vec<Arc<Wire>>, msi: Msi, host: Arc<dyn AgentHost>, alarm: Arc<dyn Alarm>) -> Self {
        let streams = Mutex::new(Streams::new(memory.clone(), wires, msi, Arc::clone(&host), alarm));
        Self { memory, host, streams }
    }

    /// A read of the agent's ports, `offset` from the first.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (0, 4) => SIGNATURE,
            (4, 4) => VERSION,
            _ => return data.fill(0xff),
        };
        data.copy_from_slice(&value.to_le_bytes());
    }

    /// A write to the agent's ports: a request's address, or nothing.
    pub fn write(&self, now: Nanos, offset: u64, data: &[u8]) {
        if let (0, Ok(address)) = (offset, <[u8; 4]>::try_from(data)) {
            self.request(now, u64::from(u32::from_le_bytes(address)));
        }
    }

    /// Streams have something due.
    pub fn expire(&self, now: Nanos) {
        self.streams.lock().expire(now);
    }

    /// A stream has events left to raise.
    pub fn is_raising(&self) -> bool {
        self.streams.lock().is_raising()
    }

    /// Carries out the request at a physical address. One that is unaligned or not in RAM is dropped.
    fn request(&self, now: Nanos, address: u64) {
        let mut block = [0; REQUEST_SIZE];
        let at = GuestAddress(address);
        if !address.is_multiple_of(REQUEST_SIZE as u64) || self.memory.read_slice(&mut block, at).is_err() {
            return;
        }
        // Read once; from here on only the copy counts.
        let request = Request::from_bytes(&block);
        let (status, reply) = match self.carry_out(now, &request) {
            Ok(reply) => (Status::Done, reply),
            Err(status) => (status, [0; 2]),
        };
        let reply = reply.map(u64::to_le_bytes).concat();
        // The block was readable, so it is RAM.
        let _ = self.memory.write_slice(&reply, GuestAddress(address + REPLY_OFFSET));
        let _ = self.memory.write_obj(status as u32, GuestAddress(address + STATUS_OFFSET));
    }

    fn carry_out(&self, now: Nanos, request: &Request) -> Result<[u64; 2], Status> {
        let [a, b, c, d, e] = request.args;
        match Op::from_bits(request.op).ok_or(Status::NoSuchOp)? {
            Op::Log => self.host.event(Event::Log { text: self.text(a, b)? }),
            Op::Panic => self.host.event(Event::Panic { text: self.text(a, b)? }),
            Op::Begin => self.host.event(Event::Begin { index: a }),
            Op::Complete => {
                let outcome = Outcome::from_bits(a).ok_or(Status::BadArgument)?;
                let text = if outcome == Outcome::Passed { String::new() } else { self.text(b, c)? };
                self.host.event(Event::Complete { outcome, text });
            }
            Op::Measure => self.host.event(Event::Measure { name: self.text(a, b)?, value: c }),
            Op::Count => {
                let kind = Kind::from_bits(a).ok_or(Status::BadArgument)?;
                self.host.event(Event::Count { kind, sent: b, delivered: c, merged: d, spurious: e });
            }
            Op::Raise => {
                let order = Order::decode(&request.args).ok_or(Status::BadArgument)?;
                return Ok([self.streams.lock().start(now, order)?, 0]);
            }
            Op::Stop => return self.streams.lock().stop(a),
            Op::Query => return self.streams.lock().query(a),
            Op::Acknowledge => return self.streams.lock().acknowledge(a),
            Op::SetLine => self.streams.lock().set_line(a, b)?,
            Op::Injected => {
                let what = match b {
                    INJECTED_NMI => Injected::Nmi,
                    vector => Injected::Vector(u8::try_from(vector).map_err(|_| Status::BadArgument)?),
                };
                let apic_id = u32::try_from(a).map_err(|_| Status::BadArgument)?;
                return Ok([self.host.injected(apic_id, what).ok_or(Status::Unsupported)?, 0]);
            }
            Op::Halts => {
                let apic_id = u32::try_from(a).map_err(|_| Status::BadArgument)?;
                let (slept, woke) = self.host.halts(apic_id).ok_or(Status::Unsupported)?;
                return Ok([slept, woke]);
            }
            Op::Samples => self.host.event(Event::Samples { name: self.text(a, b)?, samples: self.samples(c, d)? }),
            Op::Clock => {
                let Moment { tsc, is_guests, ns, .. } = self.host.moment();
                self.host.event(Event::Clock { tsc, ns });
                return if is_guests { Ok([tsc, ns]) } else { Err(Status::Unsupported) };
            }
            Op::Tally => self.host.event(Event::Tally(self.host.tally())),
        }
        Ok([0; 2])
    }

    fn samples(&self, address: u64, count: u64) -> Result<Vec<(i64, u64)>, Status> {
        if count > SAMPLES_MAX {
            return Err(Status::BadArgument);
        }
        let mut bytes = vec![0; count as usize * PAIR_SIZE];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).map_err(|_| Status::BadArgument)?;
        let samples = bytes.as_chunks().0.iter().map(Sample::from_bytes);
        Ok(samples.map(|Sample { ticks, nanos }| (ticks, nanos)).collect())
    }

    /// A text in guest memory, cut off at [`TEXT_MAX`] bytes; what is not UTF-8 in it is replaced.
    fn text(&self, address: u64, len: u64) -> Result<String, Status> {
        let mut bytes = vec![0; len.min(TEXT_MAX as u64) as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).map_err(|_| Status::BadArgument)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
