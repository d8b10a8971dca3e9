//! The processor state at a kernel's entry point: descriptors, page tables, registers.
//!
//! [`long_mode`] is for the 64-bit entry point of Linux, [`protected_mode`] for the 32-bit ones of PVH and multiboot.
//! Follows Linux's Documentation/arch/x86/boot.rst, section "64-bit Boot Protocol": long mode with paging, flat `CS`
//! 0x10 and data segments 0x18, interrupts off, `RSI` pointing at the zero page. Descriptor and table formats are those
//! of the Intel SDM vol. 3A, sections "Segment Descriptors" and "4-Level Paging and 5-Level Paging". `TR` and `LDTR`
//! hold what they hold after reset (section "Processor State After Reset"), and there is no IDT: the kernel loads its
//! own before the first exception can be expected.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::BootError;
use super::layout;

#[cfg(test)]
mod tests;

/// Bytes of the GDT: four descriptors, the first two of them null.
pub const GDT_BYTES: u64 = 4 * 8;
/// Limit of a TSS without I/O map, as PVH asks for it.
const TSS_LIMIT: u32 = 0x67;
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always one; interrupts are off.
const RFLAGS_FIXED: u64 = 1 << 1;

const PAGE_PRESENT_WRITABLE: u64 = 0b11;
const PAGE_HUGE: u64 = 1 << 7;
const TABLE_BYTES: u64 = 4096;
const TABLE_ENTRIES: u64 = 512;
/// One directory maps 1 GiB; the first 4 GiB are mapped.
const DIRECTORIES: u64 = 4;

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity already applied.
    pub limit: u32,
    /// Type, 4 bits.
    pub kind: u8,
    /// Code or data (as against a system descriptor).
    pub code_or_data: bool,
    /// Descriptor privilege level, 0-3.
    pub dpl: u8,
    /// Present.
    pub present: bool,
    /// 64-bit code.
    pub long: bool,
    /// Default operand size is 32 bits.
    pub default_big: bool,
    /// The limit counts in 4 KiB units.
    pub granular: bool,
}

impl Segment {
    const fn flat(selector: u16, kind: u8, long: bool) -> Self {
        Self {
            selector,
            base: 0,
            limit: u32::MAX,
            kind,
            code_or_data: true,
            dpl: 0,
            present: true,
            long,
            default_big: !long,
            granular: true,
        }
    }

    const fn system(kind: u8, limit: u32) -> Self {
        Self {
            selector: 0,
            base: 0,
            limit,
            kind,
            code_or_data: false,
            dpl: 0,
            present: true,
            long: false,
            default_big: false,
            granular: false,
        }
    }

    /// The 8-byte descriptor; for code and data, whose base has 32 bits.
    fn descriptor(&self) -> u64 {
        let limit = u64::from(if self.granular { self.limit >> 12 } else { self.limit });
        let access = u64::from(self.kind)
            | u64::from(self.code_or_data) << 4
            | u64::from(self.dpl) << 5
            | u64::from(self.present) << 7;
        let flags = u64::from(self.long) << 1 | u64::from(self.default_big) << 2 | u64::from(self.granular) << 3;
        limit & 0xffff
            | (self.base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 0xf) << 48
            | flags << 52
            | (self.base >> 24 & 0xff) << 56
    }
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Guest address of the table.
    pub base: u64,
    /// Its size in bytes, less one.
    pub limit: u16,
}

/// What the bootstrap processor's registers hold at the kernel's first instruction; all others are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// Instruction pointer: the entry point.
    pub rip: u64,
    /// The multiboot loader's signature.
    pub rax: u64,
    /// Address of the start information of PVH or multiboot.
    pub rbx: u64,
    /// Address of Linux's zero page.
    pub rsi: u64,
    /// Stack pointer; no protocol asks for one, but an early NMI should not write over the boot structures.
    pub rsp: u64,
    /// Flags: interrupts off.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3: the top page table, in long mode.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enables.
    pub efer: u64,
    /// Code segment.
    pub cs: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table register.
    pub ldt: Segment,
    /// Global descriptor table register.
    pub gdt: DescriptorTable,
    /// Interrupt descriptor table register.
    pub idt: DescriptorTable,
}

/// Writes the GDT and page tables, and gives the register contents to enter the 64-bit kernel at `entry` with, its zero
/// page at [`layout::ZERO_PAGE`].
pub fn long_mode(memory: &GuestMemoryMmap, entry: u64) -> Result<BootState, BootError> {
    write_page_tables(memory)?;
    let state = protected_mode(memory, entry, layout::GDT)?;
    let cs = Segment::flat(CODE_SELECTOR, 0xb, true);
    write_gdt(memory, layout::GDT, &cs, &state.data)?;
    Ok(BootState {
        rsi: layout::ZERO_PAGE,
        rsp: layout::STACK_TOP,
        cr0: CR0_PE | CR0_ET | CR0_NE | CR0_PG,
        cr3: layout::PAGE_TABLES,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        cs,
        ..state
    })
}

/// Writes a GDT at `gdt` and gives the register contents to enter the kernel at `entry` with in 32-bit protected mode,
/// without paging.
pub fn protected_mode(memory: &GuestMemoryMmap, entry: u64, gdt: u64) -> Result<BootState, BootError> {
    let cs = Segment::flat(CODE_SELECTOR, 0xb, false);
    let data = Segment::flat(DATA_SELECTOR, 0x3, false);
    write_gdt(memory, gdt, &cs, &data)?;
    Ok(BootState {
        rip: entry,
        rax: 0,
        rbx: 0,
        rsi: 0,
        rsp: 0,
        rflags: RFLAGS_FIXED,
        cr0: CR0_PE | CR0_ET,
        cr3: 0,
        cr4: 0,
        efer: 0,
        cs,
        data,
        // A busy 32-bit or 64-bit TSS and an LDT: long mode is not entered without a valid TR.
        tr: Segment::system(0xb, TSS_LIMIT),
        ldt: Segment::system(0x2, 0xffff),
        gdt: DescriptorTable { base: gdt, limit: (GDT_BYTES - 1) as u16 },
        idt: DescriptorTable { base: 0, limit: 0 },
    })
}

fn write_gdt(memory: &GuestMemoryMmap, at: u64, code: &Segment, data: &Segment) -> Result<(), BootError> {
    write_qwords(memory, "the GDT", at, [0, 0, code.descriptor(), data.descriptor()].into_iter())
}

/// Maps the first 4 GiB one to one with 2 MiB pages.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let pointers = layout::PAGE_TABLES + TABLE_BYTES;
    let directories = pointers + TABLE_BYTES;
    let write = |address, entries: &mut dyn Iterator<Item = u64>| write_qwords(memory, "page tables", address, entries);
    write(layout::PAGE_TABLES, &mut [pointers | PAGE_PRESENT_WRITABLE].into_iter())?;
    write(pointers, &mut (0..DIRECTORIES).map(|i| (directories + i * TABLE_BYTES) | PAGE_PRESENT_WRITABLE))?;
    write(directories, &mut (0..DIRECTORIES * TABLE_ENTRIES).map(|page| page << 21 | PAGE_HUGE | PAGE_PRESENT_WRITABLE))
}

fn write_qwords(
    memory: &GuestMemoryMmap,
    what: &'static str,
    address: u64,
    values: impl Iterator<Item = u64>,
) -> Result<(), BootError> {
    let bytes: Vec<u8> = values.flat_map(u64::to_le_bytes).collect();
    memory.write_slice(&bytes, GuestAddress(address)).map_err(|cause| BootError::GuestWrite { what, cause })
}
