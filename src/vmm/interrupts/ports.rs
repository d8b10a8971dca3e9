//! The controllers' ports and registers on the buses.

use std::sync::Arc;

use irqchip::pic::PicPort;
use x86::{Nanos, platform};

use super::Interrupts;
use crate::io_bus::Handler;

/// One 8259A's two ports.
pub struct PicPorts {
    interrupts: Arc<Interrupts>,
    base: u16,
}

impl PicPorts {
    /// The ports of the master or the slave, by its base port.
    pub fn new(interrupts: Arc<Interrupts>, base: u16) -> Self {
        Self { interrupts, base }
    }
}

/// The two ELCR ports.
pub struct PicElcr(pub Arc<Interrupts>);

/// Byte-wide ports: a wider access is one byte access per port.
fn read_ports(interrupts: &Interrupts, base: u16, offset: u64, data: &mut [u8]) {
    for (port, byte) in (base.saturating_add(offset as u16)..).zip(data) {
        *byte = PicPort::from_io(port).map_or(0xff, |port| interrupts.with_pic(|pic| pic.read(port)));
    }
}

fn write_ports(interrupts: &Interrupts, base: u16, offset: u64, data: &[u8]) {
    for (port, &byte) in (base.saturating_add(offset as u16)..).zip(data) {
        if let Some(port) = PicPort::from_io(port) {
            interrupts.with_pic(|pic| pic.write(port, byte));
        }
    }
}

impl Handler for PicPorts {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_ports(&self.interrupts, self.base, offset, data);
    }

    fn write(&self, _now: Nanos, offset: u64, data: &[u8]) {
        write_ports(&self.interrupts, self.base, offset, data);
    }
}

impl Handler for PicElcr {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_ports(&self.0, platform::PIC_ELCR, offset, data);
    }

    fn write(&self, _now: Nanos, offset: u64, data: &[u8]) {
        write_ports(&self.0, platform::PIC_ELCR, offset, data);
    }
}

/// The I/O APIC's register window.
pub struct IoApicWindow(pub Arc<Interrupts>);

impl Handler for IoApicWindow {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        self.0.with_ioapic(|ioapic, _| ioapic.read(offset, data));
    }

    fn write(&self, now: Nanos, offset: u64, data: &[u8]) {
        self.0.with_ioapic(|ioapic, sink| ioapic.write(now, offset, data, sink));
    }
}
