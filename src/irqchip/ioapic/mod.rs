//! I/O APIC: 24 pins, a redirection table, and the messages that it sends.
//!
//! Follows the Intel 82093AA datasheet, sections "Register Description" and "I/O Redirection Table Registers", and for
//! version 0x20 with its EOI register the Intel ICH datasheets, section "Advanced Programmable Interrupt Controller".
//! Pin 0 hangs on the 8259A pair's output (see [`x86::platform`]); whoever owns both chips drives it.
//!
//! **Polarity.** A line's level is its logical assertion: `true` is "the device asks", whatever the voltage. The
//! entry's polarity bit is stored and read back and changes nothing: it stands for a wiring that inverts as needed, so
//! that active-low PCI and active-high ISA entries both fire when the device asks. A model with voltages would need
//! every device to know how the guest's ACPI tables describe its pin; a mismatch there is a guest's bug that hardware
//! would turn into a storm, and nobody wants it back. KVM's and QEMU's I/O APIC are wired like this too.
//!
//! **Level** interrupts are sent while the pin is asserted, unmasked and not in service (remote IRR). Remote IRR is set
//! only when a local APIC accepted the message; else the interrupt stays pending (delivery status reads 1) and is
//! tried again at any change, of destinations too ([`IoApic::destinations_changed`]).
//!
//! **Edge** interrupts are sent at the rise. An edge on a masked pin is lost (section "I/O Redirection Table
//! Registers", on the mask bit: "not delivered or held pending"). An edge that no local APIC accepts is dropped and counted:
//! the APIC bus has no place to keep it either, and one replayed minutes later, when some CPU appears at that
//! destination, would be an interrupt that no device stands behind. SMI, NMI, INIT and ExtINT are always edge.
//!
//! **Damper.** A guest that sends its EOI before it has quieted the device gets the interrupt again at once and may
//! never come to the quieting. After 10,000 such re-fires of a pin in a row, the next waits 10 ms. A fall of the line
//! or a write of the entry starts the count anew.
//!
//! Not modelled: the APIC bus itself (arbitration, retries), and the boundary-scan and power-management pins.

#[cfg(test)]
mod damper_tests;
mod pin;
#[cfg(test)]
mod properties;
mod state;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;

pub use pin::PinCounters;
pub use state::{PinState, State};

use pin::Pin;
use x86::Nanos;
use x86::ioapic::{EOI, IOREGSEL, IOWIN, PINS, REG_ARB, REG_ID, REG_TABLE, REG_VERSION, RedirectionEntry, VERSION};

use crate::message::{Message, MessageSink};

/// One I/O APIC. Not shared: whoever owns it brings the lock, and `sink` is called under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoApic {
    /// The ID after reset.
    strapped_id: u8,
    id: u8,
    index: u8,
    pins: [Pin; PINS],
}

impl IoApic {
    /// An I/O APIC just reset, all lines low; `id` (0-15, higher bits ignored) is its ID until the guest changes it.
    pub fn new(id: u8) -> Self {
        let id = id & 0xf;
        Self { strapped_id: id, id, index: 0, pins: std::array::from_fn(|_| Pin::new()) }
    }

    /// Machine reset: all entries masked, nothing in service. Lines keep the levels that their drivers hold, and the
    /// counters count on.
    pub fn reset(&mut self) {
        self.id = self.strapped_id;
        self.index = 0;
        self.pins.iter_mut().for_each(Pin::reset);
    }

