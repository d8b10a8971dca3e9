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

pub mod agent;
pub mod command_port;
pub mod debug_exit;
pub mod doorbell;
pub mod fw_cfg;
pub mod hpet;
pub mod i6300esb;
pub mod i8042;
pub mod pci;
pub mod pci_config;
pub mod pit;
pub mod pm;
pub mod port92;
pub mod post;
pub mod pvpanic;
pub mod rtc;
pub mod serial;
pub mod storm;
pub mod testdev;
pub mod traits;
pub mod virtio;

pub use agent::Agent;
pub use command_port::CommandPort;
pub use debug_exit::DebugExit;
pub use hpet::Hpet;
pub use i6300esb::{I6300Esb, I6300EsbFunction};
pub use i8042::I8042;
pub use pci_config::PciConfig;
pub use pit::Pit;
pub use pm::Pm;
pub use port92::Port92;
pub use post::Post;
pub use pvpanic::PvPanic;
pub use rtc::Rtc;
pub use serial::Serial;
pub use storm::Storm;
pub use traits::{Alarm, BusDevice, ConsoleEnd, Later, MachineControl, MachineEvent, TimedDevice};
pub use window::Window;

#[cfg(test)]
mod random_access;
#[cfg(test)]
mod testing;
