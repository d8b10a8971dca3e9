//! The entropy device (VIRTIO 1.2, section "Entropy Device"): buffers are filled from the host's random number generator.

use std::sync::Arc;

use bottom_half::{Cpu, Softirq, System, Tasklet, Turn};

use super::queue::{total, write};
use super::{Common, Device, Kind, Runner, Serve};

#[cfg(test)]
mod tests;

const QUEUE_SIZE: u16 = 64;
/// The only queue.
const REQUESTS: u16 = 0;
/// The most bytes that one buffer gets; the driver asks again if it wants more.
const MAX_BYTES: usize = 4096;
/// Buffers filled in one turn.
const BUDGET: usize = 16;

/// Fills memory with random bytes; false if it can't. Must not block.
pub type Source = fn(&mut [u8]) -> bool;

/// The device.
pub struct Rng {
    source: Source,
    fill: Option<Runner>,
}

impl Rng {
    /// A device with bytes of `source`.
    pub fn new(source: Source) -> Self {
        Self { source, fill: None }
    }

    /// Fills what is in the queue, within its budget.
    fn fill(&mut self, common: &mut Common) -> Turn {
        common.no_notification(REQUESTS);
        let mut turn = Turn::Again;
        for _ in 0..BUDGET {
            let Some(chain) = common.pop(REQUESTS) else {
                if common.want_notification(REQUESTS) {
                    continue;
                }
                turn = Turn::Done;
                break;
            };
            let mut bytes = [0; MAX_BYTES];
            let len = total(chain.writable()).min(MAX_BYTES as u64) as usize;
            let filled = (self.source)(&mut bytes[..len]);
            let written = if filled { write(common.memory(), chain.writable(), 0, &bytes[..len]) } else { 0 };
            common.push(REQUESTS, chain.head(), written as u32);
        }
        common.done(REQUESTS);
        turn
    }
}

impl Device for Rng {
    fn kind(&self) -> Kind {
        Kind::Entropy
    }

    fn name(&self) -> &str {
        "rng"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn submission(&self, _queue: u16) -> Option<Runner> {
        self.fill.clone()
    }

    fn reset_queue(&mut self, _queue: u16) {}
}

/// Puts its slow part on a system of bottom halves: a tasklet on `cpu`. To be called once, before the guest runs.
pub fn attach<T: Serve<Rng> + 'static>(device: &Arc<T>, system: &System, cpu: &Arc<Cpu>) {
    let back = Arc::downgrade(device);
    let fill = Tasklet::new(system, cpu, move |_: &Softirq<'_>| {
        let mut turn = Turn::Done;
        if let Some(device) = back.upgrade() {
            device.serve(&mut |rng, common| turn = rng.fill(common));
        }
        turn
    });
    let mut fill = Some(Runner::Softirq(Arc::new(fill)));
    device.serve(&mut |rng, _| rng.fill = fill.take());
}
