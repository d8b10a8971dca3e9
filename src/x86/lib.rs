//! x86 interrupt architecture as data: vectors, register offsets, bit layouts, and this machine's platform map.
//!
//! The lowest layer, and the only code that host and guest share: `no_std`, no `unsafe`, no state. Layouts follow
//! the Intel SDM vol. 3A, chapter "Advanced Programmable Interrupt Controller (APIC)", the Intel 82093AA I/O APIC
//! datasheet and the Intel 8259A datasheet; each module names its section. [`agent`] and [`test_record`] are the protocol
//! between the guest kernel of `guest/` and the program that tests with it.

#![no_std]

pub mod agent;
pub mod apic;
pub mod cpuid;
pub mod ioapic;
pub mod msr;
pub mod pic;
pub mod platform;
pub mod storm;
pub mod test_record;
pub mod time;
pub mod vector;

pub use time::Nanos;
