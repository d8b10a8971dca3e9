//! The network device (VIRTIO 1.2, section "Network Device"), on a tap interface.
//!
//! Transmission runs from NET_TX when the driver has notified, and in a stream of packets also without (`pacing`); reception from NET_RX
//! when the interface has packets or the driver new buffers. Each takes so many packets and then has others run, and each queue does so
//! by itself. Sending and receiving never block.
//!
//! A device may have several pairs of queues, each with a queue of the interface behind it, and then a control queue by which the driver
//! says how many of them it uses; it begins with one. All are under the device's one lock.
//!
//! What the header of a packet promises is between the guest and the host's network stack, which checks it. Which pair a packet comes in
//! by is the interface's choice: by flow, where the driver has last sent of it.
//!
//! Not modelled: other control commands (filters, VLANs, announcements), receive-side scaling, USO.

mod backend;
mod control;
mod pacing;
mod pair;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bottom_half::{Cpu, QueueKind, Softirq, System, Tasklet, Timer, Turn, Vector, Work};
use sys::tap::Offloads;

use super::{Common, Device, Home, Kind, Runner, Serve};
pub use backend::Backend;
use pair::{Handles, Pair};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_control;

const QUEUE_SIZE: u16 = 256;
/// The most pairs of queues.
pub const MAX_PAIRS: u16 = 16;

/// Feature bits: what the driver may leave to us.
const CSUM: u64 = 1 << 0;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
/// What we may leave to the driver.
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const MAC: u64 = 1 << 5;
const MERGEABLE: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CONTROL: u64 = 1 << 17;
const MULTIQUEUE: u64 = 1 << 22;

/// The link is up.
const LINK_UP: u16 = 1;

/// A network device.
pub struct Net {
    mac: [u8; 6],
    pairs: Vec<Pair>,
    /// How many of them the driver uses, at least one: the others get no packets.
    active: Arc<AtomicU16>,
    /// The control queue, if the present driver has one.
    control_queue: Option<u16>,
    control: Option<Runner>,
    /// Has the interface send packets to the active pairs only.
    steer: Option<Arc<Work>>,
    log: Log,
}

/// What the log hears of a device.
struct Log {
    name: String,
    complained: bool,
}

impl Log {
    fn complain(&mut self, what: &str, e: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("{}: can't {what}, the packet is lost (further ones are not logged): {e}", self.name);
        }
    }
}

impl Net {
    /// A device with address `mac`, called `name` in the log, with a pair of queues for each of `backends`, which are one interface's.
    ///
    /// # Panics
    ///
    /// For none, and for more than [`MAX_PAIRS`]: a bug.
    pub fn new(name: String, mac: [u8; 6], backends: Vec<Arc<dyn Backend>>) -> Self {
        assert!((1..=usize::from(MAX_PAIRS)).contains(&backends.len()), "{} pairs", backends.len());
        Self {
            mac,
            pairs: (0..).zip(backends).map(|(number, backend)| Pair::new(number, backend)).collect(),
            active: Arc::new(AtomicU16::new(1)),
            control_queue: None,
            control: None,
            steer: None,
            log: Log { name, complained: false },
        }
    }

    fn active(&self) -> u16 {
        self.active.load(Ordering::SeqCst)
    }

    /// The driver uses the first `pairs`, which are there.
    fn activate(&mut self, pairs: u16) {
        let before = self.active.swap(pairs, Ordering::SeqCst);
        self.steer.iter().for_each(|steer| _ = steer.queue());
        // What has come meanwhile may wait.
        (before..pairs).for_each(|pair| self.notify(2 * pair));
    }

    fn transmit(&mut self, pair: usize, common: &mut Common, now: u64) -> Turn {
        self.pairs[pair].transmit(common, &mut self.log, now)
    }

    fn receive(&mut self, pair: usize, common: &mut Common) -> Turn {
        if pair >= usize::from(self.active()) {
            return Turn::Done;
        }
        self.pairs[pair].receive(common, &mut self.log)
    }
}

