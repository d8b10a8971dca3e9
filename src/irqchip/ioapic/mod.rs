//! I/O APIC
