//! Interrupt controllers as pure state machines: 8259A pair, I/O APIC, local APIC, and the wires between them.
//!
//! An interrupt passes through this crate as the source tree reads: [`line`] or MSI → [`pic`] | [`ioapic`] →
//! [`message`] → [`destination`] → mailbox of the [`lapic`] → its owner. Everything that decides takes `&mut self`;
//! time is an argument; waking a vCPU is a return value. This crate knows no threads, no clock, no KVM.

pub mod ioapic;
pub mod line;
pub mod message;
pub mod pic;

pub use message::{Accepted, Destination, Message, MessageSink};
