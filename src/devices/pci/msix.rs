//! MSI-X: a table of messages with a mask each, and the pending bits of those that were raised while masked (PCI Local Bus
//! Specification 3.0, section "MSI-X Capability and Table Structures").
//!
//! Table and pending bits lie in a BAR of the function; message control is in its configuration space. Software may access
//! them by dwords or quadwords, aligned; other accesses read as zero and change nothing ("undefined" there).

use irqchip::line::{Msi, MsiVector};

/// Capability ID.
pub const CAPABILITY: u8 = 0x11;
/// Bytes of a table entry.
pub const ENTRY_BYTES: u64 = 16;
/// The most entries: bits of one quadword of pending bits.
pub const MAX_VECTORS: u16 = 64;

/// Message control: enabled, whole function masked.
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
/// Vector control: masked.
const MASKED: u32 = 1 << 0;

/// Message address, its upper half, message data, vector control.
type Entry = [u32; 4];
const VECTOR_CONTROL: usize = 3;

/// Address and data.
type Message = (u64, u32);

fn message([low, high, data, _]: &Entry) -> Message {
    (u64::from(*high) << 32 | u64::from(*low), *data)
}

/// How a vector's messages are sent.
#[derive(Default)]
enum Way {
    /// It has not been able to send any yet.
    #[default]
    New,
    /// Each by itself.
    Sent,
    /// By a way of its own, which is set to this message; to none if it could not be set.
    Routed(Box<dyn MsiVector>, Option<Message>),
}

/// One function's vectors.
pub struct MsiX {
    msi: Msi,
    control: u16,
    table: Vec<Entry>,
    /// One for each entry. A way follows its entry as soon as that is one that can be sent.
    ways: Vec<Way>,
    pending: u64,
}

impl MsiX {
    /// `vectors` masked vectors, disabled as a whole.
    ///
    /// # Panics
    ///
    /// For none, and for more than [`MAX_VECTORS`]: a bug.
    pub fn new(msi: Msi, vectors: u16) -> Self {
        assert!((1..=MAX_VECTORS).contains(&vectors), "{vectors} vectors");
        let ways = (0..vectors).map(|_| Way::New).collect();
        Self { msi, control: 0, table: vec![[0, 0, 0, MASKED]; vectors.into()], ways, pending: 0 }
    }

    /// What follows ID and link of the capability, for a table and pending bits at these offsets of BAR `bar`, and which
    /// bits of it can be written.
    pub fn capability(&self, bar: u8, table: u32, pending: u32) -> ([u8; 10], [u8; 2]) {
        let size = self.table.len() as u16 - 1;
        let mut body = [0; 10];
        body[..2].copy_from_slice(&size.to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        (body, (ENABLE | FUNCTION_MASK).to_le_bytes())
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.table.len() as u16
    }

    /// Whether software has enabled it; if not, the function has INTx.
    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Message control was written.
    pub fn set_control(&mut self, control: u16) {
        self.control = control;
        self.follow();
        self.send_pending();
    }

    /// Sends `vector`'s message, or sets its pending bit while it is masked. Nothing when disabled.
    pub fn raise(&mut self, vector: u16) {
        if self.is_enabled() && vector < self.vectors() {
            self.pending |= 1 << vector;
            self.send_pending();
        }
    }

    /// The message of a vector that is not masked is an NMI or an INIT.
    pub fn can_give_nmi(&self) -> bool {
        let gives = |entry: &Entry| {
            let (address, data) = message(entry);
            entry[VECTOR_CONTROL] & MASKED == 0 && Msi::gets_through(address, data)
        };
        self.is_sending() && self.table.iter().any(gives)
    }

    /// A read of the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        read_dwords(offset, data, |dword| self.table.get(dword / 4).map(|entry| entry[dword % 4]));
    }

    /// A write of the table.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        if !is_aligned(offset, data.len()) {
            return;
        }
        for (dword, value) in (offset as usize / 4..).zip(data.chunks_exact(4)) {
            let Some(entry) = self.table.get_mut(dword / 4) else { return };
            let value = value.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
            entry[dword % 4] = match dword % 4 {
                0 => value & !3,
                VECTOR_CONTROL => value & MASKED,
                _ => value,
            };
        }
        self.follow();
        self.send_pending();
    }

    /// A read of the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let halves = [self.pending as u32, (self.pending >> 32) as u32];
        read_dwords(offset, data, |dword| halves.get(dword).copied());
    }

    /// After a reset of the function: as new.
    pub fn reset(&mut self) {
        *self = Self::new(self.msi.clone(), self.vectors());
    }

    /// Enabled, and not masked as a whole.
    fn is_sending(&self) -> bool {
        self.control & (ENABLE | FUNCTION_MASK) == ENABLE
    }

    fn send_pending(&mut self) {
        if !self.is_sending() || self.pending == 0 {
            return;
        }
        for (vector, (entry, way)) in self.table.iter().zip(&self.ways).enumerate() {
            if self.pending & 1 << vector == 0 || entry[VECTOR_CONTROL] & MASKED != 0 {
                continue;
            }
            self.pending &= !(1 << vector);
            let (address, data) = message(entry);
            let signalled = match way {
                Way::Routed(own, Some(routed)) if *routed == (address, data) => own.signal(),
                _ => false,
            };
            if !signalled {
                self.msi.send(address, data);
            }
        }
    }

    /// Has the ways of vectors that can be sent follow their entries. A masked one, which software is about to change, is left
    /// alone: setting a way can take milliseconds.
    fn follow(&mut self) {
        if !self.is_sending() {
            return;
        }
        let unmasked = |(entry, _): &(&Entry, &mut Way)| entry[VECTOR_CONTROL] & MASKED == 0;
        for (entry, way) in self.table.iter().zip(&mut self.ways).filter(unmasked) {
            let message = message(entry);
            if matches!(way, Way::New) {
                *way = self.msi.vector().map_or(Way::Sent, |own| Way::Routed(own, None));
            }
            if let Way::Routed(own, routed) = way
                && *routed != Some(message)
            {
                *routed = own.route(message.0, message.1).then_some(message);
            }
        }
    }
}

fn is_aligned(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

/// Reads the dwords that `get` knows by their numbers; zero beyond them and for odd accesses.
fn read_dwords(offset: u64, data: &mut [u8], get: impl Fn(usize) -> Option<u32>) {
    let aligned = is_aligned(offset, data.len());
    for (dword, bytes) in (offset as usize / 4..).zip(data.chunks_mut(4)) {
        let value = if aligned { get(dword).unwrap_or(0) } else { 0 };
        bytes.copy_from_slice(&value.to_le_bytes()[..bytes.len()]);
    }
}

#[cfg(test)]
mod tests;
