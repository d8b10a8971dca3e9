//! Test records: what the guest kernel's image says of the tests in it.
//!
//! They lie one after the other in the ELF section [`SECTION`], each [`RECORD_SIZE`] bytes, without a pointer that a reader of
//! the file would have to follow. The index of a record in the section is the test's number in [`crate::agent::Op::Begin`].
//! An image whose section is missing, or has a record with another [`MAGIC`] or [`VERSION`], is not one of ours.

#[cfg(test)]
mod tests;

/// The section's name. It is a C identifier, so that linkers define `__start_` and `__stop_` symbols for it.
pub const SECTION: &str = "tophalf_tests";
/// The section of the measurements, which have the same records: what `tophalf bench` runs.
pub const MEASUREMENTS: &str = "tophalf_measurements";
/// First word of each record: "TpHt".
pub const MAGIC: u32 = 0x7448_7054;
/// Version of the record's layout.
pub const VERSION: u32 = 1;
/// Size of a record in bytes.
pub const RECORD_SIZE: usize = 256;
/// Longest name of a test, in bytes.
pub const NAME_MAX: usize = 64;
/// Longest text of [`TestRecord::known`], in bytes.
pub const KNOWN_MAX: usize = 152;

bitflags::bitflags! {
    /// What a test needs besides CPUs. Something that the machine lacks means that the test is skipped, with the reason.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Needs: u32 {
        /// The test agent ([`crate::agent`]).
        const AGENT = 1 << 0;
        /// A processor for ring 0: not a host that interprets it (`int n`, SYSCALL and others do not work there).
        const PROCESSOR = 1 << 1;
        /// x2APIC.
        const X2APIC = 1 << 2;
        /// The TSC-deadline mode of the local APIC's timer.
        const TSC_DEADLINE = 1 << 3;
        /// A HPET.
        const HPET = 1 << 4;
        /// An ACPI PM timer.
        const PM_TIMER = 1 << 5;
        /// A watchdog device.
        const WATCHDOG = 1 << 6;
        /// Directed EOI: an I/O APIC with an EOI register, and local APICs that can suppress the broadcast.
        const DIRECTED_EOI = 1 << 7;
        /// The test ends in a reset or a report of the machine, so it can only run alone in its machine.
        const ALONE = 1 << 8;
        /// The shadow of STI: without, a processor that looks for work before `sti; hlt` may sleep through it.
        const STI_SHADOW = 1 << 9;
        /// A local APIC that shows what is in service: that of a software KVM has injected it and forgotten it.
        const IN_SERVICE = 1 << 10;
    }

    /// Interrupt-controller modes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Modes: u8 {
        /// All controllers in the machine monitor; also a machine that does not say.
        const USER = 1 << 0;
        /// Local APICs in the kernel.
        const SPLIT = 1 << 1;
        /// All in the kernel.
        const KERNEL = 1 << 2;
    }
}

/// A test. `Body` is a function pointer in the guest, and its address (`u64`) for a reader of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct TestRecord<Body> {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u32,
    /// What runs the test.
    pub body: Body,
    /// Rows of the table of concepts: bit n is set for Cn.
    pub rows: u32,
    /// Bits of [`Needs`].
    pub needs: u32,
    /// Limit in milliseconds of the CPU time of all vCPU threads together.
    pub limit_ms: u32,
    /// The fewest CPUs it can run with.
    pub cpus: u8,
    /// Bits of [`Modes`] it runs in; in others it is skipped.
    pub modes: u8,
    /// Bits of [`Modes`] in which it is known to fail: passing there is an error.
    pub known_modes: u8,
    /// Reserved, 0.
    pub reserved: u8,
    /// Its name, UTF-8, padded with zeros: words joined by `_`, after the part of the kernel and a dot.
    pub name: [u8; NAME_MAX],
    /// Why it is known to fail, with the manual's section; empty if `known_modes` is.
    pub known: [u8; KNOWN_MAX],
    /// Reserved, 0.
    pub padding: u64,
}

