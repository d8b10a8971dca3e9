//! A vCPU's state in words, for the end of a guest that can't go on, and for the user.

use std::fmt::Write;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::UserApicVcpu;
use crate::monitor::{Answer, ApicRegisters};

/// Bytes of code shown.
const CODE: usize = 16;

impl UserApicVcpu {
    /// Where the vCPU and its local APIC are, one line.
    pub(super) fn where_it_is(&self) -> String {
        let apic = &self.core.apic;
        let set = |name: &str, vectors: &irqchip::lapic::Vectors| {
            let list: Vec<_> = (0..=u8::MAX).filter(|&v| vectors.contains(v)).map(|v| format!("{v:#x}")).collect();
            format!("{name} [{}]", list.join(" "))
        };
        format!(
            "vCPU {}: {:?}, {:?}, ready {}, IF {}, RIP {:#x}, TPR {:#x}, PPR {:#x}, {}, {}, deadline {:?} at {:?} \
             ({:?}), {}",
            self.core.index,
            self.activity,
            apic.mode(),
            self.cpu.ready_for_interrupt(),
            self.cpu.if_flag(),
            self.cpu.regs().map_or(0, |regs| regs.rip),
            apic.tpr(),
            apic.ppr(),
            set("IRR", apic.irr()),
            set("ISR", apic.isr()),
            apic.next_deadline(),
            self.tsc.now(&self.core.shared.clock),
            self.armed,
            events(&self.cpu),
        )
    }

    /// What the monitor is told.
    pub(super) fn answer(&self) -> Answer {
        let apic = &self.core.apic;
        let page = apic.page(self.core.shared.clock.now());
        let apic = ApicRegisters { base: apic.base(), page, tsc_deadline: apic.tsc_deadline() };
        Answer { summary: self.where_it_is(), apic: Some(apic) }
    }

    /// Registers and the bytes at the instruction pointer, several lines.
    pub(super) fn state(&self, why: &str) -> String {
        state(self.core.index, &self.cpu, &self.core.shared.memory, why)
    }
}

/// What KVM has queued for the guest.
pub(super) fn events(cpu: &kvm::Vcpu) -> String {
    match cpu.events() {
        Ok(e) => format!(
            "queued: exception {} ({}), interrupt {} ({:#x}), NMI {}, {} waiting, masked {}",
            e.exception.injected,
            e.exception.nr,
            e.interrupt.injected,
            e.interrupt.nr,
            e.nmi.injected,
            e.nmi.pending,
            e.nmi.masked,
        ),
        Err(e) => e.to_string(),
    }
}

/// Registers and the bytes at the instruction pointer, several lines.
pub(super) fn state(index: usize, cpu: &kvm::Vcpu, memory: &GuestMemoryMmap, why: &str) -> String {
    let mut text = format!("vCPU {}: {why}", index);
    match (cpu.regs(), cpu.sregs()) {
        (Ok(r), Ok(s)) => {
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "\n  RIP {:#018x}  RFLAGS {:#x}  CS {:#x} base {:#x}\
                 \n  RAX {:#018x}  RBX {:#018x}  RCX {:#018x}  RDX {:#018x}\
                 \n  RSI {:#018x}  RDI {:#018x}  RBP {:#018x}  RSP {:#018x}\
                 \n  R8  {:#018x}  R9  {:#018x}  R10 {:#018x}  R11 {:#018x}\
                 \n  R12 {:#018x}  R13 {:#018x}  R14 {:#018x}  R15 {:#018x}\
                 \n  CR0 {:#x}  CR2 {:#x}  CR3 {:#x}  CR4 {:#x}  CR8 {:#x}  EFER {:#x}\
                 \n  GDT {:#x}+{:#x}  IDT {:#x}+{:#x}  TR {:#x}",
                r.rip,
                r.rflags,
                s.cs.selector,
                s.cs.base,
                r.rax,
                r.rbx,
                r.rcx,
                r.rdx,
                r.rsi,
                r.rdi,
                r.rbp,
                r.rsp,
                r.r8,
                r.r9,
                r.r10,
                r.r11,
                r.r12,
                r.r13,
                r.r14,
                r.r15,
                s.cr0,
                s.cr2,
                s.cr3,
                s.cr4,
                s.cr8,
                s.efer,
                s.gdt.base,
                s.gdt.limit,
                s.idt.base,
                s.idt.limit,
                s.tr.selector,
            );
            if let Some(code) = code(cpu, memory, s.cs.base.wrapping_add(r.rip)) {
                let _ = write!(text, "\n  code {code:02x?}");
            }
        }
        (Err(e), _) | (_, Err(e)) => {
            let _ = write!(text, "\n  registers can't be read: {e}");
        }
    }
    text
}

/// The bytes at a linear address, as far as they are in memory and on one page.
pub(super) fn code(cpu: &kvm::Vcpu, memory: &GuestMemoryMmap, linear: u64) -> Option<Vec<u8>> {
    let physical = cpu.translate(linear)?;
    let mut code = vec![0; CODE.min(0x1000 - (physical & 0xfff) as usize)];
    memory.read_slice(&mut code, GuestAddress(physical)).ok()?;
    Some(code)
}
