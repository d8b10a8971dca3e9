//! Loading a Linux bzImage and its initrd, and entering it at its 64-bit entry point.
//!
//! Follows Linux's Documentation/arch/x86/boot.rst: sections "The Real-Mode Kernel Header", "Details of Header Fields"
//! and "64-bit Boot Protocol". The kernel goes to its preferred address; the initrd as high as the kernel and the RAM
//! below 4 GiB allow. linux-loader copies the image; the header is checked here first, for errors that say what is wrong.
//!
//! Not modelled: the 16- and 32-bit entry points, protocols before 2.12 (Linux 3.8), `setup_data`, loading above 4 GiB,
//! checking the image's CRC or signature.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use x86::platform;

use super::entry::{self, BootState};
use super::error::{BootError, InputKind};
use super::file::InputFile;
use super::layout;
use super::zero_page::{self, Placement};
use crate::memory::{GuestRam, PAGE_BYTES};

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
const ONE_MIB: u64 = 1 << 20;

const REMEDY_FILE: &str =
    "give the bzImage of an x86-64 kernel build (arch/x86/boot/bzImage) or a distribution's vmlinuz";
const REMEDY_VERSION: &str = "give a 64-bit kernel of version 3.8 or later";

/// A Linux kernel and what it is started with.
#[derive(Debug, Clone, Copy)]
pub struct LinuxBoot<'a> {
    /// The bzImage.
    pub kernel: &'a Path,
    /// The initial RAM disk.
    pub initrd: Option<&'a Path>,
    /// The kernel command line, without a NUL.
    pub cmdline: &'a str,
    /// Guest address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Loads the kernel, the initrd and all that the boot protocol asks for into `ram`; gives the BSP's registers.
///
/// # Errors
///
/// Input errors for files and command lines that are wrong or do not fit, host errors when a file cannot be read to its
/// end. On an input error nothing was written to `ram`.
pub fn load_linux(ram: &GuestRam, boot: &LinuxBoot<'_>) -> Result<BootState, BootError> {
    let mut kernel = Image::open(boot.kernel)?;
    let kernel_end = kernel.check_memory(ram)?;
    check_cmdline(boot.cmdline, &kernel.header)?;
    let initrd = boot.initrd.map(|path| Initrd::open(path, ram, &kernel.header, kernel_end)).transpose()?;

    let load = kernel.load(ram)?;
    let mut placement = Placement { kernel: load as u32, initrd: (0, 0), rsdp: boot.rsdp };
    if let Some(mut initrd) = initrd {
        initrd.load(ram)?;
        // Both were placed below the 32-bit device hole.
        placement.initrd = (initrd.start as u32, initrd.file.bytes as u32);
    }
    write_cmdline(ram, boot.cmdline)?;
    zero_page::write(ram, &kernel.header, &placement)?;
    entry::set_up(ram.memory(), load + ENTRY_64)
}

/// A bzImage whose header has been checked.
struct Image {
    file: InputFile,
    header: setup_header,
}

impl Image {
    fn open(path: &Path) -> Result<Self, BootError> {
        let mut file = InputFile::open(InputKind::Kernel, path)?;
        let mut start = Vec::with_capacity(HEADER_MAX);
        let mut first = (&mut file.file).take(HEADER_MAX as u64);
        first.read_to_end(&mut start).map_err(|cause| file.read_error(cause))?;
        let header = parse_header(path, &start)?;
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
    if start.starts_with(b"\x7fELF") {
        return wrong(0, "an ELF file (a vmlinux?)".to_owned(), "a bzImage", REMEDY_FILE);
    }
    if start.len() < HEADER_END {
        let found = "the end of the file".to_owned();
        return wrong(start.len(), found, "a setup header up to offset 0x268", REMEDY_FILE);
    }
    if start[BOOT_FLAG..BOOT_FLAG + 2] != [0x55, 0xaa] {
        return wrong(BOOT_FLAG, hex(&start[BOOT_FLAG..BOOT_FLAG + 2]), "the boot flag 55 aa", REMEDY_FILE);
    }
    if &start[MAGIC..MAGIC + 4] != b"HdrS" {
        return wrong(MAGIC, hex(&start[MAGIC..MAGIC + 4]), "\"HdrS\" (48 64 72 53)", REMEDY_FILE);
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
    BootError::NotBzImage { path: path.to_owned(), offset: offset as u64, found, expected, remedy }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// An initrd and its place in guest memory.
#[derive(Debug)]
struct Initrd {
    file: InputFile,
    start: u64,
}

impl Initrd {
    fn open(path: &Path, ram: &GuestRam, header: &setup_header, kernel_end: u64) -> Result<Self, BootError> {
        let file = InputFile::open(InputKind::Initrd, path)?;
        // The field names the highest byte that may be used.
        let addr_end = u64::from(header.initrd_addr_max) + 1;
        let limit = ram.low_end().min(addr_end);
        match place_initrd(kernel_end, limit, file.bytes) {
            Some(start) => Ok(Self { file, start }),
            None => {
                let max_end = addr_end.min(platform::MMIO_HOLE_START);
                let (path, bytes) = (file.path(), file.bytes);
                Err(BootError::InitrdTooLarge { path, bytes, kernel_end, limit, max_end })
            }
        }
    }

    fn load(&mut self, ram: &GuestRam) -> Result<(), BootError> {
        let file = &mut self.file;
        file.file.seek(SeekFrom::Start(0)).map_err(|cause| file.read_error(cause))?;
        // It lies below 4 GiB, so its length fits.
        ram.memory()
            .read_exact_volatile_from(GuestAddress(self.start), &mut file.file, file.bytes as usize)
            .map_err(|cause| file.read_error(cause))
    }
}

/// The highest page below `limit` from which `bytes` fit, if that is not below `kernel_end`.
fn place_initrd(kernel_end: u64, limit: u64, bytes: u64) -> Option<u64> {
    let start = limit.checked_sub(bytes)? / PAGE_BYTES * PAGE_BYTES;
    (start >= kernel_end).then_some(start)
}

fn check_cmdline(cmdline: &str, header: &setup_header) -> Result<(), BootError> {
    if let Some(position) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineNul { position });
    }
    let limit = u64::from(header.cmdline_size).min(layout::CMDLINE_BYTES - 1) as usize;
    if cmdline.len() > limit {
        return Err(BootError::CmdlineTooLong { bytes: cmdline.len(), limit });
    }
    Ok(())
}

fn write_cmdline(ram: &GuestRam, cmdline: &str) -> Result<(), BootError> {
    let bytes = [cmdline.as_bytes(), &[0]].concat();
    ram.memory()
        .write_slice(&bytes, GuestAddress(layout::CMDLINE))
        .map_err(|cause| BootError::GuestWrite { what: "the command line", cause })
}
