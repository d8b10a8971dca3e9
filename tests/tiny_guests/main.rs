//! Small guest kernels on the real program and this machine's `/dev/kvm`: whole flows, from a device or an instruction
//! to the handler and back.
//!
//! They run on a KVM without hardware virtualization too, which interprets ring 0 slowly and sees the interrupt window late:
//! so tests assert counts and order, never times. Each test's comment says which line, broken, makes it red.

#[path = "../common/mod.rs"]
mod common;

mod agent;
mod bench;
mod boots;
mod bottom_halves;
mod chips;
mod counts;
mod endings;
mod faults;
mod guest;
mod halts;
mod hpet;
mod ipi;
mod level;
mod msix;
mod nonsense;
mod program;
mod pv_eoi;
mod resets;
mod serial;
mod smp;
mod stats;
mod storm;
mod suite;
mod targets;
mod terminal;
mod testdev;
mod timers;
mod top;
mod trace;
mod watchdog;
