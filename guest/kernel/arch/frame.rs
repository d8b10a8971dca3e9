//! The saved registers: one layout for every way into the kernel (Linux calls it `pt_regs`).
//!
//! Where the processor pushes no error code the stub pushes 0, so that one frame fits all vectors.
//!
//! To read more: Intel SDM vol. 3A, "64-Bit Mode Stack Frame"; Linux, arch/x86/include/asm/ptrace.h.

use crate::log;

/// The registers of what was interrupted, and why. On the way back all of them are loaded again, as handlers left them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "registers by name")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The vector.
    pub vector: u64,
    /// The error code, 0 if the vector has none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// RFLAGS.IF.
pub const FLAG_IF: u64 = 1 << 9;
/// RFLAGS.TF.
pub const FLAG_TF: u64 = 1 << 8;
/// RFLAGS bit 1, always set.
pub const FLAG_ALWAYS: u64 = 1 << 1;

impl Frame {
    /// Ring 3 was interrupted.
    pub fn from_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// Interrupts were on.
    pub fn interrupts_were_on(&self) -> bool {
        self.rflags & FLAG_IF != 0
    }

    /// Writes the registers to the log, as a kernel's dying words.
    pub fn dump(&self) {
        log!(
            "RIP: {:#06x}:{:#018x} RSP: {:#06x}:{:#018x} EFLAGS: {:#010x}",
            self.cs,
            self.rip,
            self.ss,
            self.rsp,
            self.rflags
        );
        log!("RAX: {:016x} RBX: {:016x} RCX: {:016x}", self.rax, self.rbx, self.rcx);
        log!("RDX: {:016x} RSI: {:016x} RDI: {:016x}", self.rdx, self.rsi, self.rdi);
        log!("RBP: {:016x} R08: {:016x} R09: {:016x}", self.rbp, self.r8, self.r9);
        log!("R10: {:016x} R11: {:016x} R12: {:016x}", self.r10, self.r11, self.r12);
        log!("R13: {:016x} R14: {:016x} R15: {:016x}", self.r13, self.r14, self.r15);
        log!("vector {}, error code {:#x}", self.vector, self.error);
    }
}
