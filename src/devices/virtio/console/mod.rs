//! The console device (VIRTIO 1.2, section "Console Device") with several ports: consoles (`hvc0` and so on), and ports that have
//! a name and belong to a program of the guest.
//!
//! Nothing is copied in between: output stays in the driver's buffers until the host's end has written it, and what is typed
//! goes straight into buffers for it. So a slow reader holds the guest back, and nothing is lost. What moves the bytes is
//! the host's end ([`End`] is what it sees); a notification only has it look.
//!
//! A device with one console and nothing else does not offer several ports: its size is in the configuration then. Where there are
//! more, the control queue tells of sizes, whose order not all of Linux's drivers agree on (`control`).
//!
//! Not modelled: emergency writes, ports that come and go.

mod control;
mod end;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bottom_half::{Cpu, Softirq, System, Tasklet, Turn};
use sys::terminal::Size;

use super::queue::Chain;
use super::{Common, Device, Kind, Runner, Serve};
use control::Pending;
pub use end::End;

const QUEUE_SIZE: u16 = 64;
/// The first port's queues; a receive queue is for what the driver receives.
const RECEIVE_0: u16 = 0;
const TRANSMIT_0: u16 = 1;
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;
/// Queues of the first port and of control.
const FIRST_QUEUES: u16 = 4;
/// The most ports: each has two queues, and each queue a vector.
pub const MAX_PORTS: usize = 16;

/// Feature bits: the size of the first port is in the configuration; there may be several ports.
const SIZE: u64 = 1 << 0;
const MULTIPORT: u64 = 1 << 1;

/// A port.
struct Port {
    /// The name of one that is no console.
    name: Option<String>,
    /// The size of what a console is connected to; both 0 while that is not known. Outlives resets.
    size: Size,
    /// What the host's end is reading, and how much of it has been read.
    output: Option<(Chain, u64)>,
    /// A program of the guest has it open.
    is_open: bool,
    /// The driver has taken it in.
    is_ready: bool,
    /// What the driver has yet to be told of it.
    pending: Pending,
    /// Has the host's end look.
    look: Option<Runner>,
}

/// The device.
pub struct Console {
    ports: Vec<Port>,
    control: Option<Runner>,
    /// The log says that the driver can't use a port.
    complained: bool,
}

impl Console {
    /// A device with these ports, a console each that has no name.
    ///
    /// # Panics
    ///
    /// For none, and for more than [`MAX_PORTS`]: a bug.
    pub fn new(names: Vec<Option<String>>) -> Self {
        assert!((1..=MAX_PORTS).contains(&names.len()), "{} ports", names.len());
        let port = |name| Port {
            name,
            size: Size::default(),
            output: None,
            is_open: false,
            is_ready: false,
            pending: Pending::default(),
            look: None,
        };
        Self { ports: names.into_iter().map(port).collect(), control: None, complained: false }
    }

    /// Port `index`, one of the device's, as the host's end sees it.
    pub fn end<'a>(&'a mut self, common: &'a mut Common, index: usize) -> End<'a> {
        End::new(self, common, index)
    }

    /// What port `index` is connected to has another size. A port with a name has none.
    fn resize(&mut self, index: usize, size: Size, common: &mut Common) {
        let port = &mut self.ports[index];
        if port.name.is_some() || std::mem::replace(&mut port.size, size) == size {
            return;
        }
        if index == 0 {
            common.config_changed();
        }
        if port.is_ready {
            self.news_of_size(index, common);
            self.tell(common);
        }
    }

    /// There is one console and nothing else.
    fn is_alone(&self) -> bool {
        matches!(&self.ports[..], [Port { name: None, .. }])
    }

    /// Without several ports the only one is a console.
    fn takes_input(&self, index: usize, common: &Common) -> bool {
        match common.has(MULTIPORT) {
            true => self.ports[index].name.is_none() || self.ports[index].is_open,
            false => index == 0,
        }
    }
}

/// The queue from which a port's driver receives; the one for what it transmits is behind it.
fn receive_queue(port: usize) -> u16 {
    match port as u16 {
        0 => RECEIVE_0,
        port => FIRST_QUEUES + 2 * (port - 1),
    }
}

/// The queue from which the device takes what a port's driver transmits.
fn transmit_queue(port: usize) -> u16 {
    receive_queue(port) + 1
}

/// The port that a queue belongs to; none for those of control.
fn port_of(queue: u16) -> Option<usize> {
    match queue {
        RECEIVE_0 | TRANSMIT_0 => Some(0),
        CONTROL_RECEIVE | CONTROL_TRANSMIT => None,
        queue => Some(usize::from((queue - FIRST_QUEUES) / 2 + 1)),
    }
}

impl Device for Console {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn name(&self) -> &str {
        "console"
    }

    fn features(&self) -> u64 {
        if self.is_alone() { SIZE } else { SIZE | MULTIPORT }
    }

    fn queues(&self) -> Vec<u16> {
        let count = if self.is_alone() { TRANSMIT_0 + 1 } else { receive_queue(self.ports.len()).max(FIRST_QUEUES) };
        vec![QUEUE_SIZE; usize::from(count)]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 12];
        config[..2].copy_from_slice(&self.ports[0].size.columns.to_le_bytes());
        config[2..4].copy_from_slice(&self.ports[0].size.rows.to_le_bytes());
        config[4..8].copy_from_slice(&(self.ports.len() as u32).to_le_bytes());
        data.fill(0);
        let start = usize::try_from(offset).unwrap_or(config.len()).min(config.len());
        for (byte, value) in data.iter_mut().zip(&config[start..]) {
            *byte = *value;
        }
    }

    fn start(&mut self, common: &mut Common) {
        if common.has(SIZE) && !common.has(MULTIPORT) && self.ports[0].size != Size::default() {
            // Linux's driver looks only when it is told of a change, at its start no more than later.
            common.config_changed();
        }
        for port in &mut self.ports {
            (port.is_open, port.is_ready, port.pending) = (false, false, Pending::default());
            // What was typed before may wait.
            port.look.iter().for_each(Runner::schedule);
        }
    }

    fn submission(&self, queue: u16) -> Option<Runner> {
        match port_of(queue) {
            Some(port) => self.ports.get(port)?.look.clone(),
            None => self.control.clone(),
        }
    }

    fn reset_queue(&mut self, queue: u16) {
        if let Some(port) = port_of(queue).filter(|&port| transmit_queue(port) == queue)
            && let Some(port) = self.ports.get_mut(port)
        {
            port.output = None;
        }
    }
}

/// Connects it: `looks` has each port's host's end look, control runs in a tasklet on `cpu`. To be called once, before the guest
/// runs.
pub fn attach<T: Serve<Console> + 'static>(
    device: &Arc<T>,
    (system, cpu): (&System, &Arc<Cpu>),
    mut looks: Vec<Runner>,
) {
    let back = Arc::downgrade(device);
    let control = Tasklet::new(system, cpu, move |_: &Softirq<'_>| {
        let mut turn = Turn::Done;
        if let Some(device) = back.upgrade() {
            device.serve(&mut |console, common| turn = console.serve_control(common));
        }
        turn
    });
    let mut control = Some(Runner::Softirq(Arc::new(control)));
    device.serve(&mut |console, _| {
        console.control = control.take();
        for (port, look) in console.ports.iter_mut().zip(looks.drain(..)) {
            port.look = Some(look);
        }
    });
}
