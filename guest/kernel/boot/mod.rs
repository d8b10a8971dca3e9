//! From the first instruction to Rust.
//!
//! Three ways in, one way on. **PVH** enters in 32-bit protected mode without paging, EBX pointing to a start-info block. The
//! **64-bit** entry (this image's ELF entry point) is that of the Linux boot protocol: long mode, RSI pointing to the zero page.
//! An **application processor** wakes in real mode at the page its start-up IPI named, see [`crate::smp`]. All end in long mode on
//! the page tables below, with interrupts off, on a stack of their own.
//!
//! Memory is mapped one to one (the first 4 GiB, in 2 MiB pages, by tables that are made when the kernel is built), so a pointer
//! is a physical address.
//!
//! To read more: the Xen project's "x86/HVM direct boot ABI" (PVH); Linux, Documentation/arch/x86/boot.rst, "64-bit Boot
//! Protocol"; Intel SDM vol. 3A, "Initializing IA-32e Mode".

pub mod info;

use core::arch::global_asm;

/// Selector of the kernel's 64-bit code segment, in the boot GDT as in each CPU's own.
pub const KERNEL_CS: u16 = 0x10;
/// Selector of the kernel's data segment.
pub const KERNEL_DS: u16 = 0x18;

/// What the three entries tell [`rust_entry`].
const FROM_PVH: u32 = 0;
const FROM_LINUX: u32 = 1;
const FROM_START_UP: u32 = 2;

unsafe extern "C" {
    /// The first of the boot page tables (PML4).
    pub static mut boot_pml4: [u64; 512];
    /// Real-mode code that is copied to the start-up page.
    pub static ap_trampoline: u8;
    /// Its end.
    pub static ap_trampoline_end: u8;
    /// Top of the stack for the next application processor.
    pub static mut ap_stack: u64;
}

/// The first Rust: on its own stack, in long mode, interrupts off.
///
/// # Safety
///
/// Called once per processor, from the assembly below.
#[unsafe(no_mangle)]
unsafe extern "C" fn rust_entry(from: u32, info: u64) -> ! {
    match from {
        FROM_PVH => crate::start_kernel(info::BootInfo::from_pvh(info)),
        FROM_LINUX => crate::start_kernel(info::BootInfo::from_zero_page(info)),
        _ => crate::smp::start_secondary(),
    }
}

global_asm!(
    r#"
    # PVH: the note that says where to enter (XEN_ELFNOTE_PHYS32_ENTRY = 18).
    .pushsection .note.Xen, "a", @note
    .align 4
    .long 4
    .long 4
    .long 18
    .asciz "Xen"
    .long pvh_start
    .popsection

    .pushsection .text.boot, "ax"
    .code32
    .global pvh_start
pvh_start:
    cld
    mov esi, ebx
    mov edi, {FROM_PVH}
    jmp enter_long_mode

    # An application processor, out of the trampoline.
ap_start32:
    mov ax, {KERNEL_DS}
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor esi, esi
    mov edi, {FROM_START_UP}

    # Here with paging off, edi and esi for rust_entry. No stack is used.
enter_long_mode:
    mov eax, cr4
    or eax, 0x20                # PAE
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080         # EFER: SCE, LME, NXE
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3         # not CD, NW, EM, TS: caches and FPU on
    or eax, 0x80010023          # PG, WP, NE, MP, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    .byte 0xea                  # jmp far to the 64-bit segment
    .long long_mode
    .word {KERNEL_CS}

    .code64
    .global start64
start64:
    cld
    cli
    mov edi, {FROM_LINUX}
    mov rax, offset boot_pml4
    mov cr3, rax
    mov rax, cr4                # global pages are none of ours
    and al, 0x7f
    mov cr4, rax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901
    wrmsr
    mov rax, cr0
    and eax, 0x9ffffff3
    or eax, 0x80010023
    mov cr0, rax
    lgdt [boot_gdt_pointer]
    mov rsp, offset boot_stack_top
    push {KERNEL_CS}
    mov rax, offset long_mode
    push rax
    .byte 0x48, 0xcb            # far return, 64-bit operands

long_mode:
    mov eax, {KERNEL_DS}
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lldt ax
    mov rax, cr4
    or eax, 0x200               # OSFXSR: ring 3 may use SSE
    mov cr4, rax
    mov rsp, offset boot_stack_top
    cmp edi, {FROM_START_UP}
    cmove rsp, [ap_stack]
    xor ebp, ebp
    call rust_entry
    ud2

    .popsection

    # Copied to the start-up page; runs at CS:0 in real mode. Here it is data.
    .pushsection .rodata.boot, "a"
    .code16
    .global ap_trampoline
    .global ap_trampoline_end
ap_trampoline:
    jmp 2f
    .balign 8
    .word boot_gdt_end - boot_gdt - 1   # at offset 8
    .long boot_gdt
2:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66                  # a 32-bit base
    lgdt [8]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea            # jmp far to the 32-bit segment
    .long ap_start32
    .word 8
ap_trampoline_end:
    .code64
    .popsection

    .pushsection .data.boot, "aw"
    .align 8
boot_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    # 0x08: 32-bit code
    .quad 0x00af9b000000ffff    # 0x10: 64-bit code
    .quad 0x00cf93000000ffff    # 0x18: data
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt
    .align 8
    .global ap_stack
ap_stack:
    .quad 0

    .align 4096
    .global boot_pml4
boot_pml4:
    .quad boot_pdpt + 7
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 0x0007
    .quad boot_pd + 0x1007
    .quad boot_pd + 0x2007
    .quad boot_pd + 0x3007
    .fill 508, 8, 0
boot_pd:
    # Present, writable, 2 MiB. The last GiB holds device registers: not cached (PCD, PWT).
    .set page, 0
    .rept 1536
    .quad page + 0x83
    .set page, page + 0x200000
    .endr
    .rept 512
    .quad page + 0x9b
    .set page, page + 0x200000
    .endr
    .popsection

    .pushsection .bss.boot, "aw", @nobits
    .align 4096
boot_stack:
    .skip 65536
boot_stack_top:
    .popsection
    "#,
    FROM_PVH = const FROM_PVH,
    FROM_LINUX = const FROM_LINUX,
    FROM_START_UP = const FROM_START_UP,
    KERNEL_CS = const KERNEL_CS,
    KERNEL_DS = const KERNEL_DS,
);
