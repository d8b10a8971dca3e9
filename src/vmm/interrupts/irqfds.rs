//! Vectors whose messages KVM sends when an eventfd is written: a route and an irqfd each, in the `kernel` mode.
//!
//! Follows api.rst, sections "KVM_SET_GSI_ROUTING" and "KVM_IRQFD". Their GSIs are those above the machine's lines. A message's
//! route is set before its irqfd is written, so the message that is sent is the one that the vector had at that time.

use std::sync::Arc;

use irqchip::Message;
use irqchip::line::MsiVector;
use kvm::{Msi, Route, Vm};
use parking_lot::Mutex;
use sys::calls::{self, Call};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use x86::platform;

use super::kvm_msi::encode;
use crate::trace::Trace;
use crate::trace::event::Event;

#[cfg(test)]
mod tests;

/// The vectors of one machine.
pub struct Irqfds {
    vm: Vm,
    /// What the lines drive, which is in each table of routes.
    lines: Vec<(u32, Route)>,
    /// Leaf lock, taken under a device's and held while KVM's table is replaced.
    slots: Mutex<Vec<Slot>>,
    trace: Trace,
}

/// The place of a vector; its GSI is the first above the lines and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Taken(Option<Msi>),
}

impl Irqfds {
    /// None yet, in `vm`, whose `lines` have these routes.
    pub fn new(vm: &Vm, lines: Vec<(u32, Route)>, trace: Trace) -> Arc<Self> {
        Arc::new(Self { vm: vm.clone(), lines, slots: Mutex::default(), trace })
    }

    /// One more, without a route; `None` if the host has no eventfd or KVM no place for it.
    pub fn vector(self: &Arc<Self>) -> Option<Irqfd> {
        let slot = self.take_slot();
        let connected = EventFd::new(EFD_NONBLOCK).map_err(|e| e.to_string()).and_then(|event| {
            self.vm.connect_irq(&event, gsi(slot)).map_err(|e| e.to_string())?;
            Ok(event)
        });
        match connected {
            Ok(event) => Some(Irqfd { irqfds: Arc::clone(self), slot, event, routed: None }),
            Err(e) => {
                log::debug!("no irqfd, messages are sent by KVM_SIGNAL_MSI: {e}");
                self.slots.lock()[slot] = Slot::Free;
                None
            }
        }
    }

    fn take_slot(&self) -> usize {
        let mut slots = self.slots.lock();
        let slot = slots.iter().position(|&slot| slot == Slot::Free).unwrap_or(slots.len());
        if slot == slots.len() {
            slots.push(Slot::Free);
        }
        slots[slot] = Slot::Taken(None);
        slot
    }

    /// Tells KVM that `slot` sends `message`.
    fn route(&self, slot: usize, message: Option<Msi>) -> Result<(), kvm::Error> {
        let mut slots = self.slots.lock();
        let before = std::mem::replace(&mut slots[slot], Slot::Taken(message));
        if before == slots[slot] {
            return Ok(());
        }
        let messages = slots.iter().enumerate().filter_map(|(slot, taken)| match taken {
            Slot::Taken(Some(message)) => Some((gsi(slot), Route::Msi(*message))),
            _ => None,
        });
        let set = self.vm.set_routes(self.lines.iter().copied().chain(messages));
        if set.is_err() {
            // As KVM has left it.
            slots[slot] = before;
        }
        set
    }
}

fn gsi(slot: usize) -> u32 {
    (platform::GSIS + slot) as u32
}

/// A vector's eventfd, connected as long as it lives.
pub struct Irqfd {
    irqfds: Arc<Irqfds>,
    slot: usize,
    event: EventFd,
    /// What a write sends: the message as the device gives it, and its vector.
    routed: Option<(u64, u32, u8)>,
}

impl MsiVector for Irqfd {
    fn route(&mut self, address: u64, data: u32) -> bool {
        self.routed = None;
        // What is no message is for the other way to drop.
        let Some(message) = Message::from_msi(address, data) else { return false };
        match self.irqfds.route(self.slot, Some(encode(&message))) {
            Ok(()) => self.routed = Some((address, data, message.vector)),
            Err(e) => log::debug!("{message:?} is sent by KVM_SIGNAL_MSI: {e}"),
        }
        self.routed.is_some()
    }

    fn signal(&self) -> bool {
        let Some((address, data, vector)) = self.routed else { return false };
        calls::made(Call::Event);
        if self.event.write(1).is_err() {
            return false;
        }
        self.irqfds.trace.record(|| Event::Msi { address, data });
        // Whether anybody takes it is not heard.
        self.irqfds.trace.record(|| Event::InKvm { vector });
        true
    }
}

impl Drop for Irqfd {
    fn drop(&mut self) {
        if let Err(e) = self.irqfds.vm.disconnect_irq(&self.event, gsi(self.slot)) {
            log::debug!("an irqfd stays until the machine's end: {e}");
            return;
        }
        // Its route goes with the next table: nothing is sent by it any more.
        self.irqfds.slots.lock()[self.slot] = Slot::Free;
    }
}
