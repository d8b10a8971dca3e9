//! Device models.
//!
//! A device is a struct behind one lock. It learns the time from its caller, changes its interrupt lines, asks for a
//! later call through [`Alarm`], hands slow work to the main loop through [`Later`], and asks for the end of the machine
//! through [`MachineControl`]. It owns no thread, no timer, no blocking write, and knows nothing of the interrupt
//! controllers, vCPUs or KVM.

pub mod traits;

pub use traits::{Alarm, BusDevice, Later, MachineControl, MachineEvent, TimedDevice};
