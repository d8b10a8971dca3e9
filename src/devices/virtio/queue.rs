//! A virtqueue and the chains in it, on `virtio_queue`'s split queue.
//!
//! Everything in a queue is the guest's word. A chain is read once, each descriptor of it checked, and only the copy is used:
//! [`Chain`] has buffers that lie in guest memory, no more than the queue has descriptors, those to read before those to
//! write. What breaks a rule that leaves nothing to answer with is [`Broken`]: the device then asks for a reset.
//!
//! Not modelled: packed queues.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue as SplitQueue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use super::Memory;

/// `avail.flags`: the driver wants no interrupts (VIRTIO 1.2, section "The Virtqueue Available Ring"). A hint that holds
/// only without the event index; `virtio_queue` does not look at it.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: u64 = 16;
/// Bytes of the rings beside their elements: flags, index, event.
const RING_BYTES: u64 = 6;

/// Why a queue can't be used any more: what the driver did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl From<virtio_queue::Error> for Broken {
    fn from(e: virtio_queue::Error) -> Self {
        Self(e.to_string())
    }
}

/// A part of guest memory. All of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Where it starts.
    pub address: GuestAddress,
    /// Its length.
    pub len: u32,
}

/// A descriptor chain, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    head: u16,
    /// First those for the device to read, then those for it to write.
    buffers: Vec<Buffer>,
    readable: usize,
}

impl Chain {
    /// What the used ring is to say of it.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device is to read.
    pub fn readable(&self) -> &[Buffer] {
        &self.buffers[..self.readable]
    }

    /// What the device is to write.
    pub fn writable(&self) -> &[Buffer] {
        &self.buffers[self.readable..]
    }
}

/// How many bytes buffers have.
pub fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| u64::from(buffer.len)).sum()
}

/// The parts of `buffers` that hold the `len` bytes from byte `offset` on, with where in the whole each starts.
fn parts(buffers: &[Buffer], mut offset: u64, mut len: u64) -> impl Iterator<Item = (GuestAddress, usize)> {
    buffers.iter().filter_map(move |buffer| {
        let skipped = offset.min(buffer.len.into());
        offset -= skipped;
        let taken = len.min(u64::from(buffer.len) - skipped);
        len -= taken;
        // A checked buffer does not reach beyond the end of addresses.
        (taken > 0).then(|| (GuestAddress(buffer.address.0.wrapping_add(skipped)), taken as usize))
    })
}

/// Copies the bytes from `offset` on to `data`; gives how many there were.
pub fn read(memory: &Memory, buffers: &[Buffer], offset: u64, data: &mut [u8]) -> usize {
    let mut done = 0;
    for (address, len) in parts(buffers, offset, data.len() as u64) {
        if memory.read_slice(&mut data[done..done + len], address).is_err() {
            break;
        }
        done += len;
    }
    done
}

/// Copies `data` to the bytes from `offset` on; gives how many there was room for.
pub fn write(memory: &Memory, buffers: &[Buffer], offset: u64, data: &[u8]) -> usize {
    let mut done = 0;
    for (address, len) in parts(buffers, offset, data.len() as u64) {
        if memory.write_slice(&data[done..done + len], address).is_err() {
            break;
        }
        done += len;
    }
    done
}

/// Addresses of a queue's three parts, which a transport sets by halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Descriptor table.
    Descriptors,
    /// Available ring, the driver's.
    Driver,
    /// Used ring, the device's.
    Device,
}

/// One queue of a device.
pub struct Queue {
    split: SplitQueue,
    max_size: u16,
    /// As the driver wrote them; checked when it enables the queue.
    size: u16,
    parts: [u64; 3],
    event_index: bool,
    /// Chains taken and not given back.
    out: u16,
}

impl Queue {
    /// A queue of at most `max_size` descriptors, a power of two.
    ///
    /// # Panics
    ///
    /// For a size that is none: a bug.
    pub fn new(max_size: u16) -> Self {
        let split = SplitQueue::new(max_size).unwrap_or_else(|e| panic!("a queue of {max_size}: {e}"));
        Self { split, max_size, size: max_size, parts: [0; 3], event_index: false, out: 0 }
    }

    /// As new.
    pub fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    /// The most descriptors.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// How many descriptors the driver wants.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The driver wants this many; nothing while it is enabled.
    pub fn set_size(&mut self, size: u16) {
        if !self.is_enabled() {
            self.size = size;
        }
    }

    /// The address of a part.
    pub fn part(&self, part: Part) -> u64 {
        self.parts[part as usize]
    }

    /// Sets bits of the address of a part; nothing while it is enabled.
    pub fn set_part(&mut self, part: Part, mask: u64, bits: u64) {
        if !self.is_enabled() {
            let address = &mut self.parts[part as usize];
            *address = *address & !mask | bits & mask;
        }
    }

