//! PCI: one bus behind a host bridge, its configuration space by ports and by ECAM, functions with memory BARs, INTx, MSI
//! and MSI-X.
//!
//! Firmware's part, assigning addresses and interrupt lines, is done when the machine is put together ([`PciBus::insert`]
//! gets functions whose BARs are set); the guest may move them.
//!
//! Not modelled: bridges and further buses, functions other than 0, hot-plug, I/O BARs, PCI Express capabilities, power
//! management, the 8259A's view of INTx (the pins go to inputs that only the I/O APIC has).

mod bus;
mod config;
mod host_bridge;
mod msi;
mod msix;
#[cfg(test)]
mod random_access;

pub use bus::{ECAM_BYTES, Function, PciBus, Place};
pub use config::{BAR0, COMMAND, CONFIG_BYTES, ConfigSpace, Identity};
pub use host_bridge::HostBridge;
pub use msi::{MAX_LOG2 as MSI_MAX_LOG2, Msi};
pub use msix::{CAPABILITY as MSIX_CAPABILITY, ENTRY_BYTES as MSIX_ENTRY_BYTES, MAX_VECTORS, MsiX};
