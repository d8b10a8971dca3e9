//! `fw_cfg`: a firmware configuration interface, as QEMU's specification docs/specs/fw_cfg.rst describes its port form;
//! the numbers of the items are those of Linux's include/uapi/linux/qemu_fw_cfg.h.
//!
//! A word written to the selector chooses an item and its first byte; each byte read from the data port is the item's
//! next, and zero after its end. Numbers are little-endian but for the file directory's, which are big-endian.
//!
//! Not modelled: DMA (the ID item says so), writing, items of the architecture's own numbers (0x8000 and up: empty).

#[cfg(test)]
mod tests;

use x86::Nanos;

use crate::traits::BusDevice;

const SIGNATURE: u16 = 0x00;
const ID: u16 = 0x01;
const UUID: u16 = 0x02;
const RAM_SIZE: u16 = 0x03;
const NO_GRAPHIC: u16 = 0x04;
const CPUS: u16 = 0x05;
const KERNEL_SIZE: u16 = 0x08;
const INITRD_SIZE: u16 = 0x0b;
const MAX_CPUS: u16 = 0x0f;
const CMDLINE_SIZE: u16 = 0x14;
const CMDLINE_DATA: u16 = 0x15;
const FILE_DIRECTORY: u16 = 0x19;
const FILE_FIRST: u16 = 0x20;
/// The traditional interface, without DMA.
const ID_TRADITIONAL: u32 = 1;
/// Bytes of a file's name, its NUL included.
const NAME_BYTES: usize = 56;
/// Offset of the data port.
const DATA: u64 = 1;

/// What the items say of the machine.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Number of processors.
    pub cpus: u16,
    /// The highest local APIC ID a processor can have, plus one.
    pub max_cpus: u16,
    /// Memory in bytes.
    pub ram: u64,
    /// The kernel's command line.
    pub cmdline: String,
    /// Bytes of the kernel's file.
    pub kernel_bytes: u32,
    /// Bytes of the initrd; 0 without one.
    pub initrd_bytes: u32,
    /// Names, of at most 55 bytes, and contents.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// The two ports.
pub struct FwCfg {
    contents: Contents,
    item: Vec<u8>,
    next: usize,
}

impl FwCfg {
    /// Ports that give these contents; the signature is selected.
    pub fn new(contents: Contents) -> Self {
        let mut device = Self { contents, item: Vec::new(), next: 0 };
        device.select(SIGNATURE);
        device
    }

    fn select(&mut self, key: u16) {
        self.item = self.item(key);
        self.next = 0;
    }

    fn item(&self, key: u16) -> Vec<u8> {
        let contents = &self.contents;
        match key {
            SIGNATURE => b"QEMU".to_vec(),
            ID => ID_TRADITIONAL.to_le_bytes().to_vec(),
            UUID => vec![0; 16],
            RAM_SIZE => contents.ram.to_le_bytes().to_vec(),
            NO_GRAPHIC => 1_u16.to_le_bytes().to_vec(),
            CPUS => contents.cpus.to_le_bytes().to_vec(),
            MAX_CPUS => contents.max_cpus.to_le_bytes().to_vec(),
            KERNEL_SIZE => contents.kernel_bytes.to_le_bytes().to_vec(),
            INITRD_SIZE => contents.initrd_bytes.to_le_bytes().to_vec(),
            CMDLINE_SIZE => (contents.cmdline.len() as u32 + 1).to_le_bytes().to_vec(),
            CMDLINE_DATA => [contents.cmdline.as_bytes(), &[0]].concat(),
            FILE_DIRECTORY => self.directory(),
            _ => {
                let file = key.checked_sub(FILE_FIRST).and_then(|index| contents.files.get(usize::from(index)));
                file.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
            }
        }
    }

    fn directory(&self) -> Vec<u8> {
        let files = &self.contents.files;
        let mut bytes = (files.len() as u32).to_be_bytes().to_vec();
        for (key, (name, file)) in (FILE_FIRST..).zip(files) {
            bytes.extend((file.len() as u32).to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            let name = name.bytes().take(NAME_BYTES - 1);
            let end = bytes.len() + NAME_BYTES;
            bytes.extend(name);
            bytes.resize(end, 0);
        }
        bytes
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.item.get(self.next).copied().unwrap_or(0);
        // At the end it stays: there is nothing but zeros.
        self.next = self.next.saturating_add(1).min(self.item.len());
        byte
    }
}

impl BusDevice for FwCfg {
    /// The selector can't be read.
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (DATA, Some(byte)) = (offset, data.first_mut()) {
            *byte = self.next_byte();
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        if let (0, &[low, high, ..]) = (offset, data) {
            self.select(u16::from_le_bytes([low, high]));
        }
    }
}
