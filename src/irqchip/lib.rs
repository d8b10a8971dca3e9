//! Interrupt controllers as pure state machines: 8259A pair, I/O APIC, local APIC, and the wires between them.
//!
//! An interrupt passes through this crate as the source tree reads: [`mod@line`] or MSI → [`pic`] | [`ioapic`] →
//! [`message`] → [`bus`] and [`destination`] → [`mailbox`] → [`lapic`], owned by its vCPU's thread. Everything that
//! decides takes `&mut self`; time is an argument; waking a vCPU is a return value. This crate knows no threads, no
//! clock, no KVM.

pub mod bus;
pub mod destination;
pub mod ioapic;
pub mod lapic;
pub mod ledger;
pub mod line;
pub mod mailbox;
pub mod message;
pub mod pic;
#[cfg(all(test, not(any(loom, shuttle))))]
mod properties;
#[cfg(all(test, shuttle))]
mod shuttle;
mod state;

pub use message::{Accepted, Destination, Message, MessageSink};
pub use state::BadState;
