//! The storm device: raises lines and messages at a set rate (registers: [`x86::storm`]). For tests of what interrupts do to a
//! machine when there are too many of them.
//!
//! Events that are due are raised from one expiry, up to a batch of each channel; what is later than that is skipped and
//! counted, so a rate that the host can't keep up with leaves nothing behind when it ends. A device that is still late then
//! asks to be called at once: that is the storm.

mod channel;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use irqchip::line::{Msi, Wire};
use x86::Nanos;
use x86::storm::{CHANNEL_0, CHANNEL_BYTES, CHANNELS, COUNT_OF_CHANNELS, RING, SIGNATURE, SIGNATURE_VALUE, WINDOW};

use crate::clock::Deadline;
use crate::doorbell::Connection;
use crate::traits::{Alarm, BusDevice, TimedDevice};
use channel::Channel;

/// The device.
pub struct Storm {
    channels: [Channel; CHANNELS],
    wires: Vec<Arc<Wire>>,
    msi: Msi,
    deadline: Deadline,
    /// While this is there, writes of the ring register are no accesses.
    doorbell: Option<Box<dyn Connection>>,
}

impl Storm {
    /// All channels at rest. It can raise each of `wires`, by GSI.
    pub fn new(wires: Vec<Arc<Wire>>, msi: Msi, alarm: Arc<dyn Alarm>) -> Self {
        Self { channels: Default::default(), wires, msi, deadline: Deadline::new(alarm), doorbell: None }
    }

    /// Has writes of the ring register come by a doorbell, whose ring calls [`Storm::ring`].
    pub fn set_doorbell(&mut self, doorbell: Option<Box<dyn Connection>>) {
        self.doorbell = doorbell;
    }

    /// Raises an event on each running channel.
    pub fn ring(&mut self) {
        for channel in &mut self.channels {
            channel.ring(&self.msi);
        }
        self.settle();
    }

    /// Some channel raises by itself.
    pub fn is_raising(&self) -> bool {
        self.channels.iter().any(|channel| channel.next().is_some())
    }

    fn settle(&mut self) {
        let next = self.channels.iter().filter_map(Channel::next).min();
        self.deadline.set(next);
    }

    /// The register at `offset` that a whole access of `len` bytes is for.
    fn read_register(&self, offset: u64, len: usize) -> Option<u64> {
        match (offset, len) {
            (SIGNATURE, 4) => Some(SIGNATURE_VALUE.into()),
            (COUNT_OF_CHANNELS, 4) => Some(CHANNELS as u64),
            (RING, 4) => Some(0),
            _ => {
                let (channel, register) = split(offset)?;
                self.channels[channel].read(register, len)
            }
        }
    }
}

/// Channel and register at `offset`.
fn split(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(CHANNEL_0)?;
    let channel = (offset / CHANNEL_BYTES) as usize;
    (offset < WINDOW && channel < CHANNELS).then_some((channel, offset % CHANNEL_BYTES))
}

impl BusDevice for Storm {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        match self.read_register(offset, data.len()) {
            Some(value) => data.copy_from_slice(&value.to_le_bytes()[..data.len()]),
            None => data.fill(0xff),
        }
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) {
            return;
        }
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        if offset == RING {
            return self.ring();
        }
        if let Some((channel, register)) = split(offset) {
            self.channels[channel].write(now, register, value, data.len(), &self.wires);
            self.settle();
        }
    }
}

impl TimedDevice for Storm {
    fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        for channel in &mut self.channels {
            channel.expire(now, &self.msi);
        }
        self.settle();
    }
}
