//! Application processors: from the start-up message to 64-bit code.

use iced_x86::code_asm::*;
use x86::apic::DeliveryMode;
use x86::msr;

use crate::guest::{Cell, Guest, asm};

/// Page of the trampoline, free memory below 1 MiB.
const TRAMPOLINE_PAGE: u8 = 0x10;
const TRAMPOLINE: u64 = (TRAMPOLINE_PAGE as u64) << 12;
/// The loader's GDT (four entries) and page tables, its code and data selectors.
const GDT: u32 = 0x1000;
const GDT_LIMIT: u16 = 4 * 8 - 1;
const PAGE_TABLES: u32 = 0x9000;
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u32 = 0x18;

/// ICR shorthand: everyone but the sender.
pub const ALL_BUT_SELF: u32 = 3 << 18;
/// ICR shorthand: everyone.
pub const ALL: u32 = 2 << 18;
/// ICR shorthand: the sender.
pub const MYSELF: u32 = 1 << 18;
/// ICR: logical destination.
pub const LOGICAL: u32 = 1 << 11;
/// ICR: assert.
const ASSERT: u32 = 1 << 14;
/// ICR command: INIT.
pub const INIT: u32 = (DeliveryMode::Init as u32) << 8 | ASSERT;
/// ICR command: start-up at the trampoline.
pub const START_UP: u32 = (DeliveryMode::StartUp as u32) << 8 | ASSERT | TRAMPOLINE_PAGE as u32;
/// ICR delivery mode: lowest priority.
pub const LOWEST_PRIORITY: u32 = (DeliveryMode::LowestPriority as u32) << 8;

impl Guest {
    /// Emits what application processors do, and puts the trampoline to it in its place. Each comes with R13 set from
    /// CPUID, its local APIC enabled, interrupts off, and counts itself in the cell that is returned; after `body` it
    /// halts for good, with interrupts on.
    pub fn application_processors(&mut self, body: impl FnOnce(&mut Self)) -> Cell {
        let online = self.cell();
        let entry = self.aside(|g| {
            asm!(g;
                mov eax, DATA_SELECTOR;
                mov ds, eax;
                mov es, eax;
                mov ss, eax;
                mov eax, 1;
                cpuid;
                mov r13d, ebx;
                shr r13d, 24;
            );
            g.set_up_cpu();
            g.enable_apic();
            g.lock_inc(online);
            body(g);
            let top = g.here();
            asm!(g; sti; hlt; jmp top;);
        });
        let (code, target) = trampoline();
        let bytes = self.aside(|g| asm!(g; db &code;));
        asm!(self;
            lea rsi, ptr(bytes);
            mov rdi, TRAMPOLINE;
            mov ecx, code.len() as u32;
        );
        self.a.rep().movsb().expect("assembles");
        asm!(self; lea rax, ptr(entry); mov dword_ptr(TRAMPOLINE + target), eax;);
        online
    }

    /// Starts all application processors, without the pauses that real ones are given, and waits for them.
    pub fn start_all(&mut self, cpus: u32, online: Cell) {
        for command in [INIT, START_UP, START_UP] {
            self.ipi(0, ALL_BUT_SELF | command);
        }
        self.spin_until(online, cpus - 1);
    }
}

/// Real mode to 64-bit code in one jump (AMD APM vol. 2, section "Long-Mode Initialization Example"), and the offset of the
/// jump's target in it.
fn trampoline() -> (Vec<u8>, u64) {
    /// Offset of the GDTR's image, behind the code.
    const GDTR: u16 = 0x60;
    let mut a = CodeAssembler::new(16).expect("16 is a bitness");
    let mut emit = || -> Result<Vec<u8>, iced_x86::IcedError> {
        a.cli()?;
        a.mov(ax, cs)?;
        a.mov(ds, ax)?;
        // LGDT with a 32-bit base.
        a.db(&[0x66, 0x0f, 0x01, 0x16])?;
        a.dw(&[GDTR])?;
        a.mov(eax, 1 << 5)?;
        a.mov(cr4, eax)?;
        a.mov(eax, PAGE_TABLES)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, msr::EFER)?;
        a.rdmsr()?;
        a.or(eax, 1 << 8)?;
        a.wrmsr()?;
        a.mov(eax, 0x8000_0031_u32)?;
        a.mov(cr0, eax)?;
        // Far jump with a 32-bit offset.
        a.db(&[0x66, 0xea])?;
        a.assemble(0)
    };
    let mut code = emit().expect("the trampoline assembles");
    let target = code.len() as u64;
    code.extend([0; 4]);
    code.extend(CODE_SELECTOR.to_le_bytes());
    assert!(code.len() <= usize::from(GDTR));
    code.resize(GDTR.into(), 0);
    code.extend(GDT_LIMIT.to_le_bytes());
    code.extend(GDT.to_le_bytes());
    (code, target)
}
