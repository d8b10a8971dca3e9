//! The doorbells of a device's queues: while its driver is ready, notifications need no exit.

use std::sync::Arc;

use super::Device;
use super::common::{Common, status};
use crate::doorbell::{Connection, Doorbells, Written};

/// Doorbells of one device.
pub struct Bells {
    doorbells: Arc<dyn Doorbells>,
    connected: Vec<Box<dyn Connection>>,
    /// The address that they were connected for.
    at: Option<u64>,
}

impl Bells {
    /// None connected yet.
    pub fn new(doorbells: Arc<dyn Doorbells>) -> Self {
        Self { doorbells, connected: Vec::new(), at: None }
    }

    /// Follows a change of the device's status or address: connected while the driver is ready and the device is at some
    /// `base`. `place` says where in memory a queue's notifications are, and which writes are some.
    pub fn follow<D: Device>(
        &mut self,
        base: Option<u64>,
        device: &mut D,
        common: &mut Common,
        place: impl Fn(u64, u16) -> (u64, Written),
    ) {
        let wanted = base.filter(|_| common.status() & status::DRIVER_OK != 0);
        if wanted == self.at {
            return;
        }
        self.at = wanted;
        let was_connected = !self.connected.is_empty();
        self.connected.clear();
        for queue in 0..common.queue_count() {
            if let (Some(base), Some(submission)) = (wanted, device.submission(queue)) {
                let (address, written) = place(base, queue);
                // What is scheduled does not keep the device.
                let ring = Box::new(move |_: &bottom_half::TopHalf<'_>| submission.schedule());
                self.connected.extend(self.doorbells.connect(address, written, ring));
            }
            // A write may have been on its way to the old one.
            if was_connected && common.is_running() {
                device.notify(queue);
            }
        }
    }
}
