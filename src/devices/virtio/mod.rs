//! Virtio devices (Virtual I/O Device specification, VIRTIO 1.2), with version 1 transports only.
//!
//! Three parts, under one lock:
//!
//! - a [`Device`]: what it is and what it does with its queues;
//! - its [`Common`]: status, features, queues, the same for all devices and transports;
//! - a transport, [`VirtioPci`] or [`VirtioMmio`]: registers and interrupts.
//!
//! A register access is a top half: it changes state, and a notification, an exit or a doorbell of the main loop, schedules
//! the [`Device::submission`]. The slow
//! part calls the transport's [`Serve::serve`], which has device and common parts, and delivers the interrupts that came of
//! it. Nothing in there blocks: what does (a disk's I/O) runs with no lock, in a work item, and comes back by
//! [`Serve::serve`].
//!
//! A driver that breaks a rule gets DEVICE_NEEDS_RESET, and a line in the log for each of the first times; nothing else of the
//! machine notices.
//!
//! Not modelled: legacy and transitional interfaces, packed queues, in-order use, administration queues, shared memory.

mod bells;
pub mod blk;
mod common;
pub mod console;
mod mmio;
pub mod net;
mod pci;
pub mod queue;
mod registers;
pub mod rng;
mod runner;
#[cfg(test)]
mod testing;

pub use common::{Common, Interrupts, status};
pub use mmio::{VirtioMmio, WINDOW as MMIO_WINDOW};
pub use pci::{BAR_BYTES, VirtioPci, Wires};
pub use runner::{Home, Runner};

/// Guest memory as devices see it: through vm-memory's traits only.
pub type Memory = vm_memory::GuestMemoryMmap;

/// Which device it is (section "Device Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Network device.
    Net = 1,
    /// Block device.
    Block = 2,
    /// Console.
    Console = 3,
    /// Entropy source.
    Entropy = 4,
}

/// What a device is and does, beside its transport. Called with its lock held: must not block.
pub trait Device: Send + 'static {
    /// Which device it is.
    fn kind(&self) -> Kind;
    /// A name for the log.
    fn name(&self) -> &str;
    /// Feature bits of this kind of device that it offers.
    fn features(&self) -> u64;
    /// The most descriptors of each of its queues.
    fn queues(&self) -> Vec<u16>;
    /// A read of the device's configuration; fills all of `data`, with zeroes beyond the end.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// A write of the device's configuration.
    fn write_config(&mut self, _offset: u64, _data: &[u8], _common: &mut Common) {}
    /// The driver is ready.
    fn start(&mut self, _common: &mut Common) {}
    /// The driver has put something into a queue: have it looked at soon.
    fn notify(&mut self, queue: u16) {
        if let Some(submit) = self.submission(queue) {
            submit.schedule();
        }
    }
    /// What looks at a queue; scheduled by notifications and doorbells. None before the machine is put together.
    fn submission(&self, queue: u16) -> Option<Runner>;
    /// Forget what is under way in this queue; guest memory must not be touched for it any more.
    fn reset_queue(&mut self, queue: u16);
}

/// The way from a device's slow part to its state.
pub trait Serve<D>: Send + Sync {
    /// Runs `work` with the device's lock held, then delivers the interrupts that came of it. Must not block.
    fn serve(&self, work: &mut dyn FnMut(&mut D, &mut Common));
}
