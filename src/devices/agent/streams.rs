//! Interrupts that the host raises for a guest under test: streams of numbered events.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use irqchip::line::{Line, Msi, Wire};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};
use x86::Nanos;
use x86::agent::{EVENTS_AT_ONCE_MAX, PAIR_SIZE, PERIOD_MIN, STREAMS_MAX, Schedule, Source, Status};

use super::AgentHost;
use crate::clock::Deadline;
use crate::traits::Alarm;

/// The longest mean distance of drawn events: an hour.
const DISTANCE_MAX: Nanos = 3_600_000_000_000;
/// Events that are raised in one go before others have their turn.
const BATCH: u64 = 256;

/// What a guest wants raised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    source: Source,
    schedule: Schedule,
    target: u64,
    nanos: Nanos,
    events: u64,
    counter: Option<u64>,
    seed: u32,
}

impl Order {
    /// From a request's arguments; `None` if one is out of its range.
    pub(super) fn decode(args: &[u64; 5]) -> Option<Self> {
        let [what, target, nanos, events, counter] = *args;
        let [source, schedule, 0, 0, seed @ ..] = what.to_le_bytes() else { return None };
        let (source, schedule) = (Source::from_bits(source)?, Schedule::from_bits(schedule)?);
        let seed = u32::from_le_bytes(seed);
        let at_once = (1..=EVENTS_AT_ONCE_MAX).contains(&events);
        let good = match schedule {
            Schedule::Now | Schedule::After => at_once && seed == 0,
            Schedule::Every => events > 0 && nanos >= PERIOD_MIN && seed == 0,
            Schedule::Drawn => at_once && (PERIOD_MIN..=DISTANCE_MAX).contains(&nanos) && counter != 0,
        };
        let counter = (counter != 0).then_some(counter);
        let aligned = counter.is_none_or(|address| address.is_multiple_of(8));
        (good && aligned).then_some(Self { source, schedule, target, nanos, events, counter, seed })
    }
}

/// Where a stream's events go.
enum Target {
    Pulse(Line),
    Level(Line),
    Message { address: u64, data: u32 },
    Nmi { apic_id: u32 },
}

struct Stream {
    handle: u64,
    target: Target,
    marks: Marks,
    left: u64,
    sent: u64,
    merged: u64,
    /// When the next event is due.
    due: Nanos,
    distance: Distance,
}

/// Where the guest sees how far a stream is.
enum Marks {
    Nowhere,
    /// The number of the event.
    Counter(GuestAddress),
    /// The same, and a slot for each behind it.
    Slots(GuestAddress),
}

/// From one event to the next.
enum Distance {
    /// Always the same; 0 for all at once.
    Fixed(Nanos),
    /// Drawn each time.
    Drawn {
        mean: Nanos,
        /// Not 0.
        state: u64,
    },
}

impl Distance {
    fn next(&mut self) -> Nanos {
        match self {
            Self::Fixed(period) => *period,
            Self::Drawn { mean, state } => {
                // Marsaglia, "Xorshift RNGs", of which the high bits are the better ones.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *mean / 2 + (*state >> 16) % *mean
            }
        }
    }
}

/// All streams, and the agent's own lines.
pub(super) struct Streams<M> {
    memory: M,
    wires: Vec<Arc<Wire>>,
    own: Vec<Line>,
    msi: Msi,
    host: Arc<dyn AgentHost>,
    running: Vec<Stream>,
    next_handle: u64,
    deadline: Deadline,
}

impl<M: GuestMemory> Streams<M> {
    pub(super) fn new(
        memory: M,
        wires: Vec<Arc<Wire>>,
        msi: Msi,
        host: Arc<dyn AgentHost>,
        alarm: Arc<dyn Alarm>,
    ) -> Self {
        let own = wires.iter().map(Wire::holder).collect();
        let deadline = Deadline::new(alarm);
        Self { memory, wires, own, msi, host, running: Vec::new(), next_handle: 1, deadline }
    }

    /// Starts a stream; gives its handle.
    pub(super) fn start(&mut self, now: Nanos, order: Order) -> Result<u64, Status> {
        if self.running.len() >= STREAMS_MAX {
            return Err(Status::Busy);
        }
        let target = self.target(&order)?;
        let marks = self.marks(&order)?;
        let (due, distance) = match order.schedule {
            Schedule::Now => (now, Distance::Fixed(0)),
            Schedule::After => (now.saturating_add(order.nanos), Distance::Fixed(0)),
            Schedule::Every => (now.saturating_add(order.nanos), Distance::Fixed(order.nanos)),
            Schedule::Drawn => {
                let state = u64::from(order.seed) << 16 | 1 << 63 | 1;
                let mut distance = Distance::Drawn { mean: order.nanos, state };
                // The first few of neighbouring seeds are alike.
                (0..8).for_each(|_| _ = distance.next());
                (now.saturating_add(distance.next()), distance)
            }
        };
        let handle = self.next_handle;
        self.next_handle += 1;
        let mut stream = Stream { handle, target, marks, left: order.events, sent: 0, merged: 0, due, distance };
        if order.schedule == Schedule::Now {
            while stream.left > 0 {
                stream.raise(&self.memory, &self.msi, &*self.host);
            }
        }
        self.running.push(stream);
        self.arm();
        Ok(handle)
    }

