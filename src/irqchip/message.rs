//! Interrupt messages: what a redirection entry, an MSI or an ICR puts on the bus.

use fault::Fault;
use x86::apic::{DeliveryMode, MSI_PREFIX, MsiAddress, MsiData, TriggerMode};
use x86::ioapic::RedirectionEntry;

/// Whom a message is for (Intel SDM vol. 3A, section "Determining IPI Destination").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The local APIC with this ID.
    Physical(u32),
    /// The local APICs that match this logical destination (a message destination address, MDA).
    Logical(u32),
    /// Everyone: 0xff in the 8-bit field of an xAPIC ICR, 0xffffffff in a 32-bit one, in either destination mode.
    Broadcast,
    /// 0xff in the 8-bit field of a redirection entry or an MSI, whose sender does not know the receivers' mode:
    /// everyone, unless the machine has x2APIC IDs from 255 up; then those in x2APIC mode take it by the letter.
    Byte255 {
        /// The destination mode.
        logical: bool,
    },
}

impl Destination {
    /// Decodes the 8-bit destination of an xAPIC ICR.
    pub fn from_u8(id: u8, logical: bool) -> Self {
        match (id, logical) {
            (0xff, _) => Self::Broadcast,
            (id, false) => Self::Physical(id.into()),
            (id, true) => Self::Logical(id.into()),
        }
    }

    /// Decodes the 32-bit destination of an x2APIC ICR.
    pub fn from_u32(id: u32, logical: bool) -> Self {
        match (id, logical) {
            (u32::MAX, _) if !fault::is(Fault::BroadcastUnknown) => Self::Broadcast,
            (id, false) => Self::Physical(id),
            (id, true) => Self::Logical(id),
        }
    }

    /// Decodes the destination of a redirection entry or an MSI: 8 bits, widened to 15 by the paravirtual extension.
    pub fn from_u15(low: u8, ext: u8, logical: bool) -> Self {
        if (low, ext) == (0xff, 0) {
            return Self::Byte255 { logical };
        }
        let id = u32::from(ext) << 8 | u32::from(low);
        if logical { Self::Logical(id) } else { Self::Physical(id) }
    }
}

/// One interrupt message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    /// Whom it is for.
    pub destination: Destination,
    /// How it is delivered.
    pub mode: DeliveryMode,
    /// Its vector; counts for Fixed, LowestPriority and StartUp.
    pub vector: u8,
    /// Its trigger mode; `Level` only for Fixed and LowestPriority.
    pub trigger: TriggerMode,
}

impl Message {
    /// The message that a redirection entry sends.
    ///
    /// SMI, NMI, INIT and ExtINT are always edge, whatever the entry says (82093AA, section "I/O Redirection Table
    /// Registers": NMI and INIT are "always treated as an edge triggered interrupt even if programmed otherwise").
    /// `None` for the reserved delivery modes (011b and 110b).
    pub fn from_redirection(entry: RedirectionEntry) -> Option<Self> {
        let mode = match entry.mode() {
            Some(DeliveryMode::RemoteRead | DeliveryMode::StartUp) | None => return None,
            Some(mode) => mode,
        };
        Some(Self {
            destination: Destination::from_u15(entry.destination(), entry.ext_destination(), entry.logical()),
            mode,
            vector: entry.vector(),
            trigger: trigger_for(mode, entry.trigger()),
        })
    }

    /// The message that a write of `data` to `address` is, or `None` if the address is no interrupt message, the
    /// delivery mode is reserved, or it is a level de-assert (Intel SDM vol. 3A, section "Message Signalled
    /// Interrupts").
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        let address = MsiAddress::from_bits(u32::try_from(address).ok()?);
        let data = MsiData::from_bits(data);
        if address.prefix() != MSI_PREFIX {
            return None;
        }
        let mode = match DeliveryMode::from_bits(data.delivery_mode())? {
            DeliveryMode::RemoteRead | DeliveryMode::StartUp => return None,
            // The redirection hint asks for one of the destinations: lowest priority.
            DeliveryMode::Fixed if address.redirection_hint() => DeliveryMode::LowestPriority,
            mode => mode,
        };
        let trigger = trigger_for(mode, if data.level() { TriggerMode::Level } else { TriggerMode::Edge });
        if trigger == TriggerMode::Level && !data.assert() {
            return None;
        }
        // "If RH is 0, then the DM bit is ignored and the message is sent ahead independent of whether the physical
        // or logical destination mode is used": real chipsets and every guest read that as "the destination mode
        // holds all the same", and so do we.
        let destination = Destination::from_u15(address.destination(), address.ext_destination(), address.logical());
        Some(Self { destination, mode, vector: data.vector(), trigger })
    }
}

fn trigger_for(mode: DeliveryMode, programmed: TriggerMode) -> TriggerMode {
    match mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority if !fault::is(Fault::LevelSentAsEdge) => programmed,
        _ => TriggerMode::Edge,
    }
}

/// Whether a message found somebody.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// At least one local APIC took it.
    Yes,
    /// Those who took it had one like it that they have not looked at yet: one delivery does for both.
    Merged,
    /// Nobody matched.
    No,
    /// Everybody who matched is disabled.
    Disabled,
}

impl Accepted {
    /// Somebody took it.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Yes | Self::Merged)
    }
}

/// Where a chip puts its messages: the destination table and the mailboxes behind it.
///
/// Called under the chip's lock, so an implementation posts and collects wake-ups, but never waits or kicks.
pub trait MessageSink {
    /// Posts `message` to its targets.
    fn send(&mut self, message: &Message) -> Accepted;
}

impl<F: FnMut(&Message) -> Accepted> MessageSink for F {
    fn send(&mut self, message: &Message) -> Accepted {
        self(message)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
