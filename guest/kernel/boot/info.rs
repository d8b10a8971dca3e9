//! What the loader says: the command line, and where the ACPI tables begin.
//!
//! To read more: "x86/HVM direct boot ABI", struct hvm_start_info; Linux, Documentation/arch/x86/zero-page.rst.

use spin::Once;
use x86::agent::words;

/// The longest command line that is kept, in bytes.
const LINE_MAX: usize = 512;
/// First word of a start-info block.
const START_INFO_MAGIC: u32 = 0x336e_c578;

/// The loader's message, copied before anything can overwrite it.
pub struct BootInfo {
    line: [u8; LINE_MAX],
    length: usize,
    /// Physical address of the ACPI root pointer; 0 if the loader does not say.
    pub rsdp: u64,
}

static BOOT_INFO: Once<BootInfo> = Once::new();

impl BootInfo {
    /// From the PVH start-info block at `address`.
    pub(super) fn from_pvh(address: u64) -> Self {
        let mut info = Self { line: [0; LINE_MAX], length: 0, rsdp: 0 };
        let field = |offset: u64| physical::<u64>(address + offset);
        if address != 0 && physical::<u32>(address) == START_INFO_MAGIC {
            info.rsdp = field(32);
            info.copy_line(field(24));
        }
        info
    }

    /// From the zero page at `address`.
    pub(super) fn from_zero_page(address: u64) -> Self {
        let mut info = Self { line: [0; LINE_MAX], length: 0, rsdp: 0 };
        if address != 0 {
            info.rsdp = physical(address + 0x70);
            let (low, high) = (physical::<u32>(address + 0x228), physical::<u32>(address + 0xc8));
            info.copy_line(u64::from(low) | u64::from(high) << 32);
        }
        info
    }

    fn copy_line(&mut self, address: u64) {
        if address == 0 {
            return;
        }
        while self.length < LINE_MAX {
            match physical(address + self.length as u64) {
                0 => break,
                byte => self.line[self.length] = byte,
            }
            self.length += 1;
        }
    }

    /// Keeps `self` as what [`boot_info`] gives.
    pub(crate) fn publish(self) {
        BOOT_INFO.call_once(|| self);
    }

    /// The command line, up to its first byte that is not UTF-8.
    pub fn command_line(&self) -> &str {
        let line = &self.line[..self.length];
        match core::str::from_utf8(line) {
            Ok(text) => text,
            Err(e) => core::str::from_utf8(&line[..e.valid_up_to()]).unwrap_or_default(),
        }
    }

    /// The value of the word `key=value` on the command line; the last one counts.
    pub fn word(&self, key: &str) -> Option<&str> {
        let words = self.command_line().split_ascii_whitespace();
        words
            .filter_map(|word| word.split_once('='))
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next_back()
    }

    /// The number in the word `key=number`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.word(key)?.parse().ok()
    }

    /// Ring 0 is interpreted, see [`words::HOST`].
    pub fn software_host(&self) -> bool {
        self.word(words::HOST) == Some(words::SOFTWARE)
    }

    /// No interrupt comes between STI and the instruction after it, see [`words::SHADOW`].
    pub fn keeps_sti_shadow(&self) -> bool {
        self.word(words::SHADOW) != Some(words::LOST)
    }
}

/// What the loader said.
pub fn boot_info() -> &'static BootInfo {
    static NONE: BootInfo = BootInfo { line: [0; LINE_MAX], length: 0, rsdp: 0 };
    BOOT_INFO.get().unwrap_or(&NONE)
}

/// Reads a plain value at a physical address below 4 GiB, unaligned; a default beyond.
pub fn physical<T: Copy + Default>(address: u64) -> T {
    if address >= 1 << 32 {
        return T::default();
    }
    // SAFETY: the first 4 GiB are mapped one to one, and T is a plain value: any bytes are one. Callers read tables
    // of loader and firmware, which nobody writes.
    unsafe { core::ptr::read_unaligned(address as *const T) }
}
