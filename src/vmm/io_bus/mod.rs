//! Port and memory buses: from an address to a device.
//!
//! Built once, then only read. What nobody claims reads as all ones and swallows writes, as on a PC; it is counted, and
//! logged no more than `MAX_REPORTS` times, so that a guest can't flood the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::BusDevice;
use parking_lot::Mutex;
use x86::Nanos;

/// How many unclaimed accesses are logged per bus.
const MAX_REPORTS: u64 = 16;

/// Something on a bus that has its own idea of locking.
pub trait Handler: Send + Sync {
    /// A read at `offset` from the start of its range; fills all of `data`.
    fn read(&self, now: Nanos, offset: u64, data: &mut [u8]);
    /// A write at `offset` from the start of its range.
    fn write(&self, now: Nanos, offset: u64, data: &[u8]);
}

impl<D: BusDevice> Handler for Mutex<D> {
    fn read(&self, now: Nanos, offset: u64, data: &mut [u8]) {
        self.lock().read(now, offset, data);
    }

    fn write(&self, now: Nanos, offset: u64, data: &[u8]) {
        self.lock().write(now, offset, data);
    }
}

struct Range {
    base: u64,
    len: u64,
    handler: Arc<dyn Handler>,
}

/// One address space.
pub struct IoBus {
    name: &'static str,
    ranges: Vec<Range>,
    unclaimed: AtomicU64,
}

impl IoBus {
    /// An empty bus; `name` is for the log.
    pub fn new(name: &'static str) -> Self {
        Self { name, ranges: Vec::new(), unclaimed: AtomicU64::new(0) }
    }

    /// Puts `handler` at `base`, `len` addresses long.
    ///
    /// # Panics
    ///
    /// When the range overlaps another: the platform map is wrong.
    pub fn insert(&mut self, base: u64, len: u64, handler: Arc<dyn Handler>) {
        let at = self.ranges.partition_point(|range| range.base < base);
        let free = |range: Option<&Range>| range.is_none_or(|r| r.base >= base + len || r.base + r.len <= base);
        let before = at.checked_sub(1).and_then(|i| self.ranges.get(i));
        assert!(free(before) && free(self.ranges.get(at)), "{} range {base:#x}+{len:#x} overlaps another", self.name);
        self.ranges.insert(at, Range { base, len, handler });
    }

    /// Reads; a device sees no more than its own range, the rest is all ones.
    pub fn read(&self, now: Nanos, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((range, offset)) => {
                let inside = data.len().min((range.len - offset) as usize);
                let (inside, outside) = data.split_at_mut(inside);
                range.handler.read(now, offset, inside);
                outside.fill(0xff);
            }
            None => {
                data.fill(0xff);
                self.report("read", address, data.len());
            }
        }
    }

    /// Writes; a device sees no more than its own range.
    pub fn write(&self, now: Nanos, address: u64, data: &[u8]) {
        match self.find(address) {
            Some((range, offset)) => {
                let inside = data.len().min((range.len - offset) as usize);
                range.handler.write(now, offset, &data[..inside]);
            }
            None => self.report("write", address, data.len()),
        }
    }

    /// How many accesses nobody claimed.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    fn find(&self, address: u64) -> Option<(&Range, u64)> {
        let at = self.ranges.partition_point(|range| range.base <= address).checked_sub(1)?;
        let range = &self.ranges[at];
        let offset = address - range.base;
        (offset < range.len).then_some((range, offset))
    }

    fn report(&self, what: &str, address: u64, size: usize) {
        let count = self.unclaimed.fetch_add(1, Ordering::Relaxed);
        if count < MAX_REPORTS {
            log::debug!("{} {what} of {size} bytes at {address:#x}: nothing there", self.name);
        } else if count == MAX_REPORTS {
            log::debug!("{}: more accesses to nothing are counted, not logged", self.name);
        }
    }
}

#[cfg(test)]
mod tests;