    /// A read of the MMIO window, `offset` bytes into it.
    ///
    /// IOWIN is 32 bits wide and IOREGSEL can also be read by its low byte or word; every other access reads 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (IOREGSEL, 1 | 2 | 4) => self.index.into(),
            (IOWIN, 4) => self.read_register(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// A write of the MMIO window, `offset` bytes into it, at time `now`.
    ///
    /// IOWIN and EOI are 32 bits wide and IOREGSEL can also be written by its low byte or word; every other access is
    /// ignored.
    pub fn write(&mut self, now: Nanos, offset: u64, data: &[u8], sink: &mut dyn MessageSink) {
        match (offset, data) {
            (IOREGSEL, &[index] | &[index, _] | &[index, _, _, _]) => self.index = index,
            (IOWIN, &[a, b, c, d]) => self.write_register(u32::from_le_bytes([a, b, c, d]), sink),
            (EOI, &[vector, _, _, _]) => self.eoi(now, vector, sink),
            _ => {}
        }
    }

    /// The line of `pin` (0-23; others are not connected) is now asserted or not.
    pub fn set_line(&mut self, pin: u8, level: bool, sink: &mut dyn MessageSink) {
        if let Some(pin) = self.pins.get_mut(usize::from(pin)) {
            pin.set_line(level, sink);
        }
    }

    /// An EOI for `vector` at time `now`, from a local APIC whose TMR says level, or by the EOI register.
    ///
    /// It ends every matching interrupt before it fires any of them again: with a shared vector, a message that goes
    /// out between two ends could be taken for the one that is just ending.
    pub fn eoi(&mut self, now: Nanos, vector: u8, sink: &mut dyn MessageSink) {
        let mut ended = [false; PINS];
        for (ended, pin) in ended.iter_mut().zip(&mut self.pins) {
            *ended = pin.end(vector);
        }
        for (_, pin) in ended.iter().zip(&mut self.pins).filter(|(ended, _)| **ended) {
            pin.refire(now, sink);
        }
    }

    /// Local APICs were enabled or got other addresses: tries again what nobody accepted.
    pub fn destinations_changed(&mut self, sink: &mut dyn MessageSink) {
        for pin in &mut self.pins {
            pin.evaluate(false, sink);
        }
    }

    /// When [`IoApic::expire`] is to be called, if at all.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.pins.iter().filter_map(Pin::damped_until).min()
    }

    /// Fires the pins whose damping is over at `now`; harmless when called early.
    pub fn expire(&mut self, now: Nanos, sink: &mut dyn MessageSink) {
        for pin in &mut self.pins {
            pin.expire(now, sink);
        }
    }

    /// The redirection entry of `pin` as the guest reads it, for tracing; `None` above 23.
    pub fn entry(&self, pin: u8) -> Option<RedirectionEntry> {
        self.pins.get(usize::from(pin)).map(Pin::entry)
    }

    /// The level interrupts whose EOIs this I/O APIC has to hear of, now or when they are sent: those that its entries
    /// describe, masked or not, and those in service, which a changed entry no longer describes. At most two for a pin.
    pub fn awaited_eois(&self) -> impl Iterator<Item = Message> {
        self.pins.iter().flat_map(|pin| [pin.level_message(), pin.in_service()]).flatten()
    }

    /// The level interrupt of `pin` that was accepted and whose EOI is still to come; `None` above 23.
    pub fn in_service(&self, pin: u8) -> Option<Message> {
        self.pins.get(usize::from(pin)).and_then(Pin::in_service)
    }

    /// Whether a level interrupt waits that nobody has accepted.
    pub fn is_waiting(&self) -> bool {
        self.pins.iter().any(Pin::is_refused)
    }

    /// Whether the line of `pin` is asserted, for tracing; `None` above 23.
    pub fn line(&self, pin: u8) -> Option<bool> {
        self.pins.get(usize::from(pin)).map(Pin::line)
    }

    /// What `pin` did so far; `None` above 23.
    pub fn counters(&self, pin: u8) -> Option<PinCounters> {
        self.pins.get(usize::from(pin)).map(Pin::counters)
    }

    /// Whether a level interrupt of `pin` is pending: asserted, and masked or accepted by nobody yet. False above 23.
    pub fn is_pending(&self, pin: u8) -> bool {
        self.pins.get(usize::from(pin)).is_some_and(Pin::is_open)
    }

    fn read_register(&self) -> u32 {
        match self.index {
            // The arbitration ID is loaded whenever the ID is; nothing rotates it, as there is no bus to arbitrate.
            REG_ID | REG_ARB => u32::from(self.id) << 24,
            REG_VERSION => u32::from(VERSION) | (PINS as u32 - 1) << 16,
            index => match table_half(index) {
                Some((pin, half)) => {
                    let bits = self.pins.get(pin).map_or(0, |pin| pin.entry().into_bits());
                    (if half == Half::Low { bits } else { bits >> 32 }) as u32
                }
                None => 0,
            },
        }
    }

    fn write_register(&mut self, value: u32, sink: &mut dyn MessageSink) {
        if self.index == REG_ID {
            self.id = (value >> 24) as u8 & 0xf;
        } else if let Some((pin, half)) = table_half(self.index)
            && let Some(pin) = self.pins.get_mut(pin)
        {
            match half {
                Half::Low => pin.write_low(value, sink),
                Half::High => pin.write_high(value, sink),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Low,
    High,
}

/// Which half of which entry register `index` is; the pin may be beyond the last.
fn table_half(index: u8) -> Option<(usize, Half)> {
    let index = index.checked_sub(REG_TABLE)?;
    Some((usize::from(index / 2), if index % 2 == 0 { Half::Low } else { Half::High }))
}
