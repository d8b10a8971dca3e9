//! The way in and out: 256 stubs, made by the assembler, that bring every vector to one frame and one of a few Rust functions.
//!
//! What a stub does, and why:
//!
//! 1. The gate has switched to a small stack of its own (IST): below the interrupted stack pointer may lie data (the red zone of
//!    precompiled library code). The stub pushes 0 where the processor pushed no error code, and the vector.
//! 2. From ring 3 it exchanges GS, and only then. The frame moves to the thread's kernel stack, or, from ring 0, below the interrupted
//!    stack's red zone: the next entry will overwrite the small stack. IF is clear until then.
//! 3. Hard interrupts are handled on their own stack, unless one is being handled already.
//! 4. On the way back all registers are loaded from the frame, GS is exchanged if it goes to ring 3.
//!
//! If the frame can't be moved (the interrupted code's stack pointer is bad), the fault that this gives is recognized by its
//! address and reported from the double-fault stack. NMI, debug, double fault and machine check may come anywhere, between entry and
//! `swapgs` too: they load GS from above their stack, and put back what was in it.
//!
//! To read more: Intel SDM vol. 3A, "Exception- or Interrupt-Handler Procedures"; Linux, Documentation/arch/x86/entry_64.rst.

use core::arch::global_asm;
use core::mem::offset_of;

use super::percpu::PerCpu;
use super::{stack, traps};

unsafe extern "C" {
    /// Addresses of the stubs.
    static entry_stubs: [u64; 256];
    /// The instruction that returns to what was interrupted; a fault in it is the interrupted context's.
    pub(super) static native_iret: u8;
}

/// The stub of a vector.
pub fn stub(vector: u8) -> u64 {
    // SAFETY: the assembler has filled the table.
    unsafe { entry_stubs[usize::from(vector)] }
}

/// Address of the `iretq` that ends every way out.
pub fn return_instruction() -> u64 {
    (&raw const native_iret) as u64
}

