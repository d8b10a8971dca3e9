//! A few programs, in machine code that runs at any address, for tests.
//!
//! They lie in a section of their own: none of this is for ring 0.

use core::arch::global_asm;

macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $begin:ident, $end:ident, $($line:literal),+ $(,)?) => {
        global_asm!(
            ".pushsection .rodata.programs, \"a\"",
            concat!(stringify!($begin), ":"),
            $($line),+,
            concat!(stringify!($end), ":"),
            ".popsection",
        );
        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                static $begin: u8;
                static $end: u8;
            }
            let (begin, end) = (&raw const $begin, &raw const $end);
            // SAFETY: the assembler has put the program's bytes between the two.
            unsafe { core::slice::from_raw_parts(begin, end as usize - begin as usize) }
        }
    };
}

program!(
    /// Exits with the sum of its arguments.
    add, add_begin, add_end,
    "lea rbx, [rdi + rsi]",
    "mov eax, 1",
    "int 0x80",
);

program!(
    /// Asks for its number, writes a line, asks for a call that is none and writes from where nothing is; exits with the number, or
    /// 255 if an answer was wrong.
    talk, talk_begin, talk_end,
    "mov eax, 4",
    "lea rcx, [rip + 8f]",
    "mov edx, 5",
    "int 0x80",
    "cmp rax, 5",
    "jne 9f",
    "mov eax, 4",
    "xor ecx, ecx",
    "int 0x80",
    "cmp rax, -14",
    "jne 9f",
    "mov eax, 9999",
    "int 0x80",
    "cmp rax, -38",
    "jne 9f",
    "mov eax, 20",
    "int 0x80",
    "mov ebx, eax",
    "mov eax, 1",
    "int 0x80",
    "9: mov ebx, 255",
    "mov eax, 1",
    "int 0x80",
    "8: .ascii \"hello\"",
);

program!(
    /// Counts in its page of data for ever.
    spin, spin_begin, spin_end,
    "2: inc qword ptr [rdx]",
    "jmp 2b",
);

program!(
    /// Counts in RBX for ever: who interrupts it can see how far it is.
    count, count_begin, count_end,
    "xor ebx, ebx",
    "2: inc rbx",
    "jmp 2b",
);

program!(
    /// Puts its first argument into XMM7 and ST(0), gives the CPU away as often as the second says, and looks whether they are
    /// still there: exits with 0, or with 1.
    float, float_begin, float_end,
    "movq xmm7, rdi",
    "mov [rdx], rdi",
    "fild qword ptr [rdx]",
    "mov r12, rdi",
    "mov r13, rsi",
    "mov r14, rdx",
    "xor ebx, ebx",
    "2: mov eax, 158",
    "int 0x80",
    "movq rax, xmm7",
    "cmp rax, r12",
    "jne 3f",
    "dec r13",
    "jnz 2b",
    "fistp qword ptr [r14 + 8]",
    "cmp [r14 + 8], r12",
    "je 4f",
    "3: mov ebx, 1",
    "4: mov eax, 1",
    "int 0x80",
);

/// Offsets of R12, RIP and RFLAGS in what a handler gets in RSI.
const _: () = assert!(core::mem::offset_of!(crate::arch::frame::Frame, r12) == 24);
const _: () = assert!(core::mem::offset_of!(crate::arch::frame::Frame, rip) == 136);
const _: () = assert!(core::mem::offset_of!(crate::arch::frame::Frame, rflags) == 152);

