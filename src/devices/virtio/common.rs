//! What all virtio devices have: status, features, queues (VIRTIO 1.2, chapter "Basic Facilities of a Virtio Device").

use super::queue::{Broken, Chain, Part, Queue};
use super::{Device, Memory};

/// Bits of the device status (section "Device Status Field").
pub mod status {
    /// The driver has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// There is a driver.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device can't go on.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Feature bits that every device offers (chapter "Reserved Feature Bits").
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const RING_RESET: u64 = 1 << 40;
const OFFERED: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET;

/// Interrupts that are owed to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Interrupts {
    /// Queues with used buffers, a bit each.
    pub queues: u64,
    /// Configuration or status has changed.
    pub config: bool,
}

/// A device's state but for what it is.
pub struct Common {
    memory: Memory,
    name: String,
    offered: u64,
    accepted: u64,
    status: u8,
    queues: Vec<Queue>,
    generation: u8,
    owed: Interrupts,
    /// Notifications of queues that were not there or not enabled.
    stray: u64,
    /// How often a driver has broken it.
    breaks: u64,
}

/// How often the log says that the driver is wrong: a guest that goes on so must not fill it.
const COMPLAINTS: u64 = 8;

impl Common {
    /// The state after reset of `device`, with guest memory.
    ///
    /// # Panics
    ///
    /// When the device has more than 64 queues: a bug.
    pub fn new(device: &impl Device, memory: Memory) -> Self {
        let queues: Vec<_> = device.queues().into_iter().map(Queue::new).collect();
        assert!(queues.len() <= 64, "more queues than bits");
        Self {
            memory,
            name: device.name().to_owned(),
            offered: device.features() | OFFERED,
            accepted: 0,
            status: 0,
            queues,
            generation: 0,
            owed: Interrupts::default(),
            stray: 0,
            breaks: 0,
        }
    }

    /// Guest memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Half `select` of the features that the device offers; zero from the third on.
    pub fn offered(&self, select: u32) -> u32 {
        half(self.offered, select)
    }

    /// Half `select` of the features that the driver has accepted.
    pub fn accepted(&self, select: u32) -> u32 {
        half(self.accepted, select)
    }

    /// Whether the driver has accepted all these features.
    pub fn has(&self, features: u64) -> bool {
        self.accepted & features == features
    }

    /// The driver accepts these; nothing once features are agreed on.
    pub fn accept(&mut self, select: u32, bits: u32) {
        if self.status & status::FEATURES_OK == 0
            && let 0 | 1 = select
        {
            let shift = 32 * select;
            self.accepted = self.accepted & !(u64::from(u32::MAX) << shift) | u64::from(bits) << shift;
        }
    }

    /// The device status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The configuration's generation.
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// How many queues there are.
    pub fn queue_count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// A queue's setup.
    pub fn queue(&self, index: u16) -> Option<&Queue> {
        self.queues.get(usize::from(index))
    }

    /// How many notifications were for queues that are not there or not enabled.
    pub fn stray(&self) -> u64 {
        self.stray
    }

    /// The driver writes the status; zero is a reset. Bits can only be added.
    pub fn write_status(&mut self, value: u8, device: &mut impl Device) {
        if value == 0 {
            return self.reset(device);
        }
        let added = value & !self.status;
        let mut next = self.status | value & !status::NEEDS_RESET;
        if added & status::FEATURES_OK != 0 && !(self.accepted & !self.offered == 0 && self.has(VERSION_1)) {
            // "the device MUST NOT accept": the driver reads it back.
            next &= !status::FEATURES_OK;
        }
        if added & status::DRIVER_OK != 0 && next & status::FEATURES_OK == 0 {
            next &= !status::DRIVER_OK;
        }
        let starts = next & !self.status & status::DRIVER_OK != 0;
        self.status = next;
        if starts && self.is_running() {
            device.start(self);
        }
    }

    /// Everything as new; guest memory is not touched any more when this returns.
    pub fn reset(&mut self, device: &mut impl Device) {
        for index in 0..self.queue_count() {
            self.reset_queue(index, device);
        }
        (self.accepted, self.status) = (0, 0);
        self.owed = Interrupts::default();
    }

