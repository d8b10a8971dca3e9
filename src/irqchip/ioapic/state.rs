//! The I/O APIC's snapshot.

use serde::{Deserialize, Serialize};
use x86::Nanos;
use x86::ioapic::PINS;

use super::pin::Pin;
use super::{IoApic, PinCounters};
use crate::state::{BadState, check};

/// Everything that an I/O APIC remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The ID register's ID.
    pub id: u8,
    /// IOREGSEL.
    pub index: u8,
    /// The pins.
    pub pins: [PinState; PINS],
}

/// Everything that one pin remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinState {
    /// The redirection entry with remote IRR, without delivery status.
    pub entry: u64,
    /// The line's level.
    pub line: bool,
    /// The entry whose interrupt is in service, while remote IRR is set.
    pub accepted: u64,
    /// EOIs in a row that found the line asserted.
    pub refires: u32,
    /// The damper holds it until then, on the machine's clock.
    pub damped_until: Option<Nanos>,
    /// What it did so far.
    pub counters: PinCounters,
}

impl IoApic {
    /// Its state.
    pub fn save(&self) -> State {
        State { id: self.id, index: self.index, pins: self.pins.each_ref().map(Pin::save) }
    }

    /// An I/O APIC in the saved state; `id` is its ID after a reset, as in [`IoApic::new`].
    ///
    /// Nothing is sent: what was sent before is in the local APICs' states. Its alarm is to be set anew.
    ///
    /// # Errors
    ///
    /// When no I/O APIC can come into that state.
    pub fn restore(id: u8, state: &State) -> Result<Self, BadState> {
        check(state.id < 16, "an I/O APIC's ID")?;
        let mut chip = Self { id: state.id, index: state.index, ..Self::new(id) };
        for (pin, state) in chip.pins.iter_mut().zip(&state.pins) {
            *pin = Pin::restore(state)?;
        }
        Ok(chip)
    }
}
