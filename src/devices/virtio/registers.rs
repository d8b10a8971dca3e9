//! The registers that every transport has, wherever it has them, and what they act on: device, common state and doorbells.

use std::sync::Arc;

use super::bells::Bells;
use super::common::Common;
use super::queue::{Part, Queue};
use super::{Device, Memory};
use crate::doorbell::{Doorbells, Written};

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// Which half of the offered features is read.
    OfferedSelect,
    /// That half.
    Offered,
    /// Which half of the accepted features is written.
    AcceptedSelect,
    /// That half.
    Accepted,
    /// How many queues there are.
    Queues,
    /// Device status.
    Status,
    /// The configuration's generation.
    Generation,
    /// Which queue the following are of.
    QueueSelect,
    /// The most descriptors.
    QueueMaxSize,
    /// Descriptors.
    QueueSize,
    /// Whether it is enabled.
    QueueEnable,
    /// Half of the address of a part, the upper one if true.
    QueuePart(Part, bool),
    /// A one resets it, at once.
    QueueReset,
}

/// What is behind the registers.
pub struct Registers<D> {
    /// What it is.
    pub device: D,
    /// What it has in common with others.
    pub common: Common,
    bells: Bells,
    offered_select: u32,
    accepted_select: u32,
    queue_select: u16,
}

impl<D: Device> Registers<D> {
    /// After reset.
    pub fn new(device: D, memory: Memory, doorbells: Arc<dyn Doorbells>) -> Self {
        let common = Common::new(&device, memory);
        let bells = Bells::new(doorbells);
        Self { device, common, bells, offered_select: 0, accepted_select: 0, queue_select: 0 }
    }

    /// The number of the selected queue, which need not be there.
    pub fn queue_select(&self) -> u16 {
        self.queue_select
    }

    /// A register's value; what can only be written reads as it was written, or as zero.
    pub fn read(&self, register: Register) -> u32 {
        let queue = self.common.queue(self.queue_select);
        match register {
            Register::OfferedSelect => self.offered_select,
            Register::Offered => self.common.offered(self.offered_select),
            Register::AcceptedSelect => self.accepted_select,
            Register::Accepted => self.common.accepted(self.accepted_select),
            Register::Queues => self.common.queue_count().into(),
            Register::Status => self.common.status().into(),
            Register::Generation => self.common.generation().into(),
            Register::QueueSelect => self.queue_select.into(),
            Register::QueueMaxSize => queue.map_or(0, |queue| queue.max_size().into()),
            Register::QueueSize => queue.map_or(0, |queue| queue.size().into()),
            Register::QueueEnable => queue.is_some_and(Queue::is_enabled).into(),
            Register::QueuePart(part, high) => {
                let address = queue.map_or(0, |queue| queue.part(part));
                if high { (address >> 32) as u32 } else { address as u32 }
            }
            Register::QueueReset => 0,
        }
    }

    /// A write; what can only be read is left as it is. After one of the status, doorbells are to follow
    /// ([`Registers::follow`]), and if it was zero the transport's own registers are as new.
    pub fn write(&mut self, register: Register, value: u32) {
        let queue = self.queue_select;
        match register {
            Register::OfferedSelect => self.offered_select = value,
            Register::AcceptedSelect => self.accepted_select = value,
            Register::Accepted => self.common.accept(self.accepted_select, value),
            Register::Status => {
                self.common.write_status(value as u8, &mut self.device);
                if value as u8 == 0 {
                    (self.offered_select, self.accepted_select, self.queue_select) = (0, 0, 0);
                }
            }
            // No queue has such a number, and no queue such a size.
            Register::QueueSelect => self.queue_select = u16::try_from(value).unwrap_or(u16::MAX),
            Register::QueueSize => self.common.set_queue_size(queue, u16::try_from(value).unwrap_or(0)),
            Register::QueueEnable if value == 1 => self.common.enable_queue(queue),
            Register::QueuePart(part, high) => self.common.set_queue_part(queue, part, high, value),
            Register::QueueReset if value == 1 && self.common.may_reset_queues() => {
                self.common.reset_queue(queue, &mut self.device);
            }
            Register::QueueEnable | Register::QueueReset => {}
            Register::Offered | Register::Queues | Register::Generation | Register::QueueMaxSize => {}
        }
    }

    /// The driver notifies of a queue.
    pub fn notify(&mut self, queue: u16) {
        self.common.notify(queue, &mut self.device);
    }

    /// Doorbells follow the status and the `base` from which `place` counts: see [`Bells::follow`].
    pub fn follow(&mut self, base: Option<u64>, place: impl Fn(u64, u16) -> (u64, Written)) {
        self.bells.follow(base, &mut self.device, &mut self.common, place);
    }
}
