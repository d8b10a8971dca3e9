//! The interrupt controllers, as software sees them.

pub mod apic;
pub mod i8259;
pub mod ioapic;
