//! Loading a Linux bzImage and its initrd, and entering it at its 64-bit entry point.
//!
//! Follows Linux's Documentation/arch/x86/boot.rst: sections "The Real-Mode Kernel Header", "Details of Header Fields"
//! and "64-bit Boot Protocol". The kernel goes to its preferred address; the initrd as high as the kernel and the RAM
//! below 4 GiB allow. linux-loader copies the image; the header is checked here first, for errors that say what is wrong.
//!
//! Not modelled: the 16- and 32-bit entry points, protocols before 2.12 (Linux 3.8), `setup_data`, loading above 4 GiB,
//! checking the image's CRC or signature.

use std::path::Path;

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{ByteValued, GuestAddress};
use x86::platform;

use super::entry::{self, BootState};
use super::error::BootError;
use super::file::InputFile;
use super::modules::Modules;
use super::zero_page::{self, Placement};
use super::{Boot, DEFAULT_CMDLINE, ONE_MIB, cmdline};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

/// Offset of the setup header in the file, and of its fields that are looked at.
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const JUMP: usize = 0x200;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const XLOADFLAGS: usize = 0x236;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// End of the header fields of protocol 2.12.
const HEADER_END: usize = 0x268;
/// The most a header can take: its end is 0x202 plus the byte at 0x201.
const HEADER_MAX: usize = MAGIC + 0xff;

/// The 64-bit entry point, from the start of the loaded protected-mode kernel.
const ENTRY_64: u64 = 0x200;
const MIN_VERSION: u16 = 0x020c;
const SECTOR: u64 = 512;
/// `syssize` counts paragraphs.
const PARAGRAPH: u64 = 16;

const REMEDY_FILE: &str =
    "give the bzImage of an x86-64 kernel build (arch/x86/boot/bzImage) or a distribution's vmlinuz";
const REMEDY_VERSION: &str = "give a 64-bit kernel of version 3.8 or later";

/// Whether a file that begins like this is to be taken for a bzImage.
pub fn is_bzimage(start: &[u8]) -> bool {
    start.get(MAGIC..MAGIC + 4).is_some_and(|magic| magic == b"HdrS")
}

/// Loads the kernel, the initrd and all that the boot protocol asks for into `ram`; gives the BSP's registers.
///
/// # Errors
///
/// Input errors for files and command lines that are wrong or do not fit, host errors when a file cannot be read to its
/// end. On an input error nothing was written to `ram`.
pub fn load(ram: &GuestRam, file: InputFile, boot: &Boot<'_>) -> Result<BootState, BootError> {
    let mut kernel = Image::read(file)?;
    let kernel_end = kernel.check_memory(ram)?;
    let line = boot.cmdline.unwrap_or(DEFAULT_CMDLINE);
    cmdline::check(line, kernel.header.cmdline_size.into())?;
    // The field names the highest byte that may be used.
    let initrd_end = u64::from(kernel.header.initrd_addr_max) + 1;
    let mut modules = Modules::of_linux(boot)?;
    modules.place(ram, kernel_end, initrd_end)?;

    let load = kernel.load(ram)?;
    modules.load(ram)?;
    cmdline::write(ram, line)?;
    let placement = Placement { kernel: load as u32, initrd: modules.initrd(), rsdp: boot.rsdp };
    zero_page::write(ram, &kernel.header, &placement)?;
    entry::long_mode(ram.memory(), load + ENTRY_64)
}

/// A bzImage whose header has been checked.
struct Image {
    file: InputFile,
    header: setup_header,
}

impl Image {
    fn read(mut file: InputFile) -> Result<Self, BootError> {
        let start = file.read_at(0, HEADER_MAX)?;
        let header = parse_header(&file.path(), &start)?;
        let image = Self { file, header };
        let needed = image.setup_bytes() + u64::from(image.header.syssize) * PARAGRAPH;
        if image.file.bytes < needed {
            return Err(BootError::Truncated { path: image.file.path(), needed, bytes: image.file.bytes });
        }
        Ok(image)
    }

    /// Bytes of the real-mode part in the file, which is not loaded.
    fn setup_bytes(&self) -> u64 {
        // An old convention: 0 means 4.
        let sectors = match self.header.setup_sects {
            0 => 4,
            n => u64::from(n),
        };
        (sectors + 1) * SECTOR
    }

