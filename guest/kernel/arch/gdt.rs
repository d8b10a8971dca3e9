//! Segments and the task-state segment: little is left of them in 64-bit mode, but without them there is no interrupt.
//!
//! The code segment says the privilege level; the TSS says on which stack a gate enters. Of its stacks this kernel uses the **interrupt
//! stack table** for every gate: the compiler's precompiled library keeps data below the stack pointer (the red zone), so nothing may be
//! pushed there before the frame has been moved below it, see [`super::entry`].
//!
//! The order of the selectors is the one that SYSCALL and SYSRET want.
//!
//! To read more: Intel SDM vol. 3A, "Segment Descriptors", "64-Bit Task-State Segment (TSS)", "Interrupt Stack Table".

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::percpu::Stacks;
use crate::boot::{KERNEL_CS, KERNEL_DS};

/// Selector of ring 3's data, with its privilege level.
pub const USER_DS: u16 = 0x28 | 3;
/// Selector of ring 3's 64-bit code, with its privilege level.
pub const USER_CS: u16 = 0x30 | 3;
/// Selector of the TSS.
const TSS: u16 = 0x40;

/// Slots of the interrupt stack table, as gates name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ist {
    /// None: the current stack, or RSP0 when coming from ring 3.
    None = 0,
    /// Everything that has no other.
    Entry = 1,
    /// Non-maskable interrupts.
    Nmi = 2,
    /// Debug exceptions.
    Debug = 3,
    /// Double fault.
    DoubleFault = 4,
    /// Machine check.
    MachineCheck = 5,
}

/// The task-state segment in words of 32 bits: the processor's layout has 64-bit fields at odd words.
#[repr(C, align(128))]
struct Tss(UnsafeCell<[u32; 26]>);

/// Its size.
const TSS_SIZE: u64 = 104;
/// Word of RSP0.
const RSP0: usize = 1;
/// Word of IST 1.
const IST1: usize = 9;

/// One CPU's GDT and TSS.
pub struct Segments {
    gdt: UnsafeCell<[u64; 10]>,
    tss: Tss,
    /// IST 1 and 3 as they are outside NMI handlers.
    normal: [AtomicU64; 2],
    /// IST 1 and 3 for gates that an NMI handler causes.
    in_nmi: [AtomicU64; 2],
}

// SAFETY: each is used by its own CPU only, once it is loaded.
unsafe impl Sync for Segments {}

impl Segments {
    pub(super) const fn new() -> Self {
        Self {
            gdt: UnsafeCell::new([0; 10]),
            tss: Tss(UnsafeCell::new([0; 26])),
            normal: [const { AtomicU64::new(0) }; 2],
            in_nmi: [const { AtomicU64::new(0) }; 2],
        }
    }

    /// Fills in both tables and loads them on the CPU that runs this.
    pub(super) fn load(&self, stacks: &Stacks) {
        self.set_rsp0(stacks.first.top());
        // Where the I/O permission map would be: beyond the limit, so ring 3 has no port.
        // SAFETY: the last word of this CPU's TSS, which is not loaded yet.
        unsafe { self.tss.0.get().cast::<u32>().add(25).write_volatile((TSS_SIZE as u32) << 16) };
        let slots = [
            (Ist::Entry, stacks.entry.top()),
            (Ist::Nmi, stacks.nmi_entry.top()),
            (Ist::Debug, stacks.debug.top()),
            (Ist::DoubleFault, stacks.fatal.top()),
            (Ist::MachineCheck, stacks.machine_check.top()),
        ];
        for (slot, top) in slots {
            self.set_ist(slot, top);
        }
        self.normal[0].store(stacks.entry.top(), Ordering::Relaxed);
        self.normal[1].store(stacks.debug.top(), Ordering::Relaxed);
        self.in_nmi[0].store(stacks.entry_in_nmi.top(), Ordering::Relaxed);
        self.in_nmi[1].store(stacks.debug_in_nmi.top(), Ordering::Relaxed);

        let base = self.tss.0.get() as u64;
        let limit = TSS_SIZE - 1;
        let tss_low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        let descriptors = [
            0,
            0,
            0x00af_9b00_0000_ffff, // 0x10: kernel code
            0x00cf_9300_0000_ffff, // 0x18: kernel data
            0x00cf_fb00_0000_ffff, // 0x20: ring 3, 32-bit code, for SYSRET's sake
            0x00cf_f300_0000_ffff, // 0x28: ring 3, data
            0x00af_fb00_0000_ffff, // 0x30: ring 3, 64-bit code
            0,
            tss_low,
            base >> 32,
        ];
        // SAFETY: this CPU is not using this table yet.
        unsafe { *self.gdt.get() = descriptors };
        let pointer = Pointer { limit: size_of_val(&descriptors) as u16 - 1, base: self.gdt.get() as u64 };
        // SAFETY: the table is static and has the same selectors for the segments in use.
        unsafe {
            asm!(
                "lgdt [{pointer}]",
                "push {cs}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                ".byte 0x48, 0xcb", // far return
                "2:",
                "mov ss, {ds:e}",
                "mov ds, {ds:e}",
                "mov es, {ds:e}",
                "ltr {tss:x}",
                pointer = in(reg) &pointer,
                cs = const KERNEL_CS,
                ds = in(reg) u64::from(KERNEL_DS),
                tss = in(reg) u64::from(TSS),
                scratch = out(reg) _,
            );
        }
    }

    fn set_word(&self, word: usize, value: u64) {
        let tss = self.tss.0.get().cast::<u32>();
        // SAFETY: `word` is one of the constants above or an IST slot; the processor reads the field only when a gate enters, and
        // only this CPU's code writes it.
        unsafe {
            tss.add(word).write_volatile(value as u32);
            tss.add(word + 1).write_volatile((value >> 32) as u32);
        }
    }

    /// Sets the stack for gates without an IST slot that are entered from ring 3.
    pub fn set_rsp0(&self, top: u64) {
        self.set_word(RSP0, top);
    }

    fn set_ist(&self, slot: Ist, top: u64) {
        if let Some(slot) = (slot as usize).checked_sub(1) {
            self.set_word(IST1 + 2 * slot, top);
        }
    }

    /// Gates that an NMI handler causes get stacks of their own: the ordinary ones may hold a frame that was about to be moved.
    pub(super) fn switch_to_nmi_set(&self, in_nmi: bool) {
        let set = if in_nmi { &self.in_nmi } else { &self.normal };
        self.set_ist(Ist::Entry, set[0].load(Ordering::Relaxed));
        self.set_ist(Ist::Debug, set[1].load(Ordering::Relaxed));
    }
}

/// What LGDT and LIDT read.
#[repr(C, packed)]
pub(super) struct Pointer {
    pub limit: u16,
    pub base: u64,
}
