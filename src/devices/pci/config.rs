//! A function's configuration space: a type 0 header, memory base address registers, a list of capabilities (PCI Local
//! Bus Specification 3.0, chapter "Configuration Space").
//!
//! Each byte has a mask of the bits that a write changes. A base address register's size is in its mask: the low bits stay
//! zero, so a driver that writes all ones reads the size (section "Base Addresses").
//!
//! Not modelled: I/O and 64-bit base addresses, expansion ROMs, bus mastering (a function may always write), parity and
//! other errors, power management.

/// Bytes of a conventional function's space; the rest of an ECAM page reads as all ones.
pub const CONFIG_BYTES: usize = 256;
/// Base address registers of a type 0 header.
pub const BARS: usize = 6;

/// Offset of the command register.
pub const COMMAND: usize = 0x04;
/// Offset of the first base address register.
pub const BAR0: usize = 0x10;
/// Command: memory accesses are answered.
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: INTx is not asserted.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;

const STATUS: usize = 0x06;
/// Status: INTx would be asserted, were it not disabled.
const STATUS_INTERRUPT: u8 = 1 << 3;
/// Status: there is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;
const CAPABILITIES: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;

/// Who a function is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor and device ID.
    pub id: (u16, u16),
    /// Revision.
    pub revision: u8,
    /// Base class, subclass, programming interface.
    pub class: (u8, u8, u8),
    /// Subsystem's vendor and device ID.
    pub subsystem: (u16, u16),
}

/// The space of one function.
pub struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    /// Sizes; 0 where there is none.
    bars: [u32; BARS],
    /// Where the offset of the next capability goes, and where that may lie.
    capability_link: usize,
    next_capability: usize,
}

impl ConfigSpace {
    /// A header without anything but an identity; nothing is decoded.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            bars: [0; BARS],
            capability_link: CAPABILITIES,
            next_capability: FIRST_CAPABILITY,
        };
        let (vendor, device) = identity.id;
        space.put(0x00, &vendor.to_le_bytes());
        space.put(0x02, &device.to_le_bytes());
        let (base, sub, interface) = identity.class;
        space.put(0x08, &[identity.revision, interface, sub, base]);
        let (vendor, device) = identity.subsystem;
        space.put(0x2c, &vendor.to_le_bytes());
        space.put(0x2e, &device.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.let_write(COMMAND, &command.to_le_bytes());
        // Cache line size and latency timer: kept for software, without effect.
        space.let_write(0x0c, &[0xff, 0xff]);
        space
    }

    /// Adds a 32-bit memory base address register, set to `base`, and has memory accesses answered, as firmware leaves it.
    ///
    /// # Panics
    ///
    /// When `size` is no power of two from 16 up, `base` no multiple of it, or there is no register `index`: a bug.
    pub fn add_memory_bar(&mut self, index: usize, size: u32, base: u32) {
        assert!(size.is_power_of_two() && size >= 16 && base.is_multiple_of(size), "{size:#x} bytes at {base:#x}");
        self.bars[index] = size;
        let at = BAR0 + 4 * index;
        self.let_write(at, &(!(size - 1)).to_le_bytes());
        self.put(at, &base.to_le_bytes());
        self.put(COMMAND, &(COMMAND_MEMORY | COMMAND_BUS_MASTER).to_le_bytes());
    }

    /// Gives it interrupt pin INTA#, connected to `line`, which is for software to read (section "Interrupt Line").
    pub fn add_interrupt_pin(&mut self, line: u8) {
        self.put(INTERRUPT_LINE, &[line, 1]);
        self.let_write(INTERRUPT_LINE, &[0xff]);
    }

    /// Adds a capability: its ID, what follows ID and link, and which bits of that can be written. Gives its offset.
    ///
    /// # Panics
    ///
    /// When there is no room left: a bug.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.next_capability;
        assert!(at + 2 + body.len() <= CONFIG_BYTES && writable.len() <= body.len(), "no room for capability {id:#x}");
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.let_write(at + 2, writable);
        self.bytes[self.capability_link] = at as u8;
        self.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.capability_link = at + 1;
        self.next_capability = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// A read; what is beyond the space is all ones.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        for (byte, value) in data.iter_mut().zip(self.bytes.iter().skip(offset)) {
            *byte = *value;
        }
    }

    /// A write; bits that can't be written keep their values.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let places = self.bytes.iter_mut().zip(self.writable).skip(offset);
        for ((old, mask), &byte) in places.zip(data) {
            *old = *old & !mask | byte & mask;
        }
    }

    /// Where register `index` has its function answer, and how far: `None` if it does not.
    pub fn bar(&self, index: usize) -> Option<(u64, u64)> {
        let size = *self.bars.get(index)?;
        let decodes = self.command() & COMMAND_MEMORY != 0 && size != 0;
        decodes.then(|| (self.u32_at(BAR0 + 4 * index).into(), size.into()))
    }

    /// Whether software allows INTx.
    pub fn intx_enabled(&self) -> bool {
        self.command() & COMMAND_INTX_DISABLE == 0
    }

    /// Shows whether INTx is wanted, whether or not it is disabled.
    pub fn show_interrupt(&mut self, wanted: bool) {
        self.bytes[STATUS] = self.bytes[STATUS] & !STATUS_INTERRUPT | if wanted { STATUS_INTERRUPT } else { 0 };
    }

    /// Sets what software reads at `offset`, whether it can write it or not.
    pub fn show(&mut self, offset: usize, data: &[u8]) {
        self.put(offset, data);
    }

    /// Whether it has an interrupt pin.
    pub fn has_interrupt_pin(&self) -> bool {
        self.bytes[INTERRUPT_PIN] != 0
    }

    /// Sixteen bits at `offset`; all ones beyond the space.
    pub fn u16_at(&self, offset: usize) -> u16 {
        let mut data = [0; 2];
        self.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    /// Thirty-two bits at `offset`; all ones beyond the space.
    pub fn u32_at(&self, offset: usize) -> u32 {
        let mut data = [0; 4];
        self.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn command(&self) -> u16 {
        self.u16_at(COMMAND)
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    fn let_write(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }
}

#[cfg(test)]
mod tests;
