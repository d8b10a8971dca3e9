//! KVM's local APICs behind our PIC and I/O APIC: the `split` mode.
//!
//! Follows api.rst, sections "KVM_CAP_SPLIT_IRQCHIP" and "KVM_SIGNAL_MSI". Not modelled, because KVM's local APICs don't take
//! them: ExtINT messages from an I/O APIC pin (the 8259A pair is heard through LINT0 only).

use irqchip::bus::Kicks;
use irqchip::ioapic::IoApic;
use irqchip::{Accepted, Message};
use kvm::{Route, Vm};
use parking_lot::Mutex;
use x86::apic::TriggerMode;

use super::LocalApics;
use super::eoi_routes::EoiRoutes;
use super::kvm_msi::encode;
use crate::trace::Trace;
use crate::trace::event::Event;

pub use super::eoi_routes::SLOTS as EOI_ROUTES;

/// The machine that has them, and the routes by which it reports EOIs.
pub struct KvmApics {
    vm: Vm,
    /// Leaf lock, taken under the I/O APIC's.
    routes: Mutex<EoiRoutes>,
    trace: Trace,
}

impl KvmApics {
    /// The local APICs of `vm`, which have [`EOI_ROUTES`] routes for EOIs and 32-bit IDs.
    pub fn new(vm: Vm, trace: Trace) -> Self {
        Self { vm, routes: Mutex::new(EoiRoutes::new()), trace }
    }
}

impl LocalApics for KvmApics {
    fn send(&self, message: &Message, _kicks: &mut Kicks) -> Accepted {
        // KVM wakes its vCPUs itself.
        match self.vm.send_msi(encode(message)) {
            Ok(true) => {
                self.trace.record(|| Event::InKvm { vector: message.vector });
                Accepted::Yes
            }
            Ok(false) => Accepted::No,
            Err(e) => {
                log::debug!("{message:?}: {e}");
                Accepted::No
            }
        }
    }

    fn send_for_ioapic(&self, message: &Message, kicks: &mut Kicks) -> Accepted {
        if message.trigger == TriggerMode::Level {
            let mut routes = self.routes.lock();
            if routes.add(message)
                && let Err(e) = self.vm.set_routes(routes.iter().map(|(gsi, m)| (gsi, Route::Msi(encode(m)))))
            {
                log::error!("the end of {message:?} will not be heard of: {e}");
            }
        }
        self.send(message, kicks)
    }

    fn settled(&self, ioapic: &IoApic) {
        self.routes.lock().prune(ioapic.awaited_eois());
    }

    fn is_silent(&self) -> bool {
        true
    }
}