impl<Body> TestRecord<Body> {
    /// A test for one CPU and all modes, with no special needs and a limit of 10 seconds.
    ///
    /// # Panics
    ///
    /// If the name is empty or longer than [`NAME_MAX`], or a row is not 1 to 26; all at compile time in a `static`.
    pub const fn new(name: &str, rows: &[u8], body: Body) -> Self
    where
        Body: Copy,
    {
        assert!(!name.is_empty(), "a test without a name");
        let mut bits = 0;
        let mut i = 0;
        while i < rows.len() {
            assert!(rows[i] >= 1 && rows[i] <= 26, "no such row");
            bits |= 1 << rows[i];
            i += 1;
        }
        Self {
            magic: MAGIC,
            version: VERSION,
            body,
            rows: bits,
            needs: 0,
            limit_ms: 40_000,
            cpus: 1,
            modes: Modes::all().bits(),
            known_modes: 0,
            reserved: 0,
            name: padded(name),
            known: [0; KNOWN_MAX],
            padding: 0,
        }
    }

    /// With these needs, too.
    pub const fn needs(mut self, needs: Needs) -> Self
    where
        Body: Copy,
    {
        self.needs |= needs.bits();
        self
    }

    /// With at least this many CPUs.
    pub const fn cpus(mut self, cpus: u8) -> Self
    where
        Body: Copy,
    {
        self.cpus = cpus;
        self
    }

    /// Only in these modes.
    pub const fn modes(mut self, modes: Modes) -> Self
    where
        Body: Copy,
    {
        self.modes = modes.bits();
        self
    }

    /// With this limit of CPU time in milliseconds.
    pub const fn limit_ms(mut self, limit: u32) -> Self
    where
        Body: Copy,
    {
        self.limit_ms = limit;
        self
    }

    /// Known to fail in these modes; `why` names the manual's section.
    pub const fn known(mut self, modes: Modes, why: &str) -> Self
    where
        Body: Copy,
    {
        self.known_modes = modes.bits();
        self.known = padded(why);
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        text(&self.name)
    }

    /// Why it is known to fail in [`TestRecord::known_modes`].
    pub fn why_known(&self) -> &str {
        text(&self.known)
    }

    /// What it needs; bits that this version does not know are kept.
    pub fn needed(&self) -> Needs {
        Needs::from_bits_retain(self.needs)
    }

    /// The rows of the table of concepts that it belongs to, ascending.
    pub fn row_numbers(&self) -> impl Iterator<Item = u8> + use<Body> {
        let rows = self.rows;
        (0..32).filter(move |row| rows & (1 << row) != 0)
    }
}

impl TestRecord<u64> {
    /// Decodes a record of an image; `None` if it is not one of this version, or its name is empty or not UTF-8.
    pub fn from_bytes(bytes: &[u8; RECORD_SIZE]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<32>()?;
        let (name, rest) = rest.split_first_chunk::<NAME_MAX>()?;
        let known = rest.first_chunk::<KNOWN_MAX>()?;
        let dword = |at: usize| head[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk));
        let record = Self {
            magic: dword(0),
            version: dword(4),
            body: u64::from(dword(8)) | u64::from(dword(12)) << 32,
            rows: dword(16),
            needs: dword(20),
            limit_ms: dword(24),
            cpus: head[28],
            modes: head[29],
            known_modes: head[30],
            reserved: head[31],
            name: *name,
            known: *known,
            padding: 0,
        };
        (record.magic == MAGIC && record.version == VERSION && !record.name().is_empty()).then_some(record)
    }
}

/// The text before the padding; empty if it is not UTF-8.
fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    core::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    assert!(text.len() <= N, "the text is too long for a test record");
    let mut bytes = [0; N];
    let mut i = 0;
    while i < text.len() {
        bytes[i] = text.as_bytes()[i];
        i += 1;
    }
    bytes
}
