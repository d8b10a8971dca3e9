//! Interrupts as the rest of the kernel sees them: numbers, not pins or vectors.
//!
//! An interrupt number has a **descriptor** ([`desc`]): which chip it comes through, who handles it, whether it is disabled. How one is
//! acknowledged and repeated depends on the kind of line, and is the business of its **flow handler** ([`flow`]). Drivers request and
//! free numbers, alone or shared ([`manage`]). What came is counted and printed as a table ([`proc`]).
//!
//! Numbers below 24 are the I/O APIC's pins (GSIs); those above are given out for messages and for software.
//!
//! To read more: Linux, Documentation/core-api/genericirq.rst.

pub mod balance;
pub mod chip;
pub mod desc;
pub mod entry;
pub mod flow;
pub mod manage;
pub(crate) mod mark;
pub mod probe;
pub mod proc;
mod thread;
