//! The interrupt descriptor table: 256 gates, one for each vector, the same for all CPUs.
//!
//! An **interrupt gate** clears IF on entry, a **trap gate** leaves it as it is. The gate's privilege level says who may name the vector
//! in an `int n`; hardware is not asked. A **system gate** is one that ring 3 may name.
//!
//! Every gate here is an interrupt gate, the system gate too: it enters on an IST stack, and a second entry would overwrite the frame there, so
//! IF must stay clear until the frame is moved.
//!
//! To read more: Intel SDM vol. 3A, "IDT Descriptors", "64-Bit Mode IDT".

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use super::entry::stub;
use super::gdt::{Ist, Pointer};
use super::vectors;
use crate::boot::KERNEL_CS;

/// One gate, 16 bytes.
#[bitfield_struct::bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct Gate {
    /// Entry point, bits 15:0.
    pub offset_low: u16,
    /// Code segment.
    pub selector: u16,
    /// Slot of the interrupt stack table, 0 for none.
    #[bits(3)]
    pub ist: u8,
    #[bits(5)]
    __: u8,
    /// [`INTERRUPT_GATE`] or [`TRAP_GATE`].
    #[bits(4)]
    pub kind: u8,
    __: bool,
    /// The least privileged ring whose `int n` may use it.
    #[bits(2)]
    pub dpl: u8,
    /// Present.
    pub present: bool,
    /// Entry point, bits 31:16.
    pub offset_middle: u16,
    /// Entry point, bits 63:32.
    pub offset_high: u32,
    __: u32,
}

/// [`Gate::kind`]: IF is cleared.
pub const INTERRUPT_GATE: u8 = 0xe;
/// [`Gate::kind`]: IF stays.
pub const TRAP_GATE: u8 = 0xf;

impl Gate {
    /// A present gate to `entry`.
    pub fn to(entry: u64, kind: u8, ist: Ist, dpl: u8) -> Self {
        Self::new()
            .with_offset_low(entry as u16)
            .with_offset_middle((entry >> 16) as u16)
            .with_offset_high((entry >> 32) as u32)
            .with_selector(KERNEL_CS)
            .with_kind(kind)
            .with_ist(ist as u8)
            .with_dpl(dpl)
            .with_present(true)
    }

    /// The entry point.
    pub fn entry(self) -> u64 {
        u64::from(self.offset_low()) | u64::from(self.offset_middle()) << 16 | u64::from(self.offset_high()) << 32
    }
}

/// The table: two words a gate, because the processor reads them while other CPUs may write.
#[repr(C, align(4096))]
struct Idt([[AtomicU64; 2]; 256]);

static IDT: Idt = Idt([const { [const { AtomicU64::new(0) }; 2] }; 256]);

/// The gate of a vector as it is in the table.
pub fn gate(vector: u8) -> Gate {
    let [low, high] = &IDT.0[usize::from(vector)];
    Gate::from_bits(u128::from(low.load(Ordering::Relaxed)) | u128::from(high.load(Ordering::Relaxed)) << 64)
}

/// Replaces a gate on all CPUs, and gives the old one. A gate that is in use by hardware must be replaced with the vector quiet: the
/// two halves are not written in one piece.
///
/// # Safety
///
/// The new gate leads to code that can cope with how the processor enters it.
pub unsafe fn replace(vector: u8, gate: Gate) -> Gate {
    let old = self::gate(vector);
    let [low, high] = &IDT.0[usize::from(vector)];
    low.store(gate.into_bits() as u64, Ordering::Release);
    high.store((gate.into_bits() >> 64) as u64, Ordering::Release);
    old
}

/// The gate that this kernel gives a vector.
pub fn default_gate(vector: u8) -> Gate {
    let ist = match vector {
        1 => Ist::Debug,
        x86::vector::NMI => Ist::Nmi,
        x86::vector::DOUBLE_FAULT => Ist::DoubleFault,
        18 => Ist::MachineCheck,
        _ => Ist::Entry,
    };
    // Breakpoint and overflow are ring 3's to use, too.
    let dpl = if matches!(vector, 3 | 4 | vectors::SYSTEM_CALL) { 3 } else { 0 };
    Gate::to(stub(vector), INTERRUPT_GATE, ist, dpl)
}

/// Fills the table. Called once, before the first CPU loads it.
pub(crate) fn init() {
    for vector in 0..=255 {
        // SAFETY: the stubs are made for these gates.
        unsafe { replace(vector, default_gate(vector)) };
    }
}

/// Loads the table on this CPU.
pub(crate) fn load() {
    let pointer = Pointer { limit: size_of::<Idt>() as u16 - 1, base: &raw const IDT as u64 };
    // SAFETY: the table is static and full.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}
