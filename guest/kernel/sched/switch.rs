//! The context switch: from one kernel stack to another.
//!
//! A thread that does not run has pushed the registers that a function must keep, and its stack pointer is in its [`Context`]. All else is on
//! its stack already: it has called the switch like any function, and the switch returns when it is its turn again.
//!
//! To read more: Linux, arch/x86/entry/entry_64.S (`__switch_to_asm`), arch/x86/kernel/process_64.c.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use super::task::{Task, task_start};
use crate::arch::percpu::this_cpu;
use crate::arch::{fault, fpu};
use crate::{pop_kept, push_kept};

/// What of a thread is not on its stack while it does not run.
#[derive(Default)]
pub(super) struct Context {
    rsp: AtomicU64,
    /// Where the frame of an entry from ring 3 goes.
    kernel_stack: AtomicU64,
    /// Address of the last page fault, which a fault of another thread would overwrite.
    fault_address: AtomicU64,
}

impl Context {
    /// Of a thread that will begin in [`task_start`] on the stack with this top, a multiple of 16.
    pub(super) fn prepare(&self, top: u64) {
        // As if `task_start` had been called (its return address is 0) and had called the switch with all registers 0.
        let words = [0, 0, 0, 0, 0, 0, task_start as *const () as u64, 0];
        let rsp = top - size_of_val(&words) as u64;
        // SAFETY: the stack is new, nobody else uses it, and it is larger than this.
        unsafe { (rsp as *mut [u64; 8]).write(words) };
        self.rsp.store(rsp, Ordering::Relaxed);
        self.kernel_stack.store(top, Ordering::Relaxed);
    }
}

/// Leaves `from`, goes on with `to`; returns when somebody switches back.
///
/// # Safety
///
/// Interrupts are off, `from` is the thread that runs this, `to` is another one of this CPU.
pub(super) unsafe fn switch(from: *const Task, to: *const Task) {
    // SAFETY: the caller's promise; both live in the run queue.
    let (from, to) = unsafe { (&*from, &*to) };
    let cpu = this_cpu();
    from.context.kernel_stack.store(cpu.kernel_stack.load(Ordering::Relaxed), Ordering::Relaxed);
    cpu.kernel_stack.store(to.context.kernel_stack.load(Ordering::Relaxed), Ordering::Relaxed);
    from.context.fault_address.store(fault::PageFault::last_address(), Ordering::Relaxed);
    fault::PageFault::set_last_address(to.context.fault_address.load(Ordering::Relaxed));
    fpu::switch_to(to);
    // SAFETY: `to` was left by this function, or prepared to look like it.
    unsafe { switch_stacks(from.context.rsp.as_ptr(), to.context.rsp.load(Ordering::Relaxed)) };
}

/// Saves what a function must keep, exchanges the stacks, loads the same of the other.
// SAFETY: `load` is a stack pointer that this function has stored, or one prepared to look so.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(save: *mut u64, load: u64) {
    naked_asm!(push_kept!(), "mov [rdi], rsp", "mov rsp, rsi", pop_kept!(), "ret",)
}
