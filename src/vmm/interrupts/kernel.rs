//! KVM's own PIC, I/O APIC and local APICs: the `kernel` mode. Nothing of them is in this program but the way in.
//!
//! A vector of MSI-X has an eventfd and a route of its own ([`Irqfds`]); other messages go by KVM_SIGNAL_MSI.
//!
//! Lines are driven with KVM_IRQ_LINE, not by eventfds: our devices hold a level until they are quiet, which is what KVM's
//! I/O APIC wants to see; an eventfd would make a pulse of it and need a second one to be told of the EOI.

use std::sync::Arc;

use irqchip::Message;
use irqchip::line::{LineTarget, MsiTarget, MsiVector};
use kvm::{Route, Vm};
use x86::platform;

use super::irqfds::Irqfds;
use super::kvm_msi::encode;
use crate::trace::Trace;
use crate::trace::event::Event;

#[cfg(test)]
mod tests;

/// KVM's chips of one machine.
pub struct KernelChips {
    vm: Vm,
    irqfds: Arc<Irqfds>,
    trace: Trace,
}

impl KernelChips {
    /// Creates them in `vm`, with this machine's wiring.
    pub fn create(vm: &Vm, trace: Trace) -> Result<Self, kvm::Error> {
        vm.create_irqchip()?;
        vm.mask_pics()?;
        vm.set_routes(wiring())?;
        let irqfds = Irqfds::new(vm, wiring().collect(), trace.clone());
        Ok(Self { vm: vm.clone(), irqfds, trace })
    }
}

/// What each GSI drives. KVM numbers its GSIs by ISA IRQ; here they are I/O APIC pins as everywhere in this program, so that
/// the timer's IRQ 0 comes in at GSI 2 and goes to pin 2 and to the 8259A's input 0.
fn wiring() -> impl Iterator<Item = (u32, Route)> {
    (0..platform::GSIS as u8).flat_map(|gsi| {
        let pic = platform::gsi_to_pic_input(gsi).map(|input| match input {
            0..8 => Route::PicMaster(input),
            _ => Route::PicSlave(input - 8),
        });
        // Pin 0 is where the 8259A pair's output would come in, which in KVM has a way of its own.
        let ioapic = (gsi != 0).then_some(Route::IoApic(gsi));
        pic.into_iter().chain(ioapic).map(move |route| (gsi.into(), route))
    })
}

impl LineTarget for KernelChips {
    fn set_level(&self, gsi: u8, level: bool) {
        self.trace.record(|| Event::Line { gsi, level });
        if let Err(e) = self.vm.set_line(gsi.into(), level) {
            log::error!("GSI {gsi} can't be driven: {e}");
        }
    }
}

impl MsiTarget for KernelChips {
    fn send(&self, address: u64, data: u32) {
        let Some(message) = Message::from_msi(address, data) else { return };
        self.trace.record(|| Event::Msi { address, data });
        match self.vm.send_msi(encode(&message)) {
            Ok(true) => self.trace.record(|| Event::InKvm { vector: message.vector }),
            Ok(false) => self.trace.record(|| Event::MsiRefused),
            Err(e) => log::debug!("{message:?}: {e}"),
        }
    }

    fn vector(&self) -> Option<Box<dyn MsiVector>> {
        self.irqfds.vector().map(|vector| Box::new(vector) as _)
    }
}
