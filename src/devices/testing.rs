//! Stand-ins for the machine round a device under test.

use std::sync::Arc;

use irqchip::line::{Line, LineTarget, Wire};
use parking_lot::Mutex;
use x86::Nanos;

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
