//! The controllers' ports and registers on the buses.

use std::sync::Arc;

use irqchip::bus::ApicBus;
use irqchip::pic::PicPort;
use x86::{Nanos, platform};

use super::{Interrupts, LocalApics};
use crate::io_bus::Handler;

/// One 8259A's two ports.
pub struct PicPorts<A = ApicBus> {
    interrupts: Arc<Interrupts<A>>,
    base: u16,
}

impl<A: LocalApics> PicPorts<A> {
    /// The ports of the master or the slave, by its base port.
    pub fn new(interrupts: Arc<Interrupts<A>>, base: u16) -> Self {
        Self { interrupts, base }
    }
}

/// The two ELCR ports.
pub struct PicElcr<A = ApicBus>(pub Arc<Interrupts<A>>);

/// Byte-wide ports: a wider access is one byte access per port.
fn read_ports<A: LocalApics>(interrupts: &Interrupts<A>, base: u16, offset: u64, data: &mut [u8]) {
    for (port, byte) in (base.saturating_add(offset as u16)..).zip(data) {
        *byte = PicPort::from_io(port).map_or(0xff, |port| interrupts.read_pic(port));
    }
}

fn write_ports<A: LocalApics>(interrupts: &Interrupts<A>, base: u16, offset: u64, data: &[u8]) {
    for (port, &byte) in (base.saturating_add(offset as u16)..).zip(data) {
        if let Some(port) = PicPort::from_io(port) {
            interrupts.with_pic(|pic| pic.write(port, byte));
        }
    }
}

impl<A: LocalApics> Handler for PicPorts<A> {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_ports(&self.interrupts, self.base, offset, data);
    }

    fn write(&self, _now: Nanos, offset: u64, data: &[u8]) {
        write_ports(&self.interrupts, self.base, offset, data);
    }
}

impl<A: LocalApics> Handler for PicElcr<A> {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_ports(&self.0, platform::PIC_ELCR, offset, data);
    }

    fn write(&self, _now: Nanos, offset: u64, data: &[u8]) {
        write_ports(&self.0, platform::PIC_ELCR, offset, data);
    }
}

/// The I/O APIC's register window.
pub struct IoApicWindow<A = ApicBus>(pub Arc<Interrupts<A>>);

impl<A: LocalApics> Handler for IoApicWindow<A> {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        self.0.with_ioapic(|ioapic, _| ioapic.read(offset, data));
    }

    fn write(&self, now: Nanos, offset: u64, data: &[u8]) {
        self.0.with_ioapic(|ioapic, sink| ioapic.write(now, offset, data, sink));
    }
}
