use std::sync::Arc;

use parking_lot::Mutex;

use super::PciConfig;
use crate::pci::{HostBridge, PciBus};
use crate::testing::{Control, inb, outb};
use crate::traits::{BusDevice, MachineEvent};

fn ports() -> (PciConfig, Arc<Control>) {
    let control = Arc::new(Control::default());
    let mut bus = PciBus::new();
    bus.insert(Arc::new(Mutex::new(HostBridge::new())));
    (PciConfig::new(Arc::new(bus), control.clone()), control)
}

fn inl(ports: &mut PciConfig, offset: u64) -> u32 {
    let mut data = [0; 4];
    ports.read(0, offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_address_register_takes_four_byte_writes_only() {
    let (mut ports, control) = ports();
    ports.write(0, 0, &0xffff_ffffu32.to_le_bytes());
    assert_eq!(inl(&mut ports, 0), 0x80ff_fffc);
    ports.write(0, 0, &[0]);
    ports.write(0, 0, &[0, 0]);
    ports.write(0, 3, &[1]);
    assert_eq!(inl(&mut ports, 0), 0x80ff_fffc);
    assert_eq!(inb(&mut ports, 0, 0), 0xff);
    assert_eq!(control.take(), []);
}

#[test]
fn the_data_ports_lead_to_the_register_that_the_address_names() {
    let (mut ports, _) = ports();
    assert_eq!(inl(&mut ports, 4), 0xffff_ffff, "not enabled");
    ports.write(0, 0, &0x8000_0000u32.to_le_bytes());
    assert_eq!(inl(&mut ports, 4), 0x0008_1b36);
    assert_eq!((inb(&mut ports, 0, 4), inb(&mut ports, 0, 7)), (0x36, 0x00));
    ports.write(0, 0, &0x8000_000cu32.to_le_bytes());
    outb(&mut ports, 0, 5, 0x40);
    assert_eq!(inl(&mut ports, 4), 0x0000_4000, "the latency timer");
}

#[test]
fn where_there_is_no_function_all_is_ones() {
    let (mut ports, _) = ports();
    ports.write(0, 0, &0x8000_0800u32.to_le_bytes());
    assert_eq!(inl(&mut ports, 4), 0xffff_ffff);
    ports.write(0, 4, &[0; 4]);
    assert_eq!(inb(&mut ports, 0, 7), 0xff);
    // Beyond the last port.
    ports.write(0, 0, &0x8000_0000u32.to_le_bytes());
    assert_eq!(inl(&mut ports, 6), 0xffff_ffff);
}

#[test]
fn a_rising_reset_bit_resets() {
    let (mut ports, control) = ports();
    outb(&mut ports, 0, 1, 0x02);
    assert_eq!(inb(&mut ports, 0, 1), 0x02);
    assert_eq!(control.take(), []);
    outb(&mut ports, 0, 1, 0x06);
    assert_eq!(control.take(), [MachineEvent::Reset]);
    outb(&mut ports, 0, 1, 0x06);
    assert_eq!(control.take(), [], "the bit was set already");
}

#[test]
fn a_four_byte_write_is_no_reset() {
    let (mut ports, control) = ports();
    ports.write(0, 0, &0x8000_0600u32.to_le_bytes());
    ports.write(0, 1, &[6, 6]);
    assert_eq!(control.take(), []);
    assert_eq!(inb(&mut ports, 0, 1), 0);
}
