//! Device models.
//!
//! A device is a struct behind one lock. It learns the time from its caller, changes its interrupt lines, asks for a
//! later call through [`Alarm`], hands slow work to the main loop through [`Later`], and asks for the end of the machine
//! through [`MachineControl`]. It owns no thread, no timer, no blocking write, and knows nothing of the interrupt
//! controllers, vCPUs or KVM.
//!
//! Devices on the ISA bus are eight bits wide; wider accesses reach them as the chipset splits them, one byte a port,
//! lowest first.

mod clock;
mod ports;
mod window;

pub mod debug_exit;
pub mod i8042;
pub mod pci_config;
pub mod pit;
pub mod pm;
pub mod post;
pub mod rtc;
pub mod serial;
pub mod traits;

pub use debug_exit::DebugExit;
pub use i8042::I8042;
pub use pci_config::PciConfig;
pub use pit::Pit;
pub use pm::Pm;
pub use post::Post;
pub use rtc::Rtc;
pub use serial::Serial;
pub use traits::{Alarm, BusDevice, Later, MachineControl, MachineEvent, TimedDevice};
pub use window::Window;

#[cfg(test)]
mod random_access;
#[cfg(test)]
mod testing;