    /// End of the memory that the kernel takes until it has read the memory map.
    fn check_memory(&self, ram: &GuestRam) -> Result<u64, BootError> {
        let payload = self.file.bytes - self.setup_bytes();
        let size = payload.max(u64::from(self.header.init_size));
        let end = self.header.pref_address.saturating_add(size);
        if end > platform::MMIO_HOLE_START {
            return Err(not_bzimage(
                &self.file.path(),
                PREF_ADDRESS,
                format!("address {:#x} for {size} bytes", { self.header.pref_address }),
                "a kernel that fits below the device hole at 0xd0000000",
                REMEDY_FILE,
            ));
        }
        if end > ram.low_end() {
            let (path, bytes) = (self.file.path(), self.file.bytes);
            return Err(BootError::KernelTooLarge { path, bytes, end, memory: ram.bytes() });
        }
        Ok(end)
    }

    /// Copies the protected-mode part to where it wants to be; gives the address.
    fn load(&mut self, ram: &GuestRam) -> Result<u64, BootError> {
        let address = self.header.pref_address;
        match BzImage::load(ram.memory(), Some(GuestAddress(address)), &mut self.file.file, None) {
            Ok(_) => Ok(address),
            Err(cause) => Err(self.file.read_error(cause)),
        }
    }
}

/// Checks the first bytes of the file; gives the header, zeroed beyond the end it states.
fn parse_header(path: &Path, start: &[u8]) -> Result<setup_header, BootError> {
    let wrong = |offset, found, expected, remedy| Err(not_bzimage(path, offset, found, expected, remedy));
    if start.len() < HEADER_END {
        let found = "the end of the file".to_owned();
        return wrong(start.len(), found, "a setup header up to offset 0x268", REMEDY_FILE);
    }
    if start[BOOT_FLAG..BOOT_FLAG + 2] != [0x55, 0xaa] {
        return wrong(BOOT_FLAG, hex(&start[BOOT_FLAG..BOOT_FLAG + 2]), "the boot flag 55 aa", REMEDY_FILE);
    }
    let version = u16::from_le_bytes([start[VERSION], start[VERSION + 1]]);
    if version < MIN_VERSION {
        let found = format!("boot protocol {}.{:02}", version >> 8, version & 0xff);
        return wrong(VERSION, found, "2.12 or later", REMEDY_VERSION);
    }
    // The displacement of the jump instruction over the header says where the header ends.
    let end = MAGIC + usize::from(start[JUMP + 1]);
    if end < HEADER_END || start.len() < end {
        let found = format!("a header that ends at offset {end:#x}");
        return wrong(JUMP + 1, found, "an end at 0x268 or later, inside the file", REMEDY_FILE);
    }
    let mut header = setup_header::default();
    let bytes = header.as_mut_slice();
    let len = bytes.len().min(end - SETUP_SECTS);
    bytes[..len].copy_from_slice(&start[SETUP_SECTS..SETUP_SECTS + len]);

    if header.loadflags & LOADED_HIGH == 0 {
        let found = format!("loadflags {:#x}", header.loadflags);
        return wrong(LOADFLAGS, found, "bit 0, a kernel to load at 1 MiB or above", REMEDY_FILE);
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        let found = format!("xloadflags {:#x}", { header.xloadflags });
        return wrong(XLOADFLAGS, found, "bit 0, a 64-bit entry point", REMEDY_VERSION);
    }
    if header.pref_address < ONE_MIB {
        let found = format!("preferred address {:#x}", { header.pref_address });
        return wrong(PREF_ADDRESS, found, "1 MiB or above", REMEDY_FILE);
    }
    if header.init_size == 0 {
        return wrong(INIT_SIZE, "init_size 0".to_owned(), "the memory the kernel needs to start", REMEDY_FILE);
    }
    Ok(header)
}

fn not_bzimage(path: &Path, offset: usize, found: String, expected: &'static str, remedy: &'static str) -> BootError {
    BootError::BadImage { path: path.to_owned(), format: "bzImage", offset: offset as u64, found, expected, remedy }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
