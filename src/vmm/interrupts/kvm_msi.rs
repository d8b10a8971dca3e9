//! Interrupt messages in the form that KVM's local APICs take, with destinations of 32 bits.
//!
//! A guest's own messages have 8 bits, or 15 in the extension that KVM's feature bit offers: they are decoded
//! ([`Message::from_msi`], [`Message::from_redirection`]) and written anew.

use irqchip::{Destination, Message};
use kvm::Msi;
use x86::apic::{MSI_PREFIX, MsiAddress, MsiData, TriggerMode};

#[cfg(test)]
mod tests;

/// `message` as KVM takes it after [`kvm::Vm::use_32_bit_apic_ids`].
pub fn encode(message: &Message) -> Msi {
    let (destination, logical) = match message.destination {
        Destination::Physical(id) => (id, false),
        Destination::Logical(id) => (id, true),
        Destination::Byte255 { logical } => (0xff, logical),
        Destination::Broadcast => (u32::MAX, false),
    };
    let [low, high @ ..] = destination.to_le_bytes();
    let address = MsiAddress::new().with_prefix(MSI_PREFIX).with_destination(low).with_logical(logical);
    let high = u64::from(u32::from_le_bytes([0, high[0], high[1], high[2]]));
    let data = MsiData::new()
        .with_vector(message.vector)
        .with_delivery_mode(message.mode as u8)
        .with_assert(true)
        .with_level(message.trigger == TriggerMode::Level);
    Msi { address: high << 32 | u64::from(address.into_bits()), data: data.into_bits() }
}
