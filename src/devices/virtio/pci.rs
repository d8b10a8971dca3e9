//! Virtio over PCI (VIRTIO 1.2, section "Virtio Over PCI Bus"): one BAR with the four structures, the MSI-X table and its
//! pending bits, a page each; vendor capabilities that say so.
//!
//! Interrupts go by MSI-X when the driver has enabled that; else the ISR status byte says which, and INTx follows it, or each is a
//! message of MSI's if that is enabled (one for the configuration, one a queue).

use std::sync::Arc;

use irqchip::line::{Line, Msi as Messages};
use parking_lot::Mutex;

use super::common::{Common, Interrupts};
use super::queue::Part;
use super::registers::{Register, Registers};
use super::{Device, Kind, Memory, Serve};
use crate::doorbell::{Doorbells, Written};
use crate::pci::{ConfigSpace, Function, Identity, MSI_MAX_LOG2, MSIX_CAPABILITY, Msi, MsiX};

#[cfg(test)]
mod tests;

/// Size of the BAR.
pub const BAR_BYTES: u32 = 0x8000;
/// The BAR's number.
const BAR: usize = 0;

/// Where what is in it.
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;
/// Bytes of the common configuration structure, with the fields of VIRTIO 1.2.
const COMMON_BYTES: u32 = 0x3c;
/// Each queue has its own notification address, so many bytes from the one before.
const NOTIFY_MULTIPLIER: u32 = 4;

const VENDOR: u16 = 0x1af4;
/// A modern device's ID is this and its kind.
const MODERN_DEVICE: u16 = 0x1040;
/// "Non-transitional devices SHOULD have a PCI Revision ID of 1 or higher" and a subsystem ID of 0x40 or higher.
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x0040;

/// Vendor-specific capability, and its types.
const VENDOR_CAPABILITY: u8 = 9;
const CAP_COMMON: u8 = 1;
const CAP_NOTIFY: u8 = 2;
const CAP_ISR: u8 = 3;
const CAP_DEVICE: u8 = 4;
const CAP_PCI: u8 = 5;
/// Offsets in the configuration access capability.
const CFG_BAR: usize = 4;
const CFG_OFFSET: usize = 8;
const CFG_LENGTH: usize = 12;
const CFG_DATA: usize = 16;

/// No vector.
const NO_VECTOR: u16 = 0xffff;

/// ISR status.
const ISR_QUEUE: u8 = 1 << 0;
const ISR_CONFIG: u8 = 1 << 1;

/// A device on the PCI bus.
pub struct VirtioPci<D> {
    registers: Registers<D>,
    config: ConfigSpace,
    msi: Msi,
    msix: MsiX,
    /// Where the capabilities that matter afterwards are.
    msix_at: usize,
    access_at: usize,
    line: Line,
    isr: u8,
    config_vector: u16,
    vectors: Vec<u16>,
}

/// What connects a device with the machine.
pub struct Wires {
    /// Messages.
    pub msi: Messages,
    /// INTA#.
    pub line: Line,
    /// What software knows that line as.
    pub gsi: u8,
    /// Notifications without exits.
    pub doorbells: Arc<dyn Doorbells>,
}

impl<D: Device> VirtioPci<D> {
    /// `device` with its BAR at `base`.
    pub fn new(device: D, memory: Memory, base: u32, wires: Wires) -> Self {
        let Wires { msi, line, gsi, doorbells } = wires;
        let kind = device.kind();
        let registers = Registers::new(device, memory, doorbells);
        let queues = registers.common.queue_count();
        let identity = Identity {
            id: (VENDOR, MODERN_DEVICE + kind as u16),
            revision: REVISION,
            class: class(kind),
            subsystem: (VENDOR, SUBSYSTEM),
        };
        let mut config = ConfigSpace::new(&identity);
        config.add_memory_bar(BAR, BAR_BYTES, base);
        config.add_interrupt_pin(gsi);
        // One for the configuration.
        let msix = MsiX::new(msi.clone(), queues + 1);
        let (body, writable) = msix.capability(BAR as u8, MSIX_TABLE as u32, MSIX_PENDING as u32);
        let msix_at = config.add_capability(MSIX_CAPABILITY, &body, &writable);
        let mut structure = |kind, offset, length, more: &[u8], writable: &[u8]| {
            config.add_capability(VENDOR_CAPABILITY, &capability(kind, offset, length, more), writable)
        };
        structure(CAP_COMMON, COMMON, COMMON_BYTES, &[], &[]);
        structure(CAP_NOTIFY, NOTIFY, u32::from(queues) * NOTIFY_MULTIPLIER, &NOTIFY_MULTIPLIER.to_le_bytes(), &[]);
        structure(CAP_ISR, ISR, 1, &[], &[]);
        structure(CAP_DEVICE, DEVICE, PAGE as u32, &[], &[]);
        // BAR, offset, length and data are the driver's.
        let mut writable = [0xff; 18];
        (writable[0], writable[1], writable[3], writable[4], writable[5]) = (0, 0, 0, 0, 0);
        let access_at = structure(CAP_PCI, 0, 0, &[0; 4], &writable);
        let msi = Msi::add(&mut config, msi, (queues + 1).next_power_of_two().ilog2().min(MSI_MAX_LOG2.into()) as u8);
        Self {
            registers,
            config,
            msi,
            msix,
            msix_at,
            access_at,
            line,
            isr: 0,
            config_vector: NO_VECTOR,
            vectors: vec![NO_VECTOR; queues.into()],
        }
    }

