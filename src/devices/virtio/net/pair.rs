//! A pair of queues, and the queue of the interface that is its other end.

use std::io;
use std::sync::Arc;

use bottom_half::{Timer, Turn};
use sys::tap::{HEADER, Offloads};

use super::super::queue::{Chain, Queue, read, total, write};
use super::super::{Common, Runner};
use super::pacing::{Interrupt, LINGER, Pacing, Sent};
use super::{Backend, Log, MERGEABLE};

/// Packets in one turn.
pub(super) const BUDGET: usize = 64;
/// The longest packet with its header: a TCP segment of 64 KiB in an Ethernet frame.
pub(super) const MAX_PACKET: usize = HEADER + 14 + 4 + 65536;
/// Where a packet's header says over how many chains it is spread.
pub(super) const NUM_BUFFERS: usize = 10;
/// The most chains for one packet.
const MAX_CHAINS: usize = 64;

/// A receive queue and a transmit queue.
pub(super) struct Pair {
    number: u16,
    backend: Arc<dyn Backend>,
    /// A packet that waits for a buffer, and its length.
    held: Option<usize>,
    /// Buffers taken for it, which are not enough yet.
    taken: Vec<Chain>,
    packet: Box<[u8]>,
    outgoing: Box<[u8]>,
    pacing: Pacing,
    pub handles: Option<Handles>,
}

/// What runs its slow parts.
pub(super) struct Handles {
    pub receive: Runner,
    pub transmit: Runner,
    /// Has `transmit` run without a notification.
    pub linger: Timer,
}

impl Pair {
    /// The pair of this number, from 0.
    pub fn new(number: u16, backend: Arc<dyn Backend>) -> Self {
        let buffer = || vec![0; MAX_PACKET].into_boxed_slice();
        Self {
            number,
            backend,
            held: None,
            taken: Vec::new(),
            packet: buffer(),
            outgoing: buffer(),
            pacing: Pacing::default(),
            handles: None,
        }
    }

    /// The queue that its packets come in by.
    pub fn receive_queue(&self) -> u16 {
        2 * self.number
    }

    /// The queue that they go out by.
    pub fn transmit_queue(&self) -> u16 {
        2 * self.number + 1
    }

    /// Its queue of the interface.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend)
    }

    /// What packets may come in with, on all pairs.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.backend.set_offloads(offloads)
    }

    /// What looks at one of its queues.
    pub fn submission(&self, queue: u16) -> Option<Runner> {
        let handles = self.handles.as_ref()?;
        Some(if queue == self.transmit_queue() { &handles.transmit } else { &handles.receive }.clone())
    }

    /// Forgets what is under way in one of its queues.
    pub fn reset_queue(&mut self, queue: u16) {
        if queue == self.receive_queue() {
            self.held = None;
            self.taken.clear();
        } else {
            self.pacing = Pacing::default();
        }
    }

    /// Sends what is in the queue, within its budget. `now` in ns of the system's clock.
    pub fn transmit(&mut self, common: &mut Common, log: &mut Log, now: u64) -> Turn {
        common.no_notification(self.transmit_queue());
        let mut sent = Sent::default();
        let (mut lingers, mut again_at) = (None, None);
        let mut turn = Turn::Again;
        // Looks that find nothing count, too: a driver may take back what it has offered.
        for _ in 0..BUDGET {
            if let Some(chain) = common.pop(self.transmit_queue()) {
                sent.bytes += self.send(&chain, common, log);
                sent.packets += 1;
                common.push(self.transmit_queue(), chain.head(), 0);
                continue;
            }
            let is_running = common.is_running();
            if is_running && *lingers.get_or_insert_with(|| self.pacing.lingers(sent, now)) {
                again_at = Some(now + LINGER);
            } else if common.want_notification(self.transmit_queue()) {
                continue;
            }
            turn = Turn::Done;
            break;
        }
        match self.pacing.interrupt(sent.packets, now) {
            Interrupt::None => {}
            Interrupt::Now => common.done(self.transmit_queue()),
            // A stream's comes with its next batch.
            Interrupt::At(time) => again_at = again_at.or(Some(time)),
        }
        if let (Some(time), Some(handles)) = (again_at, &self.handles) {
            handles.linger.start(time);
        }
        turn
    }

    /// Sends a packet; one that can't be sent is lost, as on any network. Gives its length.
    fn send(&mut self, chain: &Chain, common: &Common, log: &mut Log) -> usize {
        let len = total(chain.readable());
        if len <= HEADER as u64 || len > MAX_PACKET as u64 {
            return 0;
        }
        let packet = &mut self.outgoing[..len as usize];
        if read(common.memory(), chain.readable(), 0, packet) < packet.len() {
            return 0;
        }
        // It is the receiver's; the interface wants zero.
        packet[NUM_BUFFERS..HEADER].fill(0);
        if let Err(e) = self.backend.send(packet) {
            log.complain("send", &e);
        }
        len as usize
    }

    /// Gives the driver what has come in, within its budget.
    pub fn receive(&mut self, common: &mut Common, log: &mut Log) -> Turn {
        if !common.is_running() || !common.queue(self.receive_queue()).is_some_and(Queue::is_enabled) {
            return Turn::Done;
        }
        common.no_notification(self.receive_queue());
        let mut turn = Turn::Again;
        let mut received = false;
        for _ in 0..BUDGET {
            let Some(len) = self.next_packet(log) else {
                turn = Turn::Done;
                break;
            };
            match self.deliver(len, common) {
                Delivered::Yes => {
                    self.held = None;
                    received = true;
                }
                Delivered::Dropped => self.held = None,
                Delivered::NoBuffer => {
                    if common.want_notification(self.receive_queue()) {
                        continue;
                    }
                    turn = Turn::Done;
                    break;
                }
            }
        }
        if received {
            self.pacing.answered();
            common.done(self.receive_queue());
        }
        turn
    }

    /// The length of the packet that is next.
    fn next_packet(&mut self, log: &mut Log) -> Option<usize> {
        if self.held.is_none() {
            match self.backend.receive(&mut self.packet) {
                Ok(len) if len > HEADER => self.held = Some(len),
                // The interface's own idea of a packet is never so short.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => log.complain("receive", &e),
            }
        }
        self.held
    }

    /// Puts the packet into the driver's buffers: several if it is one that merges them.
    fn deliver(&mut self, len: usize, common: &mut Common) -> Delivered {
        let limit = if common.has(MERGEABLE) { MAX_CHAINS } else { 1 };
        let mut room: u64 = self.taken.iter().map(|chain| total(chain.writable())).sum();
        while room < len as u64 && self.taken.len() < limit {
            let Some(chain) = common.pop(self.receive_queue()) else { return Delivered::NoBuffer };
            room += total(chain.writable());
            self.taken.push(chain);
        }
        let chains = std::mem::take(&mut self.taken);
        if room < len as u64 {
            // The driver's buffers are too small for what it has agreed to take.
            for chain in &chains {
                common.push(self.receive_queue(), chain.head(), 0);
            }
            common.done(self.receive_queue());
            return Delivered::Dropped;
        }
        self.packet[NUM_BUFFERS..HEADER].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        let mut rest = &self.packet[..len];
        for chain in &chains {
            let written = write(common.memory(), chain.writable(), 0, rest);
            rest = &rest[written..];
            common.push(self.receive_queue(), chain.head(), written as u32);
        }
        Delivered::Yes
    }
}

/// What became of a packet.
enum Delivered {
    Yes,
    Dropped,
    NoBuffer,
}
