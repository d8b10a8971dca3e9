//! The block device (VIRTIO 1.2, section "Block Device").
//!
//! A request's way: the driver notifies, and the vCPU's exit schedules the submission, which runs from BLOCK: it takes chains,
//! reads their headers, and hands requests to the lanes, which are work items and may block ([`io`]). A lane's end
//! schedules the completion, which runs from IRQ_POLL: it writes statuses and gives the chains back.
//!
//! The user may have requests tried first where they are taken, without waiting for the disk (`attempts`).
//!
//! A reset does not wait for requests that are under way. They touch guest memory no more (see [`io`]), and no request of
//! the driver's next life starts before the last of them has ended, so their order on the disk is kept.
//!
//! Not modelled: several queues, writeback toggling, secure erase, lifetime information, zoned devices.

mod attempts;
pub mod io;
#[cfg(test)]
mod random_chains;
mod request;
pub mod storage;

use std::sync::Arc;

use bottom_half::{Cpu, Softirq, System, Tasklet, Turn, Vector, WorkQueue};

use super::queue::write;
use super::{Common, Device, Home, Kind, Runner, Serve};
use attempts::{Attempts, Trier};
use io::{Completion, Io, Lanes};
use request::{Parsed, parse};
pub use storage::Storage;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_attempts;
#[cfg(test)]
mod tests_durable;
#[cfg(test)]
mod tests_lanes;

/// Bytes of the unit in which the driver counts, whatever the disk's blocks are.
pub const SECTOR: u64 = 512;
/// Descriptors of the queue.
const QUEUE_SIZE: u16 = 256;
/// The only queue.
const REQUESTS: u16 = 0;
/// Segments of a request, all descriptors but header and status.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Ranges of one discard or write-zeroes request, and sectors of each.
pub(crate) const MAX_RANGES: u32 = 16;
pub(crate) const MAX_RANGE_SECTORS: u32 = 1 << 22;
/// Requests taken in one turn, so that others have theirs.
const BUDGET: usize = 64;

/// Feature bits.
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLOCK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Bytes of the configuration structure up to the last field that we have.
const CONFIG_BYTES: usize = 60;

/// Status of a request.
pub(crate) mod result {
    pub const OK: u8 = 0;
    pub const IO_ERROR: u8 = 1;
    pub const UNSUPPORTED: u8 = 2;
}

/// A disk.
pub struct Blk {
    name: String,
    io: Arc<Io>,
    handles: Option<Handles>,
}

/// What runs its slow parts; set when device and transport are put together.
struct Handles {
    submit: Runner,
    attempts: Option<Attempts>,
    lanes: Arc<Lanes>,
}

impl Blk {
    /// A disk on `storage`, called `name` in the log.
    pub fn new(name: String, storage: Arc<dyn Storage>) -> Self {
        Self { io: Arc::new(Io::new(name.clone(), storage)), name, handles: None }
    }

    /// Takes what is in the queue, within its budget. True: there is more.
    fn submit(&mut self, common: &mut Common) -> bool {
        if self.io.is_draining() {
            // The last request from before the reset has this run again.
            return false;
        }
        common.no_notification(REQUESTS);
        let mut fresh = 0;
        let mut more = true;
        for _ in 0..BUDGET {
            let Some(chain) = common.pop(REQUESTS) else {
                more = common.want_notification(REQUESTS);
                if more {
                    continue;
                }
                break;
            };
            let durable = !common.has(FLUSH);
            match parse(&chain, common.memory(), self.io.storage(), durable) {
                Ok(Parsed::Request(request)) if self.attempts().is_some() => self.io.add_untried(request),
                Ok(Parsed::Request(request)) => {
                    self.io.add(request);
                    fresh += 1;
                }
                Ok(Parsed::Answered { status, result }) => {
                    let written = write(common.memory(), &[status], 0, &[result]);
                    common.push(REQUESTS, chain.head(), written as u32);
                    common.done(REQUESTS);
                }
                Err(broken) => common.broken(&broken),
            }
        }
        self.run_lanes(fresh);
        more
    }

    /// What is to be started when the lock is dropped.
    fn attempts(&self) -> Option<&Attempts> {
        self.handles.as_ref()?.attempts.as_ref()
    }

    fn run_lanes(&self, fresh: usize) {
        if let Some(handles) = &self.handles {
            handles.lanes.queue(fresh);
        }
    }

