//! Stand-ins for the machine round a device under test.

use std::sync::Arc;

use irqchip::line::{Line, LineTarget, Msi, MsiTarget, Wire};
use parking_lot::Mutex;
use x86::Nanos;

use crate::doorbell::{Connection, Doorbells, Ring, Written};
use crate::traits::{Alarm, BusDevice, Later, MachineControl, MachineEvent};

/// The far end of one line: its level, and its rises since they were last asked for.
#[derive(Default)]
pub(crate) struct Probe(Mutex<(bool, usize)>);

impl LineTarget for Probe {
    fn set_level(&self, _gsi: u8, level: bool) {
        let mut state = self.0.lock();
        state.0 = level;
        state.1 += usize::from(level);
    }
}

impl Probe {
    pub(crate) fn on_line() -> (Line, Arc<Self>) {
        let probe = Arc::new(Self::default());
        (Wire::new(0, probe.clone()).holder(), probe)
    }

    pub(crate) fn level(&self) -> bool {
        self.0.lock().0
    }

    pub(crate) fn take_edges(&self) -> usize {
        std::mem::take(&mut self.0.lock().1)
    }
}

/// Records messages.
#[derive(Default)]
pub(crate) struct Messages(Mutex<Vec<(u64, u32)>>);

impl MsiTarget for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

impl Messages {
    pub(crate) fn with_handle() -> (Msi, Arc<Self>) {
        let messages = Arc::new(Self::default());
        (Msi::new(messages.clone()), messages)
    }

    pub(crate) fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.lock())
    }
}

/// An alarm whose setting can be looked at.
#[derive(Default)]
pub(crate) struct Clock(Mutex<Option<Nanos>>);

impl Alarm for Clock {
    fn arm(&self, at: Option<Nanos>) {
        *self.0.lock() = at;
    }
}

impl Clock {
    pub(crate) fn armed(&self) -> Option<Nanos> {
        *self.0.lock()
    }

    /// The alarm went off.
    pub(crate) fn take(&self) -> Option<Nanos> {
        self.0.lock().take()
    }
}

/// Counts requests for a later run.
#[derive(Default)]
pub(crate) struct Bell(Mutex<usize>);

impl Later for Bell {
    fn schedule(&self) {
        *self.0.lock() += 1;
    }
}

impl Bell {
    pub(crate) fn take(&self) -> usize {
        std::mem::take(&mut self.0.lock())
    }
}

/// Doorbells that ring when a test does.
#[derive(Default)]
pub(crate) struct Bells(Arc<Mutex<Vec<(u64, Written)>>>);

impl Doorbells for Bells {
    fn connect(&self, address: u64, written: Written, _ring: Ring) -> Option<Box<dyn Connection>> {
        self.0.lock().push((address, written));
        Some(Box::new(Connected { bells: Arc::clone(&self.0), bell: (address, written) }))
    }
}

impl Bells {
    /// Those that are connected.
    pub(crate) fn connected(&self) -> Vec<(u64, Written)> {
        self.0.lock().clone()
    }
}

struct Connected {
    bells: Arc<Mutex<Vec<(u64, Written)>>>,
    bell: (u64, Written),
}

impl Connection for Connected {}

impl Drop for Connected {
    fn drop(&mut self) {
        self.bells.lock().retain(|bell| *bell != self.bell);
    }
}

/// Records what was asked of the machine.
#[derive(Default)]
pub(crate) struct Control(Mutex<Vec<MachineEvent>>);

impl MachineControl for Control {
    fn request(&self, event: MachineEvent) {
        self.0.lock().push(event);
    }
}

impl Control {
    pub(crate) fn take(&self) -> Vec<MachineEvent> {
        std::mem::take(&mut self.0.lock())
    }
}

/// A one-byte read.
pub(crate) fn inb(device: &mut impl BusDevice, now: Nanos, offset: u64) -> u8 {
    let mut data = [0];
    device.read(now, offset, &mut data);
    data[0]
}

/// A one-byte write.
pub(crate) fn outb(device: &mut impl BusDevice, now: Nanos, offset: u64, value: u8) {
    device.write(now, offset, &[value]);
}
