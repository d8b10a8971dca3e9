//! Virtio over MMIO, version 2 (VIRTIO 1.2, section "Virtio Over MMIO"): a window of registers of 32 bits, and one interrupt
//! line for all.
//!
//! Registers other than the device's configuration are accessed by aligned dwords; other accesses read as zero and are lost.

use std::sync::Arc;

use irqchip::line::Line;
use parking_lot::Mutex;
use x86::Nanos;

use super::common::Common;
use super::queue::Part;
use super::registers::{Register, Registers};
use super::{Device, Memory, Serve};
use crate::doorbell::{Doorbells, Written};
use crate::traits::BusDevice;

#[cfg(test)]
mod tests;

/// Size of the window.
pub const WINDOW: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// No vendor in particular.
const VENDOR: u32 = 0;
/// Where the device's configuration starts.
const CONFIG: u64 = 0x100;

/// InterruptStatus.
const USED_BUFFER: u32 = 1 << 0;
const CONFIG_CHANGE: u32 = 1 << 1;

/// A device with a window of memory.
pub struct VirtioMmio<D> {
    registers: Registers<D>,
    line: Line,
    interrupt: u32,
    base: u64,
}

/// Offset of the register that is notified by, and of the one that interrupts are acknowledged by.
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;

impl<D: Device> VirtioMmio<D> {
    /// `device` with its window at `base` and its interrupt at `line`.
    pub fn new(device: D, memory: Memory, base: u64, line: Line, doorbells: Arc<dyn Doorbells>) -> Self {
        Self { registers: Registers::new(device, memory, doorbells), line, interrupt: 0, base }
    }

    /// Everything that may have changed the interrupts ends here.
    fn deliver(&mut self) {
        let owed = self.registers.common.take_owed();
        self.interrupt |= if owed.queues != 0 { USED_BUFFER } else { 0 } | if owed.config { CONFIG_CHANGE } else { 0 };
        self.line.set(self.interrupt != 0);
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => self.registers.device.kind() as u32,
            0x00c => VENDOR,
            0x060 => self.interrupt,
            // SHMLenLow and High, and the base: "-1" where there is no such region.
            0x0b0..=0x0bc => u32::MAX,
            _ => register(offset).map_or(0, |register| self.registers.read(register)),
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            QUEUE_NOTIFY => self.registers.notify(value as u16),
            INTERRUPT_ACKNOWLEDGE => self.interrupt &= !value,
            _ => {
                if let Some(register) = register(offset) {
                    self.registers.write(register, value);
                    if register == Register::Status {
                        self.status_written(value);
                    }
                }
            }
        }
        self.deliver();
    }

    fn status_written(&mut self, value: u32) {
        if value as u8 == 0 {
            self.interrupt = 0;
        }
        let place = |base, queue: u16| (base + QUEUE_NOTIFY, Written::U32(queue.into()));
        self.registers.follow(Some(self.base), place);
    }
}

/// The register at `offset`, if other transports have it, too. Some can only be read, or written; a driver does not do the
/// other.
fn register(offset: u64) -> Option<Register> {
    Some(match offset {
        0x010 => Register::Offered,
        0x014 => Register::OfferedSelect,
        0x020 => Register::Accepted,
        0x024 => Register::AcceptedSelect,
        0x030 => Register::QueueSelect,
        0x034 => Register::QueueMaxSize,
        0x038 => Register::QueueSize,
        0x044 => Register::QueueEnable,
        0x070 => Register::Status,
        0x080 => Register::QueuePart(Part::Descriptors, false),
        0x084 => Register::QueuePart(Part::Descriptors, true),
        0x090 => Register::QueuePart(Part::Driver, false),
        0x094 => Register::QueuePart(Part::Driver, true),
        0x0a0 => Register::QueuePart(Part::Device, false),
        0x0a4 => Register::QueuePart(Part::Device, true),
        0x0c0 => Register::QueueReset,
        0x0fc => Register::Generation,
        _ => return None,
    })
}

impl<D: Device> BusDevice for VirtioMmio<D> {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            return self.registers.device.read_config(offset - CONFIG, data);
        }
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(data) if offset.is_multiple_of(4) => *data = self.read_register(offset).to_le_bytes(),
            _ => data.fill(0),
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            let Registers { device, common, .. } = &mut self.registers;
            device.write_config(offset - CONFIG, data, common);
            return self.deliver();
        }
        if let Ok(&data) = <&[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }
}

impl<D: Device> Serve<D> for Mutex<VirtioMmio<D>> {
    fn serve(&self, work: &mut dyn FnMut(&mut D, &mut Common)) {
        let mut this = self.lock();
        let Registers { device, common, .. } = &mut this.registers;
        work(device, common);
        this.deliver();
    }
}