global_asm!(
    r#"
    # The frame's registers, pushed from rdi down; `from` holds the original rax.
    .macro PUSH_REGS from
    push rdi
    push rsi
    push rdx
    push rcx
    push \from
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    .endm
    .macro POP_REGS
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    add rsp, 16
    .endm

    # Pushes the frame that rax points into: vector at rax + 8, ss at rax + 56. rdi points to it then.
    .macro COPY_FRAME
    push [rax + 56]
    push [rax + 48]
    push [rax + 40]
    push [rax + 32]
    push [rax + 24]
    push [rax + 16]
    push [rax + 8]
    PUSH_REGS [rax]
    cld
    mov rdi, rsp
    .endm

    # On the entry stack: vector, error code, rip, cs, rflags, rsp, ss. Moves the frame; rdi points to it then.
    .macro MOVE_FRAME
    push rax
    test byte ptr [rsp + 32], 3
    jz 1f
    swapgs
    mov rax, gs:[{KERNEL_STACK}]
    jmp 2f
1:  mov rax, [rsp + 48]
    sub rax, 128
    and rax, -16
2:  xchg rax, rsp
    COPY_FRAME
    .endm

    .pushsection .text.entry, "ax"
    .align 16
entry_begin:

    # Hard interrupts.
interrupt_entry:
    MOVE_FRAME
    mov rbx, rsp
    cmp dword ptr gs:[{HARDIRQ_DEPTH}], 0
    jne 3f
    mov rsp, gs:[{HARDIRQ_TOP}]
3:  call {do_irq}
    mov rsp, rbx
    mov rdi, rbx
    call {exit_to_interrupted}

    # Back to what was interrupted; rsp points to a frame, IF is clear.
    .global return_to_frame
return_to_frame:
    POP_REGS
    test byte ptr [rsp + 8], 3
    jz native_iret
    swapgs
    .global native_iret
native_iret:
    iretq

    # Exceptions and the system call.
exception_entry:
    test byte ptr [rsp + 24], 3
    jnz 4f
    # From ring 0: was it this code, with a bad stack, or with a bad frame to return to?
    cmp qword ptr [rsp + 16], offset entry_begin
    jb 4f
    cmp qword ptr [rsp + 16], offset entry_end
    jb fault_in_entry
4:  MOVE_FRAME
    call {do_exception}
    mov rdi, rsp
    call {exit_to_interrupted}
    jmp return_to_frame

fault_in_entry:
    push rax
    # The return to ring 3 refused the frame: GS is ring 3's already.
    cmp qword ptr [rsp + 24], offset native_iret
    jne 5f
    mov rax, [rsp + 48]
    test byte ptr [rax + 8], 3
    pop rax
    jz 4b
    swapgs
    jmp 4b
    # There is no stack to move the frame to.
5:  mov rax, rsp
    mov rsp, gs:[{FATAL_TOP}]
    COPY_FRAME
    call {do_bad_stack}
    jmp return_to_frame

    # Debug, double fault, machine check: handled where they enter. GS may be anybody's.
paranoid_entry:
    PUSH_REGS rax
    cld
    mov ecx, 0xc0000101
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov rbx, rax                # the interrupted GS base
    mov rax, [rsp + 176]        # this CPU's area, above the frame
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov rdi, rsp
    call {do_paranoid}
    mov rax, rbx
    mov rdx, rbx
    shr rdx, 32
    mov ecx, 0xc0000101
    wrmsr
    POP_REGS
    iretq

    # NMI: moved to the NMI stack, or, if one was interrupted that is being handled there, below it.
nmi_entry:
    push rax
    push rdx
    push rcx
    mov ecx, 0xc0000101
    rdmsr
    shl rdx, 32
    or rax, rdx
    push rax                    # +0 GS base, rcx, rdx, rax, vector, error code, rip, cs, rflags, rsp, ss, area
    mov rax, [rsp + 88]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov rdx, gs:[{NMI_TOP}]
    test byte ptr [rsp + 56], 3
    jnz 6f
    mov rax, [rsp + 72]
    mov rcx, rdx
    sub rcx, rax
    cmp rcx, {STACK_SIZE}
    ja 6f
    lea rdx, [rax - 128]
    and rdx, -16
6:  mov rax, rsp
    mov rsp, rdx
    push [rax]
    push [rax]
    push [rax + 80]
    push [rax + 72]
    push [rax + 64]
    push [rax + 56]
    push [rax + 48]
    push [rax + 40]
    push [rax + 32]
    mov rdx, [rax + 16]
    mov rcx, [rax + 8]
    PUSH_REGS [rax + 24]
    cld
    mov rdi, rsp
    call {do_nmi}
    mov rax, [rsp + 176]
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0xc0000101
    wrmsr
    POP_REGS
    iretq
entry_end:

    # One stub for each vector, and their table.
    .pushsection .rodata.entry_stubs, "a"
    .align 8
    .global entry_stubs
entry_stubs:
    .popsection
    .set vector, 0
    .rept 256
    .align 16
7:
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    .byte 0x6a, 0               # push 0 for the missing error code
    .endif
    .byte 0x68                  # push the vector
    .long vector
    .if (vector == 1) || (vector == 8) || (vector == 18)
    jmp paranoid_entry
    .elseif vector == 2
    jmp nmi_entry
    .elseif (vector < 32) || (vector == 0x80)
    jmp exception_entry
    .else
    jmp interrupt_entry
    .endif
    .pushsection .rodata.entry_stubs, "a"
    .quad 7b
    .popsection
    .set vector, vector + 1
    .endr
    .popsection
    "#,
    KERNEL_STACK = const offset_of!(PerCpu, kernel_stack),
    HARDIRQ_DEPTH = const offset_of!(PerCpu, hardirq_depth),
    HARDIRQ_TOP = const offset_of!(PerCpu, hardirq_top),
    FATAL_TOP = const offset_of!(PerCpu, fatal_top),
    NMI_TOP = const offset_of!(PerCpu, nmi_top),
    STACK_SIZE = const stack::SIZE,
    do_irq = sym crate::irq::entry::do_irq,
    exit_to_interrupted = sym crate::irq::entry::exit_to_interrupted,
    do_exception = sym traps::do_exception,
    do_bad_stack = sym traps::do_bad_stack,
    do_paranoid = sym traps::do_paranoid,
    do_nmi = sym super::nmi::do_nmi,
);
