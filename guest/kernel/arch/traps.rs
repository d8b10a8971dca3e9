//! Exceptions: who handles which, and what becomes of those that nobody handles.
//!
//! **Faults** return to the instruction that caused them, **traps** to the one after it, **aborts** do not return: the machine stops with
//! a readable dump. From ring 3 an exception belongs to the program, see [`super::user`]. In the kernel it is looked up in the
//! exception table; if it is not there, it is fatal.
//!
//! To read more: Intel SDM vol. 3A, "Exception and Interrupt Reference".

use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, Ordering};

use x86::vector::{DEVICE_NOT_AVAILABLE, DOUBLE_FAULT, PAGE_FAULT};

use super::fault::PageFault;
use super::frame::{FLAG_TF, Frame};
use super::percpu::{PerCpu, this_cpu};
use super::{extable, fpu, user, vectors};
use crate::{log, power};
use crate::{pop_kept, push_kept};

/// Names of the exceptions.
pub const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "NMI",
    "int3",
    "overflow",
    "bounds",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack segment",
    "general protection fault",
    "page fault",
    "spurious interrupt bug",
    "coprocessor error",
    "alignment check",
    "machine check",
    "SIMD coprocessor error",
    "virtualization exception",
    "control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved",
];

/// Takes an exception of the kernel; true if it is dealt with, and the frame says where to go on.
pub type ExceptionHook = fn(&mut Frame) -> bool;

static HOOKS: [AtomicPtr<()>; 32] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 32];

/// Asks to see an exception of ring 0 before the exception table does, and gives the old hook.
pub fn set_hook(vector: u8, hook: Option<ExceptionHook>) -> Option<ExceptionHook> {
    let new = hook.map_or(core::ptr::null_mut(), |hook| hook as *mut ());
    from_pointer(HOOKS[usize::from(vector & 31)].swap(new, Ordering::AcqRel))
}

fn from_pointer(pointer: *mut ()) -> Option<ExceptionHook> {
    // SAFETY: what is not null was stored from an ExceptionHook.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), ExceptionHook>(pointer) })
}

fn hook(frame: &mut Frame) -> bool {
    let slot = &HOOKS[frame.vector as usize & 31];
    from_pointer(slot.load(Ordering::Acquire)).is_some_and(|hook| hook(frame))
}

/// All exceptions but those of [`do_paranoid`] and NMI, and the system call. Returns with interrupts off.
pub(super) extern "C" fn do_exception(frame: &mut Frame) {
    let cpu = this_cpu();
    cpu.vectors[frame.vector as usize & 0xff].fetch_add(1, Ordering::Relaxed);
    let fault = (frame.vector == u64::from(PAGE_FAULT)).then(|| PageFault::current(frame.error));
    if frame.from_user() {
        if frame.vector == u64::from(DEVICE_NOT_AVAILABLE) && fpu::device_not_available() {
            return;
        }
        user::leave(frame, fault);
    }
    if frame.rip == super::entry::return_instruction() {
        user::leave_from_return(frame);
    }
    if frame.vector == u64::from(vectors::SYSTEM_CALL) || hook(frame) {
        return;
    }
    match extable::search(frame.rip) {
        Some(fixup) => {
            frame.rip = fixup;
            frame.rax = frame.vector;
            frame.rdx = frame.error;
        }
        None if recover(frame) => {}
        None => fatal(frame, fault),
    }
}

/// Says what happened, and stops the machine.
fn fatal(frame: &Frame, fault: Option<PageFault>) -> ! {
    let cpu = this_cpu();
    let name = NAMES[frame.vector as usize & 31];
    match fault {
        Some(fault) => log!("BUG: unable to handle page fault: {fault}"),
        None => log!("{name}: {:#06x}", frame.error),
    }
    log!("CPU: {}, no entry in the exception table for {:#x}", cpu.number(), frame.rip);
    frame.dump();
    power::die(name)
}

/// The frame of a fault could not be moved: the interrupted code has no stack. As bad as a double fault.
pub(super) extern "C" fn do_bad_stack(frame: &mut Frame) {
    if !recover(frame) {
        log!("BUG: no stack: the frame of an exception could not be pushed");
        double_fault(frame);
    }
}

/// Debug exceptions, double faults and machine checks.
pub(super) extern "C" fn do_paranoid(frame: &mut Frame) {
    this_cpu().vectors[frame.vector as usize & 31].fetch_add(1, Ordering::Relaxed);
    match frame.vector as u8 {
        1 => debug(frame),
        DOUBLE_FAULT => {
            if !recover(frame) {
                double_fault(frame);
            }
        }
        _ => {
            if !hook(frame) {
                log!("machine check");
                frame.dump();
                power::die("machine check");
            }
        }
    }
}

fn double_fault(frame: &Frame) -> ! {
    log!("PANIC: double fault, error code {:#x}, CPU {}", frame.error, this_cpu().number());
    frame.dump();
    power::die("double fault")
}

/// A single step or a breakpoint register: a trap, or with an instruction breakpoint a fault.
fn debug(frame: &mut Frame) {
    if frame.from_user() {
        user::leave_from_debug(frame);
    }
    if !hook(frame) {
        frame.rflags &= !FLAG_TF;
    }
}

/// Runs `body`, which ends in a double fault, in a fault without a stack, or in an exception that the kernel does not expect; true
/// if it did so, and false if it came back.
pub fn catch_double_fault(body: extern "C" fn()) -> bool {
    // SAFETY: the function keeps to the calling convention, and clears the recovery point before it returns.
    unsafe { run_with_recovery(body) == 0 }
}

/// Goes on at the recovery point if there is one.
fn recover(frame: &mut Frame) -> bool {
    let rsp = this_cpu().recovery.swap(0, Ordering::Relaxed);
    if rsp != 0 {
        frame.rsp = rsp;
        frame.rip = recovery_landing as *const () as u64;
        frame.cs = crate::boot::KERNEL_CS.into();
        frame.ss = crate::boot::KERNEL_DS.into();
    }
    rsp != 0
}

/// Saves what a function must keep, remembers the stack pointer, calls `body`. Returns 1 when `body` returns.
// SAFETY: balanced pushes and pops round a call; the six registers that a function must keep are kept.
#[unsafe(naked)]
unsafe extern "C" fn run_with_recovery(body: extern "C" fn()) -> u64 {
    naked_asm!(
        push_kept!(),
        "sub rsp, 8",
        "mov gs:[{recovery}], rsp",
        "call rdi",
        "mov qword ptr gs:[{recovery}], 0",
        "mov eax, 1",
        "jmp {leave}",
        recovery = const offset_of!(PerCpu, recovery),
        leave = sym leave_recovery,
    )
}

/// Where a recovered double fault lands, with the stack pointer that was remembered.
// SAFETY: reached only with the stack pointer that `run_with_recovery` remembered.
#[unsafe(naked)]
unsafe extern "C" fn recovery_landing() {
    naked_asm!("xor eax, eax", "jmp {}", sym leave_recovery)
}

// SAFETY: the other half of `run_with_recovery`.
#[unsafe(naked)]
unsafe extern "C" fn leave_recovery() {
    naked_asm!("add rsp, 8", pop_kept!(), "ret")
}