    /// Gives back what the lanes have done. True: submission may go on that has waited for this.
    fn complete(&mut self, common: &mut Common) -> bool {
        let (done, drained) = self.io.take_done();
        let mut any = false;
        for Completion { head, status, result, written } in done {
            write(common.memory(), &[status], 0, &[result]);
            common.push(REQUESTS, head, written.saturating_add(1));
            any = true;
        }
        if any {
            common.done(REQUESTS);
        }
        drained
    }
}

impl Device for Blk {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> u64 {
        let storage = self.io.storage();
        let read_only = if storage.is_read_only() { READ_ONLY } else { DISCARD | WRITE_ZEROES };
        SEG_MAX | BLOCK_SIZE | FLUSH | read_only
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let storage = self.io.storage();
        let sectors_per_block = u32::try_from(u64::from(storage.block_size()) / SECTOR).unwrap_or(1);
        let mut config = [0; CONFIG_BYTES];
        config[0..8].copy_from_slice(&(storage.bytes() / SECTOR).to_le_bytes());
        config[12..16].copy_from_slice(&MAX_SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&storage.block_size().to_le_bytes());
        config[34..36].copy_from_slice(&1u16.to_le_bytes());
        if !storage.is_read_only() {
            config[36..40].copy_from_slice(&MAX_RANGE_SECTORS.to_le_bytes());
            config[40..44].copy_from_slice(&MAX_RANGES.to_le_bytes());
            config[44..48].copy_from_slice(&sectors_per_block.to_le_bytes());
            config[48..52].copy_from_slice(&MAX_RANGE_SECTORS.to_le_bytes());
            config[52..56].copy_from_slice(&MAX_RANGES.to_le_bytes());
            // write_zeroes_may_unmap
            config[56] = 1;
        }
        data.fill(0);
        let start = usize::try_from(offset).unwrap_or(CONFIG_BYTES).min(CONFIG_BYTES);
        for (byte, value) in data.iter_mut().zip(&config[start..]) {
            *byte = *value;
        }
    }

    fn submission(&self, _queue: u16) -> Option<Runner> {
        self.handles.as_ref().map(|handles| handles.submit.clone())
    }

    fn reset_queue(&mut self, _queue: u16) {
        self.io.forget();
    }
}

/// Where a disk's slow parts run.
pub struct Places<'a> {
    /// Submission and completion: on this CPU of this system.
    pub cpu: (&'a System, &'a Arc<Cpu>),
    /// I/O that may block.
    pub queue: &'a WorkQueue,
    /// How many requests are on the queue at once.
    pub lanes: usize,
    /// Where requests are tried before; [`Home::WorkQueue`]: they are not.
    pub first: Home,
}

/// Puts a disk's slow parts in their places. To be called once, before the guest runs.
pub fn attach<T: Serve<Blk> + 'static>(device: &Arc<T>, places: &Places<'_>) {
    let (system, cpu) = places.cpu;
    // The device has its tasklets; they must not have the device.
    let back = Arc::downgrade(device);
    let submit = Tasklet::on_vector(system, cpu, Vector::Block, move |_: &Softirq<'_>| {
        let (mut more, mut attempts) = (false, None);
        if let Some(device) = back.upgrade() {
            device.serve(&mut |blk, common| {
                more = blk.submit(common);
                attempts = blk.attempts().cloned();
            });
        }
        match attempts.map_or(Turn::Done, |attempts| attempts.start()) {
            Turn::Done if !more => Turn::Done,
            _ => Turn::Again,
        }
    });
    let back = Arc::downgrade(device);
    let complete = Tasklet::on_vector(system, cpu, Vector::IrqPoll, move |_: &Softirq<'_>| {
        let Some(device) = back.upgrade() else { return };
        device.serve(&mut |blk, common| {
            if blk.complete(common) {
                blk.notify(REQUESTS);
            }
        });
    });
    let complete = Arc::new(complete);
    let mut submit = Some(Runner::Softirq(Arc::new(submit)));
    device.serve(&mut |blk, common| {
        let Some(submit) = submit.take() else { return };
        let lanes = Lanes::new(&blk.io, common.memory().clone(), places.queue, places.lanes, &complete);
        let trier = Trier::new(&blk.io, common.memory().clone(), &lanes, &complete);
        let attempts = Attempts::new(places.first, places.cpu, trier);
        blk.handles = Some(Handles { submit, attempts, lanes });
    });
}