    /// One queue as new (section "Virtqueue Reset").
    pub fn reset_queue(&mut self, index: u16, device: &mut impl Device) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            device.reset_queue(index);
            queue.reset();
            self.owed.queues &= !(1 << index);
        }
    }

    /// Whether the driver may reset single queues.
    pub fn may_reset_queues(&self) -> bool {
        self.has(RING_RESET) && self.status & status::FEATURES_OK != 0
    }

    /// A queue that the driver may set up now.
    fn settable(&mut self, index: u16) -> Option<&mut Queue> {
        let agreed = self.status & (status::FEATURES_OK | status::NEEDS_RESET | status::FAILED) == status::FEATURES_OK;
        self.queues.get_mut(usize::from(index)).filter(|queue| agreed && !queue.is_enabled())
    }

    /// The driver sets a queue's size.
    pub fn set_queue_size(&mut self, index: u16, size: u16) {
        if let Some(queue) = self.settable(index) {
            queue.set_size(size);
        }
    }

    /// The driver sets half of a queue's address.
    pub fn set_queue_part(&mut self, index: u16, part: Part, high: bool, bits: u32) {
        let shift = if high { 32 } else { 0 };
        if let Some(queue) = self.settable(index) {
            queue.set_part(part, u64::from(u32::MAX) << shift, u64::from(bits) << shift);
        }
    }

    /// The driver enables a queue.
    pub fn enable_queue(&mut self, index: u16) {
        let (memory, event_index) = (self.memory.clone(), self.has(EVENT_IDX));
        if let Some(Err(broken)) = self.settable(index).map(|queue| queue.enable(&memory, event_index)) {
            self.broken(&broken);
        }
    }

    /// The driver notifies of a queue.
    pub fn notify(&mut self, index: u16, device: &mut impl Device) {
        if self.is_running() && self.queue(index).is_some_and(Queue::is_enabled) {
            device.notify(index);
        } else {
            if self.stray == 0 {
                log::debug!("{}: notified of queue {index}, which is not in use; further ones are counted", self.name);
            }
            self.stray = self.stray.saturating_add(1);
        }
    }

    /// Whether the driver is ready and the device not broken.
    pub fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET | status::FAILED) == status::DRIVER_OK
    }

    /// Takes the next chain of a queue; none if the device does not run. A bad one breaks the device.
    pub fn pop(&mut self, index: u16) -> Option<Chain> {
        self.with_queue(index, Queue::pop).flatten()
    }

    /// Gives chain `head` back, `written` bytes of it written. The interrupt follows by [`Common::done`].
    pub fn push(&mut self, index: u16, head: u16, written: u32) {
        self.with_queue(index, |queue, memory| queue.push(memory, head, written));
    }

    /// Owes the driver an interrupt, if it wants one for what was given back.
    pub fn done(&mut self, index: u16) {
        if self.with_queue(index, Queue::wants_interrupt) == Some(true) {
            self.owed.queues |= 1 << index;
        }
    }

    /// Asks the driver to notify of the next chain. True: there is one already.
    pub fn want_notification(&mut self, index: u16) -> bool {
        self.with_queue(index, Queue::want_notification) == Some(true)
    }

    /// Tells the driver that it need not notify.
    pub fn no_notification(&mut self, index: u16) {
        self.with_queue(index, Queue::no_notification);
    }

    /// The device's configuration has changed.
    pub fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.owed.config |= self.status & status::DRIVER_OK != 0;
    }

    /// The driver has broken a rule: the device asks to be reset, and does nothing until then.
    pub fn broken(&mut self, why: &Broken) {
        if self.status & status::NEEDS_RESET == 0 {
            self.breaks = self.breaks.saturating_add(1);
            if self.breaks <= COMPLAINTS {
                let last = if self.breaks == COMPLAINTS { " (further ones are not logged)" } else { "" };
                log::warn!("{}: the guest's driver is wrong, the device needs a reset{last}: {}", self.name, why.0);
            }
            self.status |= status::NEEDS_RESET;
            self.owed.config |= self.status & status::DRIVER_OK != 0;
        }
    }

    /// Takes the interrupts that are owed.
    pub fn take_owed(&mut self) -> Interrupts {
        std::mem::take(&mut self.owed)
    }

    fn with_queue<R>(&mut self, index: u16, f: impl FnOnce(&mut Queue, &Memory) -> Result<R, Broken>) -> Option<R> {
        if !self.is_running() {
            return None;
        }
        let queue = self.queues.get_mut(usize::from(index)).filter(|queue| queue.is_enabled())?;
        match f(queue, &self.memory) {
            Ok(result) => Some(result),
            Err(broken) => {
                self.broken(&broken);
                None
            }
        }
    }
}

fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
