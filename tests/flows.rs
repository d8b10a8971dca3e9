//! Whole flows without KVM: device, line, PIC or I/O APIC, bus, mailbox, local APIC, a fake vCPU that takes the
//! interrupt and ends it, and back to the I/O APIC.
//!
//! The chips' own rules are tested beside the chips; here the question is whether the parts are joined up. Each test
//! says which line, taken away, turns it red.

#[path = "flows/devices.rs"]
mod devices_and_drivers;
#[path = "flows/ioapic.rs"]
mod ioapic;
#[path = "flows/ipi.rs"]
mod ipi;
#[path = "flows/messages.rs"]
mod messages;
#[path = "flows/others_mistakes.rs"]
mod others_mistakes;
#[path = "flows/pic.rs"]
mod pic;
#[path = "flows/rig.rs"]
mod rig;
#[path = "flows/threads.rs"]
mod threads;