program!(
    /// Causes the exception whose vector is its first argument. If the second is not 0 it first sets a handler for that signal; the
    /// handler makes the program go on with exit(64 + signal). Exits with 1 if there was no exception.
    fault, fault_begin, fault_end,
    "mov r14, rdi",
    "mov r15, rdx",
    "test rsi, rsi",
    "jz 2f",
    "mov eax, 174",
    "mov rbx, rsi",
    "lea rcx, [rip + 7f]",
    "lea rdx, [rip + 8f]",
    "int 0x80",
    "2: cmp r14, 0",
    "jne 2f",
    "xor ecx, ecx",
    "div ecx",
    "2: cmp r14, 1",
    "jne 2f",
    "pushfq",
    "or qword ptr [rsp], 0x100",
    "popfq",
    "nop",
    "nop",
    "2: cmp r14, 3",
    "jne 2f",
    "int3",
    "2: cmp r14, 4",
    "jne 2f",
    ".byte 0xcd, 4", // int 4
    "2: cmp r14, 6",
    "jne 2f",
    "ud2",
    "2: cmp r14, 12",
    "jne 2f",
    "mov rbp, 0x8000000000000000",
    "mov rcx, [rbp]", // the stack segment's by default
    "2: cmp r14, 13",
    "jne 2f",
    "hlt",
    "2: cmp r14, 14",
    "jne 2f",
    "mov [r15 + 4096], rax",
    "2: cmp r14, 16",
    "jne 2f",
    "fnstcw [r15]",
    "and word ptr [r15], ~4", // zero divide is not masked
    "fldcw [r15]",
    "fld1",
    "fldz",
    "fdivp",
    "fwait",
    "2: cmp r14, 17",
    "jne 2f",
    "pushfq",
    "or qword ptr [rsp], 0x40000",
    "popfq",
    "mov eax, [r15 + 1]",
    "2: cmp r14, 19",
    "jne 2f",
    "stmxcsr [r15]",
    "and dword ptr [r15], ~0x200", // zero divide is not masked
    "ldmxcsr [r15]",
    "mov eax, 1",
    "cvtsi2sd xmm0, eax",
    "xorps xmm1, xmm1",
    "divsd xmm0, xmm1",
    "2: mov ebx, 1",
    "mov eax, 1",
    "int 0x80",
    "5: lea rbx, [r12 + 64]", // where the handler sends the program
    "mov eax, 1",
    "int 0x80",
    "7: mov [rsi + 24], rdi", // R12
    "lea rax, [rip + 5b]",
    "mov [rsi + 136], rax", // RIP
    "and qword ptr [rsi + 152], ~0x40100", // RFLAGS: no trap, no alignment check
    "ret",
    "8: mov eax, 173",
    "int 0x80",
);

program!(
    /// Sets a handler for signal 10 that counts in R12, as the interrupted program sees it; then waits for signals if its first
    /// argument is not 0, or counts in its page of data, until R12 has reached the second argument. Exits with R12 if all other registers
    /// have kept their values, else with 255.
    signals, signals_begin, signals_end,
    "mov r14, rdi",
    "mov r13, rsi",
    "mov r15, rdx",
    "xor r12d, r12d",
    "mov eax, 174",
    "mov ebx, 10",
    "lea rcx, [rip + 7f]",
    "lea rdx, [rip + 8f]",
    "int 0x80",
    "mov rbp, 0x1234567",
    "mov r11, 0x89abcdef",
    "mov qword ptr [r15], 1", // ready
    "2: test r14, r14",
    "jz 3f",
    "mov eax, 29",
    "int 0x80",
    "3: inc qword ptr [r15 + 8]",
    "cmp r12, r13",
    "jb 2b",
    "mov rbx, r12",
    "cmp rbp, 0x1234567",
    "jne 9f",
    "mov rax, 0x89abcdef",
    "cmp rax, r11",
    "je 4f",
    "9: mov ebx, 255",
    "4: mov eax, 1",
    "int 0x80",
    "7: inc qword ptr [rsi + 24]", // R12
    "xor ebp, ebp",
    "xor r11d, r11d",
    "ret",
    "8: mov eax, 173",
    "int 0x80",
);

program!(
    /// Blocks signal 10, sends it to itself, looks whether its handler has run (it must not), unblocks it, looks again (it must).
    /// Exits with 0, or with the number of the look that was wrong.
    block, block_begin, block_end,
    "mov r15, rdx",
    "mov eax, 174",
    "mov ebx, 10",
    "lea rcx, [rip + 7f]",
    "lea rdx, [rip + 8f]",
    "int 0x80",
    "mov eax, 175",
    "mov ebx, 0x400",
    "int 0x80",
    "mov eax, 20",
    "int 0x80",
    "mov ebx, eax",
    "mov ecx, 10",
    "mov eax, 37",
    "int 0x80",
    "mov ebx, 1",
    "cmp qword ptr [r15], 0",
    "jne 4f",
    "mov eax, 175",
    "xor ebx, ebx",
    "int 0x80",
    "mov ebx, 2",
    "cmp qword ptr [r15], 1",
    "jne 4f",
    "xor ebx, ebx",
    "4: mov eax, 1",
    "int 0x80",
    "7: mov rax, [rsi + 0]", // R15
    "inc qword ptr [rax]",
    "ret",
    "8: mov eax, 173",
    "int 0x80",
);

program!(
    /// Sets a handler for the invalid opcode, loses its stack, and executes one.
    lose_stack, lose_stack_begin, lose_stack_end,
    "mov eax, 174",
    "mov ebx, 4",
    "lea rcx, [rip + 7f]",
    "mov edx, 0",
    "int 0x80",
    "mov esp, 0x1000",
    "7: ud2",
);
