//! From an interrupt command to an IPI (Intel SDM vol. 3A, section "Interrupt Command Register (ICR)").
//!
//! Every IPI is sent as an edge: the trigger mode counts only in an INIT level de-assert, which does nothing since the
//! Pentium 4. Invalid combinations (table "Valid Combinations for the Pentium 4 and Intel Xeon Processors' Local xAPIC
//! Interrupt Command Register": a shorthand that includes the sender with anything but Fixed) send nothing.

use x86::apic::{DeliveryMode, Icr, Shorthand, TriggerMode};

use crate::message::{Destination, Message};

/// An interprocessor interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipi {
    /// Who besides, or instead of, `message.destination`.
    pub shorthand: Shorthand,
    /// What is sent; its destination counts only without a shorthand.
    pub message: Message,
}

impl Ipi {
    /// What `icr` sends, given its already decoded destination; `None` when it sends nothing.
    pub fn from_icr(icr: Icr, destination: Destination) -> Option<Self> {
        let (mode, shorthand) = (icr.mode(), icr.shorthand());
        let includes_sender = matches!(shorthand, Shorthand::Myself | Shorthand::All);
        match mode {
            DeliveryMode::RemoteRead | DeliveryMode::ExtInt => return None,
            DeliveryMode::Init if icr.level_triggered() && !icr.assert() => return None,
            DeliveryMode::Fixed => {}
            _ if includes_sender => return None,
            _ => {}
        }
        let message = Message { destination, mode, vector: icr.vector(), trigger: TriggerMode::Edge };
        Some(Self { shorthand, message })
    }

    /// A fixed IPI to the sender itself (the SELF IPI register).
    pub fn to_self(vector: u8) -> Self {
        let message = Message {
            destination: Destination::Broadcast,
            mode: DeliveryMode::Fixed,
            vector,
            trigger: TriggerMode::Edge,
        };
        Self { shorthand: Shorthand::Myself, message }
    }

    /// The vector counts and is one of the 16 illegal ones.
    pub fn has_illegal_vector(&self) -> bool {
        matches!(self.message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
            && self.message.vector < x86::vector::FIRST_LEGAL
    }
}