    fn marks(&self, order: &Order) -> Result<Marks, Status> {
        let Some(address) = order.counter.map(GuestAddress) else { return Ok(Marks::Nowhere) };
        if order.schedule != Schedule::Drawn {
            self.memory.store(0u64, address, Ordering::Release).map_err(|_| Status::BadArgument)?;
            return Ok(Marks::Counter(address));
        }
        if !self.host.moment().is_guests {
            return Err(Status::Unsupported);
        }
        // No more than 1 MiB: events are limited.
        let empty = vec![0; (order.events as usize + 1) * PAIR_SIZE];
        self.memory.write_slice(&empty, address).map_err(|_| Status::BadArgument)?;
        Ok(Marks::Slots(address))
    }

    fn target(&self, order: &Order) -> Result<Target, Status> {
        let line = || {
            let wire = usize::try_from(order.target).ok().and_then(|gsi| self.wires.get(gsi));
            wire.map(Wire::holder).ok_or(Status::BadArgument)
        };
        Ok(match order.source {
            Source::Pulse => Target::Pulse(line()?),
            Source::Level => Target::Level(line()?),
            Source::Msi => Target::Message { address: order.target >> 32, data: order.target as u32 },
            Source::Nmi => Target::Nmi { apic_id: u32::try_from(order.target).map_err(|_| Status::BadArgument)? },
        })
    }

    /// Ends a stream, which lowers its line.
    pub(super) fn stop(&mut self, handle: u64) -> Result<[u64; 2], Status> {
        let index = self.find(handle)?;
        let stream = self.running.swap_remove(index);
        self.arm();
        Ok(stream.counts())
    }

    pub(super) fn query(&self, handle: u64) -> Result<[u64; 2], Status> {
        Ok(self.running[self.find(handle)?].counts())
    }

    /// Lowers the line of a level stream.
    pub(super) fn acknowledge(&mut self, handle: u64) -> Result<[u64; 2], Status> {
        let index = self.find(handle)?;
        let stream = &mut self.running[index];
        let Target::Level(line) = &mut stream.target else { return Err(Status::BadArgument) };
        line.set(false);
        Ok(stream.counts())
    }

    /// Sets the agent's own hold on a wire.
    pub(super) fn set_line(&mut self, gsi: u64, level: u64) -> Result<(), Status> {
        let line = usize::try_from(gsi).ok().and_then(|gsi| self.own.get_mut(gsi));
        match (line, level) {
            (Some(line), 0 | 1) => {
                line.set(level == 1);
                Ok(())
            }
            _ => Err(Status::BadArgument),
        }
    }

    /// Raises what is due, no more than [`BATCH`] events of each stream.
    pub(super) fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        for stream in &mut self.running {
            for _ in 0..BATCH {
                if stream.left == 0 || stream.due > now {
                    break;
                }
                stream.raise(&self.memory, &self.msi, &*self.host);
                stream.due = stream.due.saturating_add(stream.distance.next());
            }
        }
        self.arm();
    }

    /// Some stream has events left.
    pub(super) fn is_raising(&self) -> bool {
        self.running.iter().any(|stream| stream.left > 0)
    }

    fn arm(&mut self) {
        let next = self.running.iter().filter(|stream| stream.left > 0).map(|stream| stream.due).min();
        self.deadline.set(next);
    }

    fn find(&self, handle: u64) -> Result<usize, Status> {
        self.running.iter().position(|stream| stream.handle == handle).ok_or(Status::BadArgument)
    }
}

impl Stream {
    fn counts(&self) -> [u64; 2] {
        [self.sent, self.merged]
    }

    /// One event: its number first, then the interrupt.
    fn raise<M: GuestMemory>(&mut self, memory: &M, msi: &Msi, host: &dyn AgentHost) {
        self.left -= 1;
        self.sent += 1;
        // What is marked was written to when the stream started, so it is RAM.
        match self.marks {
            Marks::Nowhere => {}
            Marks::Counter(address) => _ = memory.store(self.sent, address, Ordering::Release),
            Marks::Slots(counter) => {
                let slot = counter.unchecked_add(self.sent * PAIR_SIZE as u64);
                let now = host.moment();
                let _ = memory.store(now.tsc_at(self.due), slot, Ordering::Relaxed);
                let _ = memory.store(now.tsc.max(1), slot.unchecked_add(8), Ordering::Relaxed);
                let _ = memory.store(self.sent, counter, Ordering::Release);
            }
        }
        match &mut self.target {
            Target::Pulse(line) => line.pulse(),
            Target::Level(line) if line.level() => self.merged += 1,
            Target::Level(line) => line.set(true),
            Target::Message { address, data } => msi.send(*address, *data),
            // A machine without that vCPU: sent, and nobody there to get it.
            Target::Nmi { apic_id } => {
                host.nmi(*apic_id);
            }
        }
    }
}
