//! C1, C3 and C26 from ring 3: what a program can do to itself, and what it can't do to the kernel.

use kernel::arch::frame::{FLAG_IF, FLAG_TF};
use kernel::arch::user;
use kernel::probe::{self, Program};
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, test};
use x86::test_record::Needs;

test!("ring3.exceptions_come_with_the_programs_registers", [3, 26], registers);
test!("ring3.faults_and_traps_return_where_they_should", [3, 26], faults_and_traps);
test!("ring3.privileged_instructions_fault", [3, 26], privileged);
test!("ring3.single_step_is_the_programs", [3], single_step; .needs(Needs::PROCESSOR));
test!("ring3.system_gate_can_be_called", [1, 3], system_gate; .needs(Needs::PROCESSOR));
test!("ring3.other_gates_can_not_be_called", [1], other_gates; .needs(Needs::PROCESSOR));
test!("ring3.bad_return_is_the_programs_fault", [3, 4], bad_return);

fn program(code: &[u8]) -> Result<Program, Failure> {
    Program::new(3, code).ok_or_else(|| Failure::new(format_args!("no memory for a program")))
}

fn registers() -> TestResult {
    // ud2
    let program = program(&[0x0f, 0x0b])?;
    let mut context = program.context();
    let f = &mut context.frame;
    (f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp) = (1, 2, 3, 4, 5, 6, 7);
    (f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15) = (8, 9, 10, 11, 12, 13, 14, 15);
    let before = context.frame;
    user::run(&mut context);
    let mut after = context.frame;
    check_eq!((after.vector, after.error), (6, 0), "the vector");
    check!(after.from_user(), "CS is {:#x}", after.cs);
    check!(after.interrupts_were_on(), "interrupts were off in ring 3");
    // RF may be set in the saved flags of a fault, and hosts may add status flags.
    (after.vector, after.rflags) = (0, before.rflags);
    check_eq!(after, before, "registers");
    Ok(())
}

/// A breakpoint instruction is a trap: RIP is behind it. The divide error is a fault: RIP is at it.
fn faults_and_traps() -> TestResult {
    // int3; xor ecx, ecx; div ecx
    let program = program(&[0xcc, 0x31, 0xc9, 0xf7, 0xf1])?;
    let mut context = program.context();
    user::run(&mut context);
    check_eq!((context.frame.vector, context.frame.rip), (3, program.entry() + 1), "int3");
    user::run(&mut context);
    check_eq!((context.frame.vector, context.frame.rip), (0, program.entry() + 3), "div");
    user::run(&mut context);
    check_eq!((context.frame.vector, context.frame.rip), (0, program.entry() + 3), "div again");
    Ok(())
}

fn privileged() -> TestResult {
    // hlt; mov rax, cr3; in al, dx; cli
    for code in [&[0xf4u8][..], &[0x0f, 0x20, 0xd8], &[0xec], &[0xfa]] {
        let program = program(code)?;
        let mut context = program.context();
        user::run(&mut context);
        check_eq!((context.frame.vector, context.frame.error), (13, 0), "{code:x?}");
        check_eq!(context.frame.rip, program.entry(), "where {code:x?} faulted");
    }
    Ok(())
}

fn single_step() -> TestResult {
    let program = program(&[0x90, 0x90, 0x0f, 0x0b])?;
    let mut context = program.context();
    context.frame.rflags |= FLAG_TF;
    for step in 1..=2 {
        user::run(&mut context);
        check_eq!((context.frame.vector, context.frame.rip), (1, program.entry() + step), "step {step}");
    }
    context.frame.rflags &= !FLAG_TF;
    user::run(&mut context);
    check_eq!(context.frame.vector, 6, "the end");
    Ok(())
}

fn system_gate() -> TestResult {
    // mov eax, 42; int 0x80; ud2
    let program = program(&[0xb8, 42, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x0b])?;
    let mut context = program.context();
    user::run(&mut context);
    check_eq!((context.frame.vector, context.frame.rax), (0x80, 42), "the call");
    check_eq!(context.frame.rip, program.entry() + 7, "its return address");
    context.frame.rax = 7;
    user::run(&mut context);
    check_eq!((context.frame.vector, context.frame.rax), (6, 7), "after the call");
    Ok(())
}

/// The error code names the gate: vector times eight, and bit 1 for the IDT. QEMU's TCG before version 9 says vector times sixteen; the
/// emulated test host is one.
fn other_gates() -> TestResult {
    for vector in [0u8, 14, 0x20, 0x7f, 0x81, 0xef, 0xfb, 0xff] {
        let program = program(&[0xcd, vector])?;
        let mut context = program.context();
        user::run(&mut context);
        let (n, error) = (u64::from(vector), context.frame.error);
        check_eq!(context.frame.vector, 13, "int {vector:#x}");
        check!(error == n * 8 + 2 || error == n * 16 + 2, "error code of int {vector:#x}: {error:#x}");
        check_eq!(context.frame.rip, program.entry(), "where int {vector:#x} faulted");
    }
    Ok(())
}

/// Registers that can't be loaded for ring 3 (a non-canonical RIP): the return faults in the kernel, and the kernel lives.
fn bad_return() -> TestResult {
    let program = program(&[0x0f, 0x0b])?;
    for round in 0..3 {
        let mut context = program.context();
        context.frame.rip = probe::NON_CANONICAL;
        user::run(&mut context);
        check!(context.frame.vector == 13, "round {round}: vector {}", context.frame.vector);
    }
    let mut context = program.context();
    user::run(&mut context);
    check_eq!(context.frame.vector, 6, "a good program afterwards");
    check!(context.frame.rflags & FLAG_IF != 0, "interrupts were off");
    Ok(())
}
