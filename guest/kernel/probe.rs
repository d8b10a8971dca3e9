//! Things that tests want to do to the processor and that are not safe to write down anywhere else: cause exceptions on purpose, enter
//! through odd gates, run code of their own in ring 3.

use core::arch::{asm, global_asm, naked_asm};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arch::gdt::Ist;
use crate::arch::idt::{self, Gate};
use crate::arch::paging::{self, Flags, PAGE, USER_BASE};
use crate::arch::traps;
use crate::arch::uaccess::{self, Caught};
use crate::arch::user::Context;
use crate::sync::without_interrupts;
use crate::{extable, pop_kept, push_kept};

/// An address that no paging mode of four levels can have.
pub const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;

macro_rules! faulting {
    ($(#[$doc:meta])* $name:ident, $($instruction:literal),+) => {
        $(#[$doc])*
        pub fn $name() -> Option<Caught> {
            let (vector, error): (u64, u64);
            // SAFETY: the last instruction faults, which is caught; nothing else happens. What it uses is given up.
            unsafe {
                asm!(
                    $($instruction),+,
                    "3:",
                    extable!("2b", "3b"),
                    inout("rax") u64::MAX => vector,
                    inout("rdx") 0u64 => error,
                    out("rcx") _,
                );
            }
            uaccess::caught(vector, error)
        }
    };
}

faulting!(
    /// Divides by zero.
    divide_by_zero,
    "xor ecx, ecx",
    "2: div ecx"
);
faulting!(
    /// Executes the instruction that is undefined for ever.
    undefined_instruction,
    "2: ud2"
);
faulting!(
    /// Reads a non-canonical address: a general-protection fault, not a page fault.
    read_non_canonical,
    "mov rcx, 0x8000000000000000",
    "2: mov rcx, [rcx]"
);
faulting!(
    /// Reads a non-canonical address through the stack segment.
    read_non_canonical_stack,
    "mov rcx, 0x8000000000000000",
    "2: mov rcx, ss:[rcx]"
);
faulting!(
    /// Loads a selector beyond the end of the GDT: the error code names it.
    load_bad_selector,
    "mov ecx, 0x1238",
    "2: mov es, ecx"
);
/// Flags as a handler found them that [`flags_in_handler`] has entered.
static FLAGS: AtomicU64 = AtomicU64::new(0);

global_asm!(
    ".pushsection .text.probe, \"ax\"",
    "record_flags:",
    "push rax",
    "pushfq",
    "pop rax",
    "mov [rip + {FLAGS}], rax",
    "pop rax",
    "add qword ptr [rsp], 2", // behind the ud2
    "iretq",
    ".popsection",
    FLAGS = sym FLAGS,
);

unsafe extern "C" {
    static record_flags: u8;
}

/// RFLAGS in a handler that an undefined instruction enters through a gate of this kind, with interrupts on outside. The handler
/// returns behind the instruction, as from a trap.
pub fn flags_in_handler(kind: u8) -> u64 {
    let vector = x86::vector::INVALID_OPCODE;
    let gate = Gate::to((&raw const record_flags) as u64, kind, Ist::None, 0);
    // SAFETY: the handler keeps all registers and uses the current stack, below which there is room.
    unsafe {
        let old = idt::replace(vector, gate);
        asm!("pushfq", "sub rsp, 128", "sti", "ud2", "add rsp, 128", "popfq");
        idt::replace(vector, old);
    }
    FLAGS.load(Ordering::Relaxed)
}

/// Causes a fault while there is no stack: true if the kernel noticed, and came back from its double-fault stack.
pub fn fault_without_stack() -> bool {
    without_interrupts(|| traps::catch_double_fault(lose_stack))
}

#[unsafe(naked)]
extern "C" fn lose_stack() {
    naked_asm!("mov rsp, 0x7fff00000000", "ud2")
}

/// Causes a real double fault: a divide error whose gate uses the current stack, which is not there.
pub fn double_fault() -> bool {
    let gate = Gate::to(idt::default_gate(0).entry(), idt::INTERRUPT_GATE, Ist::None, 0);
    with_divide_gate(gate, lose_stack_and_divide)
}

/// Causes a double fault by a divide error whose gate is not present.
pub fn double_fault_without_gate() -> bool {
    with_divide_gate(Gate::new(), divide)
}

fn with_divide_gate(gate: Gate, body: extern "C" fn()) -> bool {
    without_interrupts(|| {
        // SAFETY: the divide error that follows does not get through this gate; then the old one is back.
        let old = unsafe { idt::replace(x86::vector::DIVIDE_ERROR, gate) };
        let noticed = traps::catch_double_fault(body);
        // SAFETY: it was there before.
        unsafe { idt::replace(x86::vector::DIVIDE_ERROR, old) };
        noticed
    })
}

#[unsafe(naked)]
extern "C" fn lose_stack_and_divide() {
    naked_asm!("mov rsp, 0x8000000000000000", "xor ecx, ecx", "div ecx", "ud2")
}

#[unsafe(naked)]
extern "C" fn divide() {
    naked_asm!("xor ecx, ecx", "div ecx", "ud2")
}

/// Executes the undefined instruction where the exception table does not know it.
#[unsafe(naked)]
pub extern "C" fn undefined_without_fixup() {
    naked_asm!("ud2")
}

/// Executes three NOPs under the trap flag. The debug exceptions are counted by who set the hook, and it must not clear the flag.
pub fn single_step_over_nops() {
    // SAFETY: the flag is set for four instructions, and cleared by the same means.
    unsafe {
        asm!(
            "sub rsp, 128",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq", // the trap comes after the next instruction
            "nop",
            "nop",
            "nop",
            "pushfq",
            "and qword ptr [rsp], ~0x100",
            "popfq",
            "add rsp, 128",
        );
    }
}

/// A page of code and a page of stack in ring 3.
pub struct Program {
    code: u64,
}

/// Pages that a program takes: code, stack, and one to play with that is not mapped.
const SPAN: u64 = 4 * PAGE;

impl Program {
    /// Puts the machine code into slot `slot` of ring 3's memory; `None` without memory or if it is longer than a page.
    pub fn new(slot: u64, machine_code: &[u8]) -> Option<Self> {
        let code = USER_BASE + slot * SPAN;
        if machine_code.len() as u64 > PAGE {
            return None;
        }
        let page = page_at(code, Flags::USER)?;
        // SAFETY: the page was allocated for this slot, and no program runs in it now.
        unsafe { core::ptr::copy_nonoverlapping(machine_code.as_ptr(), page as *mut u8, machine_code.len()) };
        page_at(code + PAGE, Flags::USER | Flags::WRITABLE | Flags::NO_EXECUTE)?;
        Some(Self { code })
    }

    /// Address of its first instruction.
    pub fn entry(&self) -> u64 {
        self.code
    }

    /// Top of its stack: two words below the end of the page.
    pub fn stack(&self) -> u64 {
        self.code + 2 * PAGE - 16
    }

    /// Where nothing is mapped.
    pub fn hole(&self) -> u64 {
        self.code + 3 * PAGE
    }

    /// Its registers at the start.
    pub fn context(&self) -> Context {
        Context::new(self.entry(), self.stack())
    }
}

/// The page at `address`, a fresh one if there is none; with these flags.
fn page_at(address: u64, flags: Flags) -> Option<u64> {
    match paging::lookup(address) {
        Some((page, _)) => paging::map(address, page, flags | Flags::PRESENT).map(|_| page),
        None => paging::map_new(address, flags),
    }
}

/// Writes a word to ring 3's memory or to the kernel's changing mappings, where no Rust object is; other addresses are not touched.
pub fn write_spare(address: u64, value: u64) -> Result<(), Caught> {
    assert!((USER_BASE..paging::KERNEL_END).contains(&address), "not a spare address: {address:#x}");
    // SAFETY: nothing of Rust's is there.
    unsafe { uaccess::try_write(address, value) }
}

/// Calls an address among the kernel's changing mappings; what is mapped there must not be executable.
pub fn call_spare(address: u64) -> Result<(), Caught> {
    let executable = paging::lookup(address).is_some_and(|(_, flags)| !flags.contains(Flags::NO_EXECUTE));
    assert!((paging::KERNEL_BASE..paging::KERNEL_END).contains(&address) && !executable, "code at {address:#x}");
    // SAFETY: the call can only fault.
    unsafe { uaccess::try_call(address) }
}

/// All registers but the stack pointer before and after an undefined instruction, with a value of its own in each. RAX and RDX are
/// those that the fixup sets, and are left out.
pub fn registers_across_a_fault() -> ([u64; 13], [u64; 13]) {
    let before: [u64; 13] = core::array::from_fn(|n| 0x1111_1111_1111_1111 * (n as u64 + 1));
    let mut after = before;
    // SAFETY: the function below keeps to the calling convention and only touches the array.
    unsafe { fault_with_registers(&mut after) };
    (before, after)
}

/// Loads the registers from the array, faults, stores them back.
// SAFETY: balanced pushes and pops; the registers that a function must keep are kept.
#[unsafe(naked)]
unsafe extern "C" fn fault_with_registers(registers: *mut [u64; 13]) {
    naked_asm!(
        push_kept!(),
        "push rdi",
        "mov rbx, [rdi]",
        "mov rcx, [rdi + 8]",
        "mov rsi, [rdi + 16]",
        "mov rbp, [rdi + 24]",
        "mov r8, [rdi + 32]",
        "mov r9, [rdi + 40]",
        "mov r10, [rdi + 48]",
        "mov r11, [rdi + 56]",
        "mov r12, [rdi + 64]",
        "mov r13, [rdi + 72]",
        "mov r14, [rdi + 80]",
        "mov r15, [rdi + 88]",
        "mov rdi, [rdi + 96]",
        "2: ud2",
        "3:",
        extable!("2b", "3b"),
        "xchg rdi, [rsp]",
        "mov [rdi], rbx",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rsi",
        "mov [rdi + 24], rbp",
        "mov [rdi + 32], r8",
        "mov [rdi + 40], r9",
        "mov [rdi + 48], r10",
        "mov [rdi + 56], r11",
        "mov [rdi + 64], r12",
        "mov [rdi + 72], r13",
        "mov [rdi + 80], r14",
        "mov [rdi + 88], r15",
        "pop rax",
        "mov [rdi + 96], rax",
        pop_kept!(),
        "ret",
    )
}

/// Fills all registers that a function must keep with values from `first` on and calls the function; true if they are the same afterwards.
pub fn registers_across_a_call(first: u64, function: extern "C" fn()) -> bool {
    let before: [u64; 6] = core::array::from_fn(|n| first + n as u64);
    let mut after = before;
    // SAFETY: the function below keeps to the calling convention and only touches the array.
    unsafe { call_with_registers(&mut after, function) };
    before == after
}

/// Loads the six registers from the array, calls the function, stores them back.
// SAFETY: balanced pushes and pops; the registers that a function must keep are kept.
#[unsafe(naked)]
unsafe extern "C" fn call_with_registers(registers: *mut [u64; 6], function: extern "C" fn()) {
    naked_asm!(
        push_kept!(),
        "push rdi",
        "mov rbx, [rdi]",
        "mov rbp, [rdi + 8]",
        "mov r12, [rdi + 16]",
        "mov r13, [rdi + 24]",
        "mov r14, [rdi + 32]",
        "mov r15, [rdi + 40]",
        "call rsi",
        "pop rdi",
        "mov [rdi], rbx",
        "mov [rdi + 8], rbp",
        "mov [rdi + 16], r12",
        "mov [rdi + 24], r13",
        "mov [rdi + 32], r14",
        "mov [rdi + 40], r15",
        pop_kept!(),
        "ret",
    )
}

/// Reads CR8: the task priority class.
pub fn read_cr8() -> u64 {
    let value;
    // SAFETY: reading it has no effect.
    unsafe { asm!("mov {}, cr8", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes CR8; only the low four bits.
pub fn write_cr8(class: u64) {
    // SAFETY: it changes which interrupts come.
    unsafe { asm!("mov cr8, {}", in(reg) class & 15, options(nomem, nostack, preserves_flags)) };
}

/// Writes the x2APIC MSR of an APIC register; the exception, if it causes one.
pub fn write_apic_msr(register: u32, value: u64) -> Option<Caught> {
    // SAFETY: an APIC register can change which interrupts come.
    unsafe { write_msr(x86::msr::X2APIC_FIRST + (register >> 4), value) }
}

/// The machine offers paravirtual EOI: a byte in memory that the guest may clear in place of writing the EOI register (Linux kernel,
/// Documentation/virt/kvm/x86/msr.rst, MSR_KVM_EOI_EN).
pub fn has_paravirtual_eoi() -> bool {
    let leaf = core::arch::x86_64::__cpuid(0x4000_0000);
    let is_kvm = [leaf.ebx, leaf.ecx, leaf.edx] == [0x4b4d_564b, 0x564b_4d56, 0x4d];
    is_kvm && core::arch::x86_64::__cpuid(0x4000_0001).eax & 1 << 6 != 0
}

/// Hands the field of this CPU's paravirtual EOI over, or ends that; the exception, if it causes one.
pub fn set_paravirtual_eoi(field: Option<&'static AtomicU32>) -> Option<Caught> {
    let value = field.map_or(0, |field| field.as_ptr() as u64 | x86::msr::PV_EOI_ENABLE);
    // SAFETY: the field is static, mapped one to one, and meant to be written from outside.
    unsafe { write_msr(x86::msr::KVM_PV_EOI, value) }
}

/// # Safety
///
/// The write must not change anything that the kernel relies on.
unsafe fn write_msr(msr: u32, value: u64) -> Option<Caught> {
    let (vector, error): (u64, u64);
    // SAFETY: a fault is caught; the rest the caller answers for. RAX and RDX say so if they are changed: they hold the value, so the
    // flag is kept in another register until the write is over.
    unsafe {
        asm!(
            "2: wrmsr",
            "mov rax, -1",
            "3:",
            extable!("2b", "3b"),
            in("ecx") msr,
            inout("rax") value & 0xffff_ffff => vector,
            inout("rdx") value >> 32 => error,
            options(nostack),
        );
    }
    uaccess::caught(vector, error)
}
