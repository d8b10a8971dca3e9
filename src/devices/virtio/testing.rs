//! The driver's side of a queue, in memory of its own.

use std::sync::Arc;

use bottom_half::{Config, System, Tasklet, ThreadPort};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::queue::{Part, Queue};
use super::{Common, Device, Kind, Memory, Runner, status};

/// Bytes of test memory; it starts at 0.
pub const MEMORY: u64 = 1 << 20;
/// `desc.flags`.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Memory for a test.
pub fn memory() -> Memory {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("memory")
}

/// One queue's rings.
pub struct Ring {
    memory: Memory,
    size: u16,
    base: u64,
    free: u16,
    available: u16,
    seen: u16,
}

impl Ring {
    /// Rings of `size` descriptors at `base`, in three pages of 4 KiB.
    pub fn new(memory: &Memory, base: u64, size: u16) -> Self {
        Self { memory: memory.clone(), size, base, free: 0, available: 0, seen: 0 }
    }

    /// Where a part is.
    pub fn part(&self, part: Part) -> u64 {
        self.base + 0x1000 * part as u64
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).expect("memory");
    }

    fn get<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory.read_obj(GuestAddress(at)).expect("memory")
    }

    /// Writes a descriptor to a table.
    pub fn describe(&self, table: u64, index: u16, (address, len): (u64, u32), flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes the chain that starts at `head` available.
    pub fn offer(&mut self, head: u16) {
        let at = self.part(Part::Driver);
        self.put(at + 4 + 2 * u64::from(self.available % self.size), head);
        self.set_available(self.available.wrapping_add(1));
    }

    /// Writes the available ring's index.
    pub fn set_available(&mut self, index: u16) {
        self.available = index;
        self.put(self.part(Part::Driver) + 2, index);
    }

    /// Makes a chain of these buffers available: address, length, whether the device writes it.
    pub fn chain(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        let table = self.part(Part::Descriptors);
        let head = self.free;
        for (n, &(address, len, writable)) in buffers.iter().enumerate() {
            let last = n + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT } | if writable { WRITE } else { 0 };
            let next = (self.free + 1) % self.size;
            self.describe(table, self.free, (address, len), flags, next);
            self.free = next;
        }
        self.offer(head);
        head
    }

    /// What is new in the used ring: heads and lengths.
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let at = self.part(Part::Device);
        let index: u16 = self.get(at + 2);
        let mut used = Vec::new();
        while self.seen != index {
            let element = at + 4 + 8 * u64::from(self.seen % self.size);
            used.push((self.get(element), self.get(element + 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    /// `avail.flags`.
    pub fn set_flags(&self, flags: u16) {
        self.put(self.part(Part::Driver), flags);
    }

    /// `used.flags`.
    pub fn used_flags(&self) -> u16 {
        self.get(self.part(Part::Device))
    }

    /// `used_event`.
    pub fn set_used_event(&self, index: u16) {
        self.put(self.part(Part::Driver) + 4 + 2 * u64::from(self.size), index);
    }

    /// `avail_event`.
    pub fn available_event(&self) -> u16 {
        self.get(self.part(Part::Device) + 4 + 8 * u64::from(self.size))
    }

    /// Sets a queue up for these rings.
    pub fn set_up(&self, queue: &mut Queue) {
        queue.set_size(self.size);
        for part in [Part::Descriptors, Part::Driver, Part::Device] {
            queue.set_part(part, u64::MAX, self.part(part));
        }
    }

    /// The same through a device's common part, and enables it.
    pub fn set_up_in(&self, common: &mut Common, queue: u16) {
        common.set_queue_size(queue, self.size);
        for part in [Part::Descriptors, Part::Driver, Part::Device] {
            common.set_queue_part(queue, part, false, self.part(part) as u32);
            common.set_queue_part(queue, part, true, 0);
        }
        common.enable_queue(queue);
    }
}

/// VIRTIO_F_VERSION_1, in the upper half.
pub const VERSION_1: u32 = 1;

/// Brings a device as far as FEATURES_OK.
pub fn agree(common: &mut Common, device: &mut impl Device, low: u32, high: u32) {
    common.write_status(status::ACKNOWLEDGE, device);
    common.write_status(status::ACKNOWLEDGE | status::DRIVER, device);
    common.accept(0, low);
    common.accept(1, high | VERSION_1);
    common.write_status(common.status() | status::FEATURES_OK, device);
}

/// The driver is ready.
pub fn go(common: &mut Common, device: &mut impl Device) {
    common.write_status(common.status() | status::DRIVER_OK, device);
}

/// A tasklet on a system of its own, which does nothing.
pub fn tasklet() -> (System, Arc<Tasklet>) {
    let (system, owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    let tasklet = Tasklet::new(&system, owners[0].cpu(), |_| ());
    (system, Arc::new(tasklet))
}

/// A device with two queues that remembers what it was told.
#[derive(Default)]
pub struct Plain {
    pub started: usize,
    pub notified: Vec<u16>,
    pub forgotten: Vec<u16>,
    pub config: [u8; 8],
    pub tasklet: Option<Arc<Tasklet>>,
}

impl Device for Plain {
    fn kind(&self) -> Kind {
        Kind::Entropy
    }

    fn name(&self) -> &str {
        "plain"
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queues(&self) -> Vec<u16> {
        vec![16, 8]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(self.config.iter().skip(offset as usize)) {
            *byte = *value;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8], common: &mut Common) {
        for (place, byte) in self.config.iter_mut().skip(offset as usize).zip(data) {
            *place = *byte;
        }
        common.config_changed();
    }

    fn start(&mut self, _common: &mut Common) {
        self.started += 1;
    }

    fn notify(&mut self, queue: u16) {
        self.notified.push(queue);
    }

    fn submission(&self, _queue: u16) -> Option<Runner> {
        self.tasklet.clone().map(Runner::Softirq)
    }

    fn reset_queue(&mut self, queue: u16) {
        self.forgotten.push(queue);
    }
}
