//! One device in several places on the bus.

use std::sync::Arc;

use parking_lot::Mutex;
use x86::Nanos;

use crate::traits::BusDevice;

/// A view of a device that starts at one of its offsets, for devices whose ports are not in one piece.
///
/// Lock order: the lock around the window, if the bus has one, before the device's.
pub struct Window<D> {
    device: Arc<Mutex<D>>,
    base: u64,
}

impl<D: BusDevice> Window<D> {
    /// A view of `device` whose offset 0 is the device's `base`.
    pub fn new(device: Arc<Mutex<D>>, base: u64) -> Self {
        Self { device, base }
    }
}

impl<D: BusDevice> BusDevice for Window<D> {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        match offset.checked_add(self.base) {
            Some(offset) => self.device.lock().read(now, offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_add(self.base) {
            self.device.lock().write(now, offset, data);
        }
    }
}
