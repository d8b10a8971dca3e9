//! Stamping gates: what time it was when the processor entered a vector, before any other instruction of this kernel ran.
//!
//! A gate that stamps leads to a few instructions that put the TSC into the CPU's area, then what a counter in memory says, and jump to the
//! vector's own stub, which finds everything as the processor left it. So handlers are the same as always, and what they cost is in no
//! measurement.
//! One vector at a time; the CPU must be in ring 0, where GS is the kernel's.
//!
//! To read more: Intel SDM vol. 2B, "RDTSC" (it does not wait for the instructions before it, but an entry through a gate does).

use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::entry::stub;
use super::idt::{self, Gate};
use super::percpu::PerCpu;

unsafe extern "C" {
    /// Where stamping gates lead.
    static stamp_entry: u8;
}

/// Where a stamped entry goes on.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// The counter that it looks at.
static COUNTER: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NOTHING).cast_mut());
/// Where nothing is counted.
static NOTHING: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .pushsection .text.stamp, "ax"
    .align 16
    .global stamp_entry
stamp_entry:
    push rax
    push rdx
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov gs:[{STAMP}], rax
    mov rax, [{COUNTER}]
    mov rax, [rax]
    mov gs:[{COUNTED}], rax
    pop rdx
    pop rax
    jmp [{NEXT}]
    .popsection
    "#,
    STAMP = const offset_of!(PerCpu, stamp),
    COUNTED = const offset_of!(PerCpu, counted),
    COUNTER = sym COUNTER,
    NEXT = sym NEXT,
);

/// The gate of one vector stamps while this lives.
pub struct Stamping {
    vector: u8,
    old: Gate,
}

impl Stamping {
    /// From now on; the vector must be quiet, now and when this is dropped, and no other one may be stamped.
    pub fn new(vector: u8) -> Self {
        Self::counting(vector, &NOTHING)
    }

    /// The same; the gate also notes what `counter` says just after its stamp.
    pub fn counting(vector: u8, counter: &'static AtomicU64) -> Self {
        COUNTER.store(core::ptr::from_ref(counter).cast_mut(), Ordering::SeqCst);
        NEXT.store(stub(vector), Ordering::SeqCst);
        let entry = (&raw const stamp_entry) as u64;
        let gate = idt::gate(vector)
            .with_offset_low(entry as u16)
            .with_offset_middle((entry >> 16) as u16)
            .with_offset_high((entry >> 32) as u32);
        // SAFETY: the code uses two words of the stack that the gate enters on, reads the counter, which lives for ever, changes
        // nothing, and goes on as the old gate would.
        let old = unsafe { idt::replace(vector, gate) };
        Self { vector, old }
    }
}

impl Drop for Stamping {
    fn drop(&mut self) {
        // SAFETY: this gate was in use before.
        unsafe { idt::replace(self.vector, self.old) };
    }
}

impl PerCpu {
    /// The stamp of the last stamped entry on this CPU, 0 for none since the last time.
    pub fn take_stamp(&self) -> u64 {
        self.stamp.swap(0, Ordering::AcqRel)
    }

    /// What the counter said at that entry.
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Acquire)
    }

    /// There is a stamp to take.
    pub fn is_stamped(&self) -> bool {
        self.stamp.load(Ordering::Acquire) != 0
    }
}
