//! Small guest kernels on the real program and this machine's `/dev/kvm`: whole flows, from a device or an instruction
//! to the handler and back.
//!
//! They run on a KVM without hardware virtualization too, which interprets ring 0 slowly and sees the interrupt window late:
//! so tests assert counts and order, never times. Each test's comment says which line, broken, makes it red.

#[path = "../common/mod.rs"]
mod common;

mod chips;
mod endings;
mod faults;
mod guest;
mod ipi;
mod level;
mod nonsense;
mod program;
mod serial;
mod smp;
mod timers;