    /// Everything that may have changed the interrupts ends here.
    fn deliver(&mut self) {
        let Interrupts { queues, config } = self.registers.common.take_owed();
        let is_for = |index: usize| queues & 1 << index != 0;
        if self.msix.is_enabled() {
            if config {
                self.msix.raise(self.config_vector);
            }
            for (index, &vector) in self.vectors.iter().enumerate() {
                if is_for(index) {
                    self.msix.raise(vector);
                }
            }
        } else {
            self.isr |= if queues != 0 { ISR_QUEUE } else { 0 } | if config { ISR_CONFIG } else { 0 };
            if config {
                self.msi.raise(&mut self.config, 0);
            }
            for index in (0..self.vectors.len()).filter(|&index| is_for(index)) {
                self.msi.raise(&mut self.config, 1 + index as u16);
            }
        }
        self.update_line();
    }

    /// INTx follows ISR status, unless it is disabled or messages have taken its place.
    fn update_line(&mut self) {
        let wanted = self.isr != 0 && !self.msix.is_enabled() && !self.msi.is_enabled(&self.config);
        self.config.show_interrupt(wanted);
        self.line.set(wanted && self.config.intx_enabled());
    }

    /// Doorbells follow the BAR and the status.
    fn follow(&mut self) {
        let base = self.config.bar(BAR).map(|(base, _)| base);
        let place = |base, queue| (base + NOTIFY + u64::from(NOTIFY_MULTIPLIER) * u64::from(queue), Written::Anything);
        self.registers.follow(base, place);
    }

    fn vector(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() { vector } else { NO_VECTOR }
    }

    /// The vector of the selected queue; none where there is no such queue.
    fn selected_vector(&mut self) -> Option<&mut u16> {
        let queue = self.registers.queue_select();
        self.vectors.get_mut(usize::from(queue))
    }

    /// A field of the common configuration structure, by the offset of its first byte.
    fn read_common(&mut self, offset: u64) -> u32 {
        match offset {
            0x10 => self.config_vector.into(),
            0x1a => self.selected_vector().map_or(NO_VECTOR, |vector| *vector).into(),
            // Where a queue is notified of, and by what.
            0x1e | 0x38 => self.registers.queue_select().into(),
            _ => register(offset).map_or(0, |register| self.registers.read(register)),
        }
    }

    fn write_common(&mut self, offset: u64, value: u32) {
        match offset {
            0x10 => self.config_vector = self.vector(value as u16),
            0x1a => {
                let vector = self.vector(value as u16);
                if let Some(place) = self.selected_vector() {
                    *place = vector;
                }
            }
            _ => {
                if let Some(register) = register(offset) {
                    self.write_register(register, value);
                }
            }
        }
        self.deliver();
    }

    fn write_register(&mut self, register: Register, value: u32) {
        self.registers.write(register, value);
        if register == Register::Status {
            if value == 0 {
                self.config_vector = NO_VECTOR;
                self.vectors.fill(NO_VECTOR);
                self.isr = 0;
            }
            self.follow();
        }
    }

    fn read_structure(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset & !(PAGE - 1) {
            COMMON => match field(offset, data.len()) {
                Fields::One => data.copy_from_slice(&self.read_common(offset).to_le_bytes()[..data.len()]),
                Fields::TwoHalves => {
                    for (half, offset) in data.chunks_exact_mut(4).zip([offset, offset + 4]) {
                        half.copy_from_slice(&self.read_common(offset).to_le_bytes());
                    }
                }
                Fields::None => {}
            },
            ISR if offset == ISR => {
                // "Reads of this register clear it", and de-assert INTx.
                if let Some(first) = data.first_mut() {
                    *first = std::mem::take(&mut self.isr);
                }
                self.update_line();
            }
            DEVICE => self.registers.device.read_config(offset - DEVICE, data),
            MSIX_TABLE => self.msix.read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING => self.msix.read_pending(offset - MSIX_PENDING, data),
            _ => {}
        }
    }

