//! A boot protocol's register contents into KVM's vCPU.

use kvm::Vcpu;
use kvm::bindings::{kvm_dtable, kvm_regs, kvm_segment};

use crate::boot::{BootState, DescriptorTable, Segment};

/// Puts `cpu`, which is in its reset state, at the kernel's entry point.
pub fn enter(cpu: &mut Vcpu, boot: &BootState) -> Result<(), kvm::Error> {
    let mut sregs = cpu.sregs()?;
    sregs.cs = segment(&boot.cs);
    let data = segment(&boot.data);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(&boot.tr);
    sregs.ldt = segment(&boot.ldt);
    sregs.gdt = table(&boot.gdt);
    sregs.idt = table(&boot.idt);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (boot.cr0, boot.cr3, boot.cr4, boot.efer);
    cpu.set_sregs(&sregs)?;
    let &BootState { rip, rax, rbx, rsi, rsp, rflags, .. } = boot;
    cpu.set_regs(&kvm_regs { rip, rax, rbx, rsi, rsp, rflags, ..Default::default() })
}

fn segment(segment: &Segment) -> kvm_segment {
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind,
        present: segment.present.into(),
        dpl: segment.dpl,
        db: segment.default_big.into(),
        s: segment.code_or_data.into(),
        l: segment.long.into(),
        g: segment.granular.into(),
        ..Default::default()
    }
}

fn table(table: &DescriptorTable) -> kvm_dtable {
    kvm_dtable { base: table.base, limit: table.limit, ..Default::default() }
}
