//! The devices that hypervisor test images expect beside the debug exit: scratch ports, a page flush port, interrupt
//! lines to set, and scratch memory. They are there with `--testdev` only.
//!
//! After QEMU's pc-testdev device, as far as the images can see it. There is no specification but its users.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use irqchip::line::Line;
use x86::Nanos;

use crate::ports::{read_bytes, write_bytes};
use crate::traits::BusDevice;

/// Bytes of [`ScratchPorts`].
pub const SCRATCH_PORTS: u8 = 4;
/// Bytes of [`ScratchMemory`].
pub const SCRATCH_MEMORY: usize = 0x1_0000;

/// Four bytes that hold what is written, in accesses of any width.
#[derive(Default)]
pub struct ScratchPorts([u8; SCRATCH_PORTS as usize]);

impl BusDevice for ScratchPorts {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, SCRATCH_PORTS, |port| self.0[usize::from(port)]);
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        write_bytes(offset, data, SCRATCH_PORTS, |port, value| self.0[usize::from(port)] = value);
    }
}

/// Makes the next access to a page of guest memory a fault for the host.
///
/// Called with the device's lock held, on a vCPU's thread: must not block.
pub trait PageFlush: Send + Sync {
    /// Drops the mapping of the page with this guest address, if there is memory.
    fn flush(&self, address: u64);
}

/// A port whose four-byte writes name a guest-physical page.
pub struct FlushPort {
    target: Arc<dyn PageFlush>,
}

impl FlushPort {
    /// A port that flushes pages of `target`.
    pub fn new(target: Arc<dyn PageFlush>) -> Self {
        Self { target }
    }
}

impl BusDevice for FlushPort {
    /// Write-only: all ones.
    fn read(&mut self, _now: Nanos, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        if let (0, &[a, b, c, d]) = (offset, data) {
            self.target.flush(u32::from_le_bytes([a, b, c, d]).into());
        }
    }
}

/// One port an interrupt line: what is written is its level.
pub struct IrqLines(Vec<Line>);

impl IrqLines {
    /// A port for each of `lines`, in this order; at most 255.
    pub fn new(lines: Vec<Line>) -> Self {
        Self(lines)
    }

    fn ports(&self) -> u8 {
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }
}

impl BusDevice for IrqLines {
    /// The level that was set.
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, self.ports(), |port| self.0[usize::from(port)].level().into());
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        write_bytes(offset, data, self.ports(), |port, level| self.0[usize::from(port)].set(level != 0));
    }
}

/// Memory that is a device: each access is emulated.
pub struct ScratchMemory(Box<[u8; SCRATCH_MEMORY]>);

impl Default for ScratchMemory {
    fn default() -> Self {
        Self(Box::new([0; SCRATCH_MEMORY]))
    }
}

impl ScratchMemory {
    /// The bytes from `offset` on that an access of `len` bytes meets.
    fn span(offset: u64, len: usize) -> std::ops::Range<usize> {
        let start = offset.min(SCRATCH_MEMORY as u64) as usize;
        start..start.saturating_add(len).min(SCRATCH_MEMORY)
    }
}

impl BusDevice for ScratchMemory {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let there = &self.0[Self::span(offset, data.len())];
        data[..there.len()].copy_from_slice(there);
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        let there = &mut self.0[Self::span(offset, data.len())];
        there.copy_from_slice(&data[..there.len()]);
    }
}