impl Device for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn name(&self) -> &str {
        &self.log.name
    }

    fn features(&self) -> u64 {
        let ours = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN;
        let theirs = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;
        let several = if self.pairs.len() > 1 { CONTROL | MULTIQUEUE } else { 0 };
        ours | theirs | MAC | MERGEABLE | STATUS | several
    }

    fn queues(&self) -> Vec<u16> {
        let control = usize::from(self.pairs.len() > 1);
        vec![QUEUE_SIZE; 2 * self.pairs.len() + control]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 10];
        config[..6].copy_from_slice(&self.mac);
        config[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        if self.pairs.len() > 1 {
            config[8..].copy_from_slice(&(self.pairs.len() as u16).to_le_bytes());
        }
        data.fill(0);
        let start = usize::try_from(offset).unwrap_or(config.len()).min(config.len());
        for (byte, value) in data.iter_mut().zip(&config[start..]) {
            *byte = *value;
        }
    }

    fn start(&mut self, common: &mut Common) {
        let offloads = Offloads {
            checksum: common.has(GUEST_CSUM),
            tso4: common.has(GUEST_TSO4),
            tso6: common.has(GUEST_TSO6),
            ecn: common.has(GUEST_ECN),
        };
        if let Err(e) = self.pairs[0].set_offloads(offloads) {
            self.log.complain("offload", &e);
        }
        self.control_queue = control::queue(self.pairs.len() as u16, common);
        // "The device MUST default" to one (section "Automatic receive steering in multiqueue mode").
        self.activate(1);
        self.notify(0);
    }

    fn submission(&self, queue: u16) -> Option<Runner> {
        if self.control_queue == Some(queue) {
            return self.control.clone();
        }
        self.pairs.get(usize::from(queue / 2))?.submission(queue)
    }

    fn reset_queue(&mut self, queue: u16) {
        if let Some(pair) = self.pairs.get_mut(usize::from(queue / 2)) {
            pair.reset_queue(queue);
        }
    }
}

/// A slow part.
type Slow = Box<dyn Fn(&mut Net, &mut Common) -> Turn + Send + Sync>;

/// Puts its slow parts on a system of bottom halves, in `home`, on `cpu`. Gives what is to be scheduled when a queue of the interface has
/// packets, for each of the device's backends. To be called once, before the guest runs.
pub fn attach<T: Serve<Net> + 'static>(
    device: &Arc<T>,
    (system, cpu): (&System, &Arc<Cpu>),
    home: Home,
) -> Vec<Runner> {
    let runner = |vector, name, run: Slow| {
        let back = Arc::downgrade(device);
        Runner::new(home, (system, cpu), vector, name, move || {
            let mut turn = Turn::Done;
            if let Some(device) = back.upgrade() {
                device.serve(&mut |net, common| turn = run(net, common));
            }
            turn
        })
    };
    let mut receives = Vec::new();
    device.serve(&mut |net, _| {
        for (number, pair) in net.pairs.iter_mut().enumerate() {
            let clock = Arc::clone(system.clock());
            let receive = Box::new(move |net: &mut Net, common: &mut Common| net.receive(number, common));
            let transmit =
                Box::new(move |net: &mut Net, common: &mut Common| net.transmit(number, common, clock.now()));
            let receive = runner(Vector::NetRx, "net receive", receive);
            let transmit = runner(Vector::NetTx, "net transmit", transmit);
            let again = transmit.clone();
            let linger = Timer::precise(cpu, move |_| {
                again.schedule();
                None
            });
            receives.push(receive.clone());
            pair.handles = Some(Handles { receive, transmit, linger });
        }
        if net.pairs.len() > 1 {
            net.steer = Some(Arc::new(steering(net, system)));
            net.control = Some(controlling(device, (system, cpu)));
        }
    });
    receives
}

/// An item that has the interface send packets to the active pairs only. The host may take some milliseconds for it.
fn steering(net: &Net, system: &System) -> Work {
    let backends: Vec<_> = net.pairs.iter().map(Pair::backend).collect();
    let (active, name) = (Arc::clone(&net.active), net.log.name.clone());
    system.queue(&name.clone(), QueueKind::Ordered).work(move |process| {
        // Read after the item was taken: a change from now on queues it again.
        let active = usize::from(active.load(Ordering::SeqCst));
        for (number, backend) in backends.iter().enumerate().skip(1) {
            if let Err(e) = process.block(|| backend.set_attached(number < active)) {
                log::warn!("{name}: can't change the queues of the interface: {e}");
                return;
            }
        }
    })
}

/// What serves the control queue.
fn controlling<T: Serve<Net> + 'static>(device: &Arc<T>, (system, cpu): (&System, &Arc<Cpu>)) -> Runner {
    let back = Arc::downgrade(device);
    let tasklet = Tasklet::new(system, cpu, move |_: &Softirq<'_>| {
        let mut turn = Turn::Done;
        if let Some(device) = back.upgrade() {
            device.serve(&mut |net, common| turn = net.serve_control(common));
        }
        turn
    });
    Runner::Softirq(Arc::new(tasklet))
}