    fn write_structure(&mut self, offset: u64, data: &[u8]) {
        match offset & !(PAGE - 1) {
            COMMON => match field(offset, data.len()) {
                Fields::One => self.write_common(offset, from_le(data)),
                Fields::TwoHalves => {
                    for (half, offset) in data.chunks_exact(4).zip([offset, offset + 4]) {
                        self.write_common(offset, from_le(half));
                    }
                }
                Fields::None => {}
            },
            DEVICE => {
                let Registers { device, common, .. } = &mut self.registers;
                device.write_config(offset - DEVICE, data, common);
                self.deliver();
            }
            NOTIFY => {
                // The address names the queue; what is written does so too, and is not needed.
                let queue = (offset - NOTIFY) / u64::from(NOTIFY_MULTIPLIER);
                self.registers.notify(queue as u16);
                self.deliver();
            }
            MSIX_TABLE => self.msix.write_table(offset - MSIX_TABLE, data),
            _ => {}
        }
    }

    /// Where the configuration access capability leads now.
    fn accessed(&self) -> Option<(u64, usize)> {
        let at = self.access_at;
        let mut bar = [0];
        self.config.read(at + CFG_BAR, &mut bar);
        let (offset, len) = (self.config.u32_at(at + CFG_OFFSET), self.config.u32_at(at + CFG_LENGTH));
        let fits = usize::from(bar[0]) == BAR && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        (fits && offset < BAR_BYTES).then_some((offset.into(), len as usize))
    }
}

impl<D: Device> Function for VirtioPci<D> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        let at = self.access_at + CFG_DATA;
        if offset == at
            && let Some((target, len)) = self.accessed()
        {
            let mut value = [0; 4];
            self.read_structure(target, &mut value[..len]);
            self.config.write(at, &value);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.msix.set_control(self.config.u16_at(self.msix_at + 2));
        self.msi.written(&mut self.config);
        let at = self.access_at + CFG_DATA;
        if offset == at
            && let Some((target, len)) = self.accessed()
        {
            let value = self.config.u32_at(at).to_le_bytes();
            self.write_structure(target, &value[..len]);
        }
        // INTx may have been disabled, or given way to messages; the BAR may have moved.
        self.update_line();
        self.follow();
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.read_structure(offset, data);
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        self.write_structure(offset, data);
    }

    fn can_give_nmi(&self) -> bool {
        self.msix.can_give_nmi() || self.msi.can_give_nmi(&self.config)
    }
}

impl<D: Device> Serve<D> for Mutex<VirtioPci<D>> {
    fn serve(&self, work: &mut dyn FnMut(&mut D, &mut Common)) {
        let mut this = self.lock();
        let Registers { device, common, .. } = &mut this.registers;
        work(device, common);
        this.deliver();
    }
}

/// The register at `offset` of the common configuration structure, if other transports have it, too.
fn register(offset: u64) -> Option<Register> {
    Some(match offset {
        0x00 => Register::OfferedSelect,
        0x04 => Register::Offered,
        0x08 => Register::AcceptedSelect,
        0x0c => Register::Accepted,
        0x12 => Register::Queues,
        0x14 => Register::Status,
        0x15 => Register::Generation,
        0x16 => Register::QueueSelect,
        0x18 => Register::QueueSize,
        0x1c => Register::QueueEnable,
        0x20 => Register::QueuePart(Part::Descriptors, false),
        0x24 => Register::QueuePart(Part::Descriptors, true),
        0x28 => Register::QueuePart(Part::Driver, false),
        0x2c => Register::QueuePart(Part::Driver, true),
        0x30 => Register::QueuePart(Part::Device, false),
        0x34 => Register::QueuePart(Part::Device, true),
        0x3a => Register::QueueReset,
        _ => return None,
    })
}

/// How many fields of the common configuration an access is for: "the driver MUST access each field using the natural
/// access method", which for a 64-bit field is by its halves; we take it whole, too.
enum Fields {
    None,
    One,
    TwoHalves,
}

fn field(offset: u64, len: usize) -> Fields {
    let size = match offset {
        0x14 | 0x15 => 1,
        0x10 | 0x12 | 0x16 | 0x18 | 0x1a | 0x1c | 0x1e | 0x38 | 0x3a => 2,
        0x00 | 0x04 | 0x08 | 0x0c | 0x24 | 0x2c | 0x34 => 4,
        0x20 | 0x28 | 0x30 if len == 8 => return Fields::TwoHalves,
        0x20 | 0x28 | 0x30 => 4,
        _ => return Fields::None,
    };
    if len == size { Fields::One } else { Fields::None }
}

fn from_le(data: &[u8]) -> u32 {
    data.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte))
}

/// What follows ID and link of a vendor capability (section "Virtio Structure PCI Capabilities").
fn capability(kind: u8, offset: u64, length: u32, more: &[u8]) -> Vec<u8> {
    let mut body = vec![16 + more.len() as u8, kind, BAR as u8, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(more);
    body
}

/// Base class, subclass, programming interface.
fn class(kind: Kind) -> (u8, u8, u8) {
    match kind {
        Kind::Net => (0x02, 0x00, 0),
        Kind::Block => (0x01, 0x80, 0),
        Kind::Console => (0x07, 0x80, 0),
        Kind::Entropy => (0xff, 0x00, 0),
    }
}
