//! The local APICs as the chips on this side of them see them: somewhere to send messages.

use irqchip::bus::{ApicBus, Kicks};
use irqchip::ioapic::IoApic;
use irqchip::{Accepted, Message};

/// Where messages go. Called under the I/O APIC's lock: an implementation neither waits nor kicks.
pub trait LocalApics: Send + Sync + 'static {
    /// Sends `message`; those who are owed a wake-up are added to `kicks`.
    fn send(&self, message: &Message, kicks: &mut Kicks) -> Accepted;

    /// Sends `message` for the I/O APIC, which has to hear of the EOI if it is a level interrupt.
    fn send_for_ioapic(&self, message: &Message, kicks: &mut Kicks) -> Accepted {
        self.send(message, kicks)
    }

    /// `ioapic` has changed, and sent what there was to send.
    fn settled(&self, _ioapic: &IoApic) {}

    /// Nobody will say when a message that was refused would be accepted: the I/O APIC has to try again by itself.
    fn is_silent(&self) -> bool {
        false
    }
}

impl LocalApics for ApicBus {
    fn send(&self, message: &Message, kicks: &mut Kicks) -> Accepted {
        ApicBus::send(self, message, kicks)
    }
}
