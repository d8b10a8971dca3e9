//! A thread's ring: the thread writes, the drain reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use super::event::{Apic, Event, Record, Slot};

/// Slots of a ring: half a megabyte.
pub const CAPACITY: usize = 1 << 14;

/// The thread's end.
pub struct Writer {
    thread: u16,
    ring: Producer<Slot>,
    last_stamp: u64,
    /// Records that found no room since the last one that did.
    dropped: u64,
    /// The same since the start, for the reader.
    lost: Arc<AtomicU64>,
    /// Slots since the drain was asked for; at a quarter of the ring it is again.
    since_asked: usize,
}

/// The drain's end.
pub struct Reader {
    /// The thread's number.
    pub thread: u16,
    /// What it has written.
    pub ring: Consumer<Slot>,
    lost: Arc<AtomicU64>,
    /// Lost records that the file has been told of.
    told: u64,
}

/// A ring of `capacity` slots for thread number `thread`.
pub fn ring(thread: u16, capacity: usize) -> (Writer, Reader) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    let writer = Writer { thread, ring: producer, last_stamp: 0, dropped: 0, lost: Arc::clone(&lost), since_asked: 0 };
    (writer, Reader { thread, ring: consumer, lost, told: 0 })
}

impl Writer {
    /// The time `now`, moved on so that no two records of this thread have the same.
    pub fn stamp(&mut self, now: u64) -> u64 {
        self.last_stamp = now.max(self.last_stamp + 1);
        self.last_stamp
    }

    /// Puts a record in, or counts it as lost.
    pub fn push(&mut self, stamp: u64, event: &Event) {
        let head = event.head(stamp, self.thread);
        if self.put(stamp, head, event.registers()) {
            self.dropped = 0;
        } else {
            self.dropped += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts a record in, after a note of what has been lost before it; the drain sees all of it, or nothing.
    fn put(&mut self, stamp: u64, head: Slot, registers: Option<&Apic>) -> bool {
        let put = match registers {
            // Most records are like this.
            None if self.dropped == 0 => usize::from(self.ring.push(head).is_ok()),
            _ => {
                let note =
                    (self.dropped > 0).then(|| Event::Dropped { records: self.dropped }.head(stamp, self.thread));
                let registers = registers.map(|apic| [apic.irr, apic.isr]);
                let used = usize::from(note.is_some()) + 1 + if registers.is_some() { 2 } else { 0 };
                let slots = note.into_iter().chain([head]).chain(registers.into_iter().flatten());
                self.ring.write_chunk_uninit(used).map_or(0, |chunk| chunk.fill_from_iter(slots))
            }
        };
        self.since_asked += put;
        put > 0
    }

    /// It is time to have the ring emptied; said once each time.
    pub fn takes_turn(&mut self) -> bool {
        let turn = self.since_asked >= self.ring.buffer().capacity() / 4;
        if turn {
            self.since_asked = 0;
        }
        turn
    }
}

impl Reader {
    /// Takes what is in, and calls `write` with it.
    pub fn drain(&mut self, mut write: impl FnMut(&[Slot])) {
        let slots = self.ring.slots();
        let Ok(chunk) = self.ring.read_chunk(slots) else { return };
        let (first, second) = chunk.as_slices();
        for part in [first, second] {
            self.told += part.iter().filter_map(dropped).sum::<u64>();
            write(part);
        }
        chunk.commit_all();
    }

    /// Records that were lost, and that no record tells of: at the end.
    pub fn untold(&self) -> u64 {
        self.lost.load(Ordering::Relaxed).saturating_sub(self.told)
    }

    /// Its thread has ended, and all is taken.
    pub fn is_over(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty() && self.untold() == 0
    }
}

/// A slot that may be part of another record's registers is not looked at: those follow a head in the same chunk.
fn dropped(slot: &Slot) -> Option<u64> {
    if slot[1] as u8 != Event::DROPPED {
        return None;
    }
    match Record::decode(std::slice::from_ref(slot)) {
        Some((Record { event: Event::Dropped { records }, .. }, _)) => Some(records),
        _ => None,
    }
}
