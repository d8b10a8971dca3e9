//! The registers of floating-point and vector instructions, switched lazily.
//!
//! The kernel does not use them, and most threads neither, so a context switch leaves them as they are and only sets CR0.TS. The first such
//! instruction of a program then gives "device not available" (#NM): now the registers of their owner are saved and those of this thread
//! loaded. A thread that is switched to while its registers are still in the CPU gets them without an exception.
//!
//! Hosts that interpret ring 0 and run ring 3 by themselves do not look at CR0.TS. There a program's registers are loaded when its thread is
//! switched to, if the CPU holds another's.
//!
//! To read more: Intel SDM vol. 3A, "Switching the x87 FPU and SSE Context"; Bovet and Cesati, "Understanding the Linux Kernel",
//! "Saving and Loading the FPU, MMX, and XMM Registers".

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags};

use super::percpu::{PerCpu, this_cpu};
use crate::boot::info::boot_info;
use crate::sched::Task;
use crate::sync::without_interrupts;

/// What FXSAVE writes.
#[repr(C, align(16))]
struct Image([u64; 64]);

/// A thread's registers while the CPU does not hold them.
pub(crate) struct Area {
    image: UnsafeCell<Image>,
    /// Exceptions that were needed for it.
    pub(crate) faults: AtomicU64,
    /// It is a program's, so it may be needed at any time.
    is_programs: AtomicBool,
}

// SAFETY: the image is only touched by the CPU of its thread, with interrupts off.
unsafe impl Sync for Area {}

impl Area {
    /// Registers as a program finds them at its start: all exceptions masked, everything else 0.
    pub(crate) fn new() -> Self {
        let mut image = Image([0; 64]);
        image.0[0] = 0x037f; // FCW
        image.0[3] = 0x1f80; // MXCSR
        Self { image: UnsafeCell::new(image), faults: AtomicU64::new(0), is_programs: AtomicBool::new(false) }
    }
}

/// Makes the next such instruction fault, or not.
fn set_task_switched(cpu: &PerCpu, on: bool) {
    if cpu.task_switched.swap(on.into(), Ordering::Relaxed) == u32::from(on) {
        return;
    }
    let flags = Cr0::read();
    // SAFETY: the bit only decides whether instructions that the kernel does not use cause an exception.
    unsafe { Cr0::write(if on { flags | Cr0Flags::TASK_SWITCHED } else { flags - Cr0Flags::TASK_SWITCHED }) };
}

/// This CPU holds nobody's registers, and CR0.TS is clear: it has just been started.
pub(crate) fn init() {
    let cpu = this_cpu();
    cpu.fpu_owner.store(core::ptr::null_mut(), Ordering::Relaxed);
    cpu.task_switched.store(0, Ordering::Relaxed);
}

/// CR0.TS works, so registers can be switched when they are needed.
pub fn is_lazy() -> bool {
    !boot_info().software_host()
}

/// The context switch: `task` runs next. Interrupts are off.
pub(crate) fn switch_to(task: &Task) {
    let cpu = this_cpu();
    let is_owner = core::ptr::eq(cpu.fpu_owner.load(Ordering::Relaxed), task);
    if is_lazy() {
        set_task_switched(cpu, !is_owner);
    } else if !is_owner && task.fpu.is_programs.load(Ordering::Relaxed) {
        exchange(cpu, task);
    }
}

/// The present thread begins to run a program.
pub(crate) fn begin_program(task: &Task) {
    task.fpu.is_programs.store(true, Ordering::Relaxed);
    without_interrupts(|| switch_to(task));
}

/// The thread ends: its registers need not be saved.
pub(crate) fn forget(task: &Task) {
    without_interrupts(|| {
        let owner = &this_cpu().fpu_owner;
        if core::ptr::eq(owner.load(Ordering::Relaxed), task) {
            owner.store(core::ptr::null_mut(), Ordering::Relaxed);
        }
    });
}

/// #NM from ring 3, interrupts off: the present thread gets its registers.
pub(super) fn device_not_available() -> bool {
    let cpu = this_cpu();
    let task = cpu.current.load(Ordering::Relaxed);
    if task.is_null() || cpu.task_switched.load(Ordering::Relaxed) == 0 {
        return false;
    }
    set_task_switched(cpu, false);
    // SAFETY: it is the thread that runs.
    let task = unsafe { &*task };
    task.fpu.faults.fetch_add(1, Ordering::Relaxed);
    exchange(cpu, task);
    true
}

/// Saves the registers of their owner and loads those of `task`, which is another thread of this CPU. Interrupts are off, CR0.TS is clear.
fn exchange(cpu: &PerCpu, task: &Task) {
    let owner = cpu.fpu_owner.swap(core::ptr::from_ref(task).cast_mut(), Ordering::Relaxed);
    // SAFETY: an owner lives: one that ends is forgotten. The images are aligned, and nobody else touches them.
    unsafe {
        if let Some(owner) = owner.as_ref() {
            asm!("fxsave64 [{}]", in(reg) owner.fpu.image.get(), options(nostack));
        }
        asm!("fxrstor64 [{}]", in(reg) task.fpu.image.get(), options(nostack));
    }
}
