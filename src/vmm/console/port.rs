//! A guest's port, as the console reaches it.

use std::sync::Arc;

use devices::virtio::Serve;
use devices::virtio::console::Console as VirtioConsole;
use devices::{ConsoleEnd, Serial};
use parking_lot::Mutex;

use crate::interrupts::Processors;

/// A machine's port, serial or of a virtio console; or, by default, none.
#[derive(Default)]
pub struct Port(Option<Box<dyn Reach>>);

/// The way to a port. The kicks that are owed for its interrupts are sent before this returns: before the console reads or
/// writes, which may take any time. Until a kick is sent, whoever else posts to its vCPU relies on it.
trait Reach: Send {
    fn with(&self, what: &mut dyn FnMut(&mut dyn ConsoleEnd));
}

/// The serial port, and the vCPUs that it interrupts.
struct Wired {
    serial: Arc<Mutex<Serial>>,
    processors: Arc<Processors>,
}

impl Reach for Wired {
    fn with(&self, what: &mut dyn FnMut(&mut dyn ConsoleEnd)) {
        let _held = self.processors.hold_kicks();
        what(&mut *self.serial.lock());
    }
}

/// One port of a virtio console.
struct Virtio {
    device: Arc<dyn Serve<VirtioConsole>>,
    index: usize,
}

impl Reach for Virtio {
    fn with(&self, what: &mut dyn FnMut(&mut dyn ConsoleEnd)) {
        self.device.serve(&mut |console, common| what(&mut console.end(common, self.index)));
    }
}

impl Port {
    /// This serial port of the machine with these vCPUs.
    pub fn new(serial: Arc<Mutex<Serial>>, processors: Arc<Processors>) -> Self {
        Self(Some(Box::new(Wired { serial, processors })))
    }

    /// Port `index` of a virtio console, which holds kicks back while it is locked.
    pub fn of_virtio(device: Arc<dyn Serve<VirtioConsole>>, index: usize) -> Self {
        Self(Some(Box::new(Virtio { device, index })))
    }

    /// Does `what` under the port's lock. Without a port nothing is done.
    pub(super) fn with<R: Default>(&self, what: impl FnOnce(&mut dyn ConsoleEnd) -> R) -> R {
        let (mut what, mut result) = (Some(what), R::default());
        if let Some(reach) = &self.0 {
            reach.with(&mut |end| {
                if let Some(what) = what.take() {
                    result = what(end);
                }
            });
        }
        result
    }
}
