//! The machine's power button, as the user's side of the program presses it.

use std::sync::Arc;

use devices::Pm;
use parking_lot::Mutex;

use crate::clock::Clock;

/// The ACPI fixed power button. What a press means is the guest's decision: Linux tells its user space, whose power manager
/// shuts down; a guest without ACPI never notices.
#[derive(Clone)]
pub struct PowerButton {
    clock: Clock,
    pm: Arc<Mutex<Pm>>,
}

impl PowerButton {
    /// The button of `pm`, in a machine whose time is `clock`'s.
    pub fn new(clock: Clock, pm: Arc<Mutex<Pm>>) -> Self {
        Self { clock, pm }
    }

    /// Presses it. Takes the device's lock for a moment; call it with no lock held.
    pub fn press(&self) {
        self.pm.lock().press_power_button(self.clock.now());
    }
}
