//! Ring 3: into it with a set of registers, and back with what it did.
//!
//! [`run`] enters ring 3 and returns when the program has caused an exception or a system call, with its registers as they were then. Hard
//! interrupts do not end it: they are handled on the way, and the program goes on (or its thread is preempted in the kernel). A
//! program is thus a kernel thread that calls [`run`] in a loop and does what the program asked for.
//!
//! To read more: Intel SDM vol. 3A, "Privilege Levels", "IRETQ in 64-Bit Mode".

use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use x86_64::registers::model_specific::Msr;

use super::fault::PageFault;
use super::frame::{FLAG_ALWAYS, FLAG_IF, Frame};
use super::gdt::{USER_CS, USER_DS};
use super::percpu::{PerCpu, this_cpu};
use crate::sync::IrqGuard;
use crate::user::signal;
use crate::{pop_kept, push_kept};

/// IA32_KERNEL_GS_BASE: in the kernel, GS.base of ring 3.
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// [`Frame::vector`] of a program that an interrupt has left here because there is a signal for it.
pub const INTERRUPTED: u64 = 0x100;

/// A program's registers.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Context {
    /// The registers. After [`run`], `vector` and `error` say why it came back.
    pub frame: Frame,
    /// After [`run`]: the page fault, if it was one.
    pub fault: Option<PageFault>,
    /// After [`run`]: the return to ring 3 was refused by the processor, because the registers are such that it can't be done.
    pub refused: bool,
}

impl Context {
    /// A program that starts at `rip` with its stack at `rsp`, interrupts on, all other registers 0.
    pub fn new(rip: u64, rsp: u64) -> Self {
        let frame = Frame {
            rip,
            rsp,
            cs: USER_CS.into(),
            ss: USER_DS.into(),
            rflags: FLAG_IF | FLAG_ALWAYS,
            ..Frame::default()
        };
        Self { frame, fault: None, refused: false }
    }
}

/// Runs the program until it causes an exception or a system call.
///
/// # Panics
///
/// If the context would not go to ring 3.
pub fn run(context: &mut Context) {
    assert!(context.frame.from_user(), "a program runs in ring 3");
    context.fault = None;
    context.refused = false;
    let _off = IrqGuard::new();
    // With interrupts off: what comes from here on finds the program in ring 3.
    if signal::is_waiting_here() {
        context.frame.vector = INTERRUPTED;
        return;
    }
    // SAFETY: returns through one of the functions below, with the registers that a function must keep.
    unsafe { enter(context) };
}

/// Saves what a function must keep and the context's address on this stack, which becomes the one where entries from ring 3 put
/// their frames; copies the registers below and returns to ring 3.
// SAFETY: leaves the stack as `return_from_enter` expects it.
#[unsafe(naked)]
unsafe extern "C" fn enter(context: *mut Context) {
    naked_asm!(
        push_kept!(),
        "push rdi",
        "mov gs:[{kernel_stack}], rsp",
        "mov rsi, rdi",
        "sub rsp, {frame}",
        "mov rdi, rsp",
        "mov ecx, {frame} / 8",
        "cld",
        "rep movsq",
        "jmp return_to_frame",
        kernel_stack = const offset_of!(PerCpu, kernel_stack),
        frame = const size_of::<Frame>(),
    )
}

/// Back to the caller of [`enter`], whose stack pointer is given.
// SAFETY: the stack pointer is one that `enter` stored.
#[unsafe(naked)]
unsafe extern "C" fn return_from_enter(rsp: u64) -> ! {
    naked_asm!("mov rsp, rdi", "pop rdi", pop_kept!(), "ret")
}

/// An exception or a system call from ring 3 ends [`run`].
pub(super) fn leave(frame: &Frame, fault: Option<PageFault>) -> ! {
    finish(*frame, fault, false)
}

/// The `iretq` to ring 3 faulted: the frame that it was to load is what the stack pointer points to.
pub(super) fn leave_from_return(frame: &Frame) -> ! {
    let kernel_stack = this_cpu().kernel_stack.load(Ordering::Relaxed);
    // SAFETY: the frame for ring 3 lies at the top of this stack, all but its last five words already loaded, and untouched.
    let mut program = unsafe { *((kernel_stack as usize - size_of::<Frame>()) as *const Frame) };
    program.vector = frame.vector;
    program.error = frame.error;
    finish(program, None, true)
}

/// An interrupt of ring 3 ends [`run`], with interrupts off on the program's kernel stack.
pub(crate) fn interrupt(frame: &Frame) -> ! {
    finish(Frame { vector: INTERRUPTED, ..*frame }, None, false)
}

/// A debug exception of ring 3, from the debug stack: GS has been loaded, not exchanged.
pub(super) fn leave_from_debug(frame: &Frame) -> ! {
    // SAFETY: GS.base of ring 3 is 0: it has no instruction to change it.
    unsafe { Msr::new(KERNEL_GS_BASE).write(0) };
    finish(*frame, None, false)
}

fn finish(frame: Frame, fault: Option<PageFault>, refused: bool) -> ! {
    let kernel_stack = this_cpu().kernel_stack.load(Ordering::Relaxed);
    // SAFETY: only `enter` goes to ring 3, and it left the context's address there. Its caller waits for it to return, and holds the
    // context by `&mut`.
    unsafe {
        let context = &mut **(kernel_stack as *const *mut Context);
        *context = Context { frame, fault, refused };
        return_from_enter(kernel_stack)
    }
}