    /// Whether the driver has enabled it.
    pub fn is_enabled(&self) -> bool {
        self.split.ready()
    }

    /// Enables it as the driver has set it up.
    ///
    /// # Errors
    ///
    /// A size that is no power of two or too large, a part that is not aligned or not in guest memory.
    pub fn enable(&mut self, memory: &Memory, event_index: bool) -> Result<(), Broken> {
        let size = u64::from(self.size);
        self.split.try_set_size(self.size)?;
        let [descriptors, driver, device] = self.parts.map(GuestAddress);
        self.split.try_set_desc_table_address(descriptors)?;
        self.split.try_set_avail_ring_address(driver)?;
        self.split.try_set_used_ring_address(device)?;
        let there = |address, bytes: u64, access| memory.check_range(address, bytes as usize, access);
        if !there(descriptors, DESCRIPTOR_BYTES * size, Permissions::Read)
            || !there(driver, RING_BYTES + 2 * size, Permissions::Read)
            || !there(device, RING_BYTES + 8 * size, Permissions::Write)
        {
            return Err(Broken::new(format!(
                "a queue of {size} at {:#x}, {:#x} and {:#x} is not in memory",
                descriptors.0, driver.0, device.0
            )));
        }
        self.event_index = event_index;
        self.split.set_event_idx(event_index);
        self.split.set_ready(true);
        Ok(())
    }

    /// Takes the next chain; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What the driver has put there is no chain.
    pub fn pop(&mut self, memory: &Memory) -> Result<Option<Chain>, Broken> {
        if !self.is_enabled() {
            return Ok(None);
        }
        let size = self.size;
        let Some(descriptors) = self.split.iter(memory)?.next() else { return Ok(None) };
        if self.out >= size {
            return Err(Broken::new("more chains than the queue holds"));
        }
        let head = descriptors.head_index();
        if head >= size {
            return Err(Broken::new(format!("chain at {head} of {size} descriptors")));
        }
        let mut chain = Chain { head, ..Chain::default() };
        // The iterator ends where something is wrong: then the last descriptor names another, or there is none.
        let mut unfinished = true;
        for descriptor in descriptors {
            if chain.buffers.len() >= size.into() {
                return Err(Broken::new(format!("chain {head} is longer than the queue")));
            }
            let buffer = Buffer { address: descriptor.addr(), len: descriptor.len() };
            let (writable, at) = (descriptor.is_write_only(), buffer.address.0);
            let access = if writable { Permissions::Write } else { Permissions::Read };
            if buffer.len > 0 && !memory.check_range(buffer.address, buffer.len as usize, access) {
                return Err(Broken::new(format!("chain {head}: {} bytes at {at:#x} are not in memory", buffer.len)));
            }
            if writable {
                chain.buffers.push(buffer);
            } else if chain.readable == chain.buffers.len() {
                chain.buffers.push(buffer);
                chain.readable += 1;
            } else {
                return Err(Broken::new(format!("chain {head}: to be read after to be written")));
            }
            unfinished = descriptor.has_next();
        }
        if unfinished {
            return Err(Broken::new(format!("chain {head} does not end")));
        }
        self.out += 1;
        Ok(Some(chain))
    }

    /// Gives chain `head` back, `written` bytes of it written.
    ///
    /// # Errors
    ///
    /// The used ring can't be written.
    pub fn push(&mut self, memory: &Memory, head: u16, written: u32) -> Result<(), Broken> {
        self.out = self.out.saturating_sub(1);
        Ok(self.split.add_used(memory, head, written)?)
    }

    /// How many chains are taken and not given back.
    pub fn outstanding(&self) -> u16 {
        self.out
    }

    /// Whether the driver wants an interrupt for what was given back since the last call.
    ///
    /// # Errors
    ///
    /// The rings can't be read.
    pub fn wants_interrupt(&mut self, memory: &Memory) -> Result<bool, Broken> {
        // Has a barrier between what was given back and what is read here.
        let wants = self.split.needs_notification(memory)?;
        if self.event_index {
            return Ok(wants);
        }
        let flags = memory.load::<u16>(GuestAddress(self.part(Part::Driver)), Ordering::Relaxed);
        flags.map(|flags| u16::from_le(flags) & AVAIL_NO_INTERRUPT == 0).map_err(|e| Broken::new(e.to_string()))
    }

    /// Asks the driver to notify of the next chain. True: there is one already.
    ///
    /// # Errors
    ///
    /// The rings can't be accessed.
    pub fn want_notification(&mut self, memory: &Memory) -> Result<bool, Broken> {
        Ok(self.split.enable_notification(memory)?)
    }

    /// Tells the driver that it need not notify.
    ///
    /// # Errors
    ///
    /// The rings can't be accessed.
    pub fn no_notification(&mut self, memory: &Memory) -> Result<(), Broken> {
        Ok(self.split.disable_notification(memory)?)
    }
}

#[cfg(test)]
mod tests;
