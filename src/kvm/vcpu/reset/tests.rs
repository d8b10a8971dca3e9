use iced_x86::code_asm::*;

use super::*;
use crate::testing::{CODE, guest};

/// Where guests leave marks.
const MARK: u64 = 0x600;

#[test]
fn power_on_leaves_the_processor_at_the_reset_vector() {
    let Some(mut g) = guest(|a| a.hlt().unwrap()) else { return };
    for bsp in [true, false] {
        g.vcpu.reset_state(Reset::PowerOn { bsp }).unwrap();
        let (regs, sregs) = (g.vcpu.regs().unwrap(), g.vcpu.sregs().unwrap());
        assert_eq!((regs.rip, regs.rflags, regs.rax), (0xfff0, 2, 0));
        assert_eq!(regs.rdx, u64::from(g.vcpu.signature));
        assert_ne!(regs.rdx, 0);
        assert_eq!((sregs.cs.base, sregs.cs.selector, sregs.cs.limit), (0xffff_0000, 0xf000, 0xffff));
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (0x6000_0010, 0, 0, 0));
        assert_eq!(sregs.apic_base, LAPIC_BASE | 0x800 | if bsp { 0x100 } else { 0 });
        assert_eq!(g.vcpu.fpu().unwrap().fcw, 0x40);
        assert_eq!(g.vcpu.fd.get_xsave().unwrap().region[6], 0x1f80, "MXCSR");
        assert_eq!(g.vcpu.debug_regs().unwrap().dr6, 0xffff_0ff0);
    }
}

#[test]
fn init_keeps_fpu_cache_bits_and_apic_base_and_drops_what_was_pending() {
    let Some(mut g) = guest(|a| {
        a.sti().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    assert!(matches!(g.vcpu.run().unwrap(), Exit::Halt));
    g.vcpu.inject(0x40).unwrap();
    g.vcpu.nmi().unwrap();
    let mut fpu = g.vcpu.fpu().unwrap();
    fpu.fcw = 0x37f;
    g.vcpu.set_fpu(&fpu).unwrap();
    let base = LAPIC_BASE | 0x800;
    g.vcpu.set_apic_base(base).unwrap();
    let mut sregs = g.vcpu.sregs().unwrap();
    sregs.cr0 = 0x10;
    g.vcpu.set_sregs(&sregs).unwrap();
    g.vcpu.set_cr8(9);

    g.vcpu.reset_state(Reset::Init).unwrap();
    let (sregs, events) = (g.vcpu.sregs().unwrap(), g.vcpu.events().unwrap());
    assert_eq!((sregs.cr0, sregs.apic_base), (0x10, base));
    assert_eq!(g.vcpu.fpu().unwrap().fcw, 0x37f);
    assert_eq!(g.vcpu.regs().unwrap().rip, 0xfff0);
    assert_eq!((events.interrupt.injected, events.nmi.pending, events.nmi.injected), (0, 0, 0));
    assert_eq!((g.vcpu.cr8(), g.vcpu.can_inject()), (0, false));
}

#[test]
fn start_up_runs_at_its_page_again_and_again() {
    let Some(mut g) = guest(|a| {
        a.mov(ax, cs).unwrap();
        a.mov(word_ptr(MARK), ax).unwrap();
        a.in_(al, 0x80u32).unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    for _ in 0..3 {
        // The IN is left pending each time: INIT comes in the middle of it.
        g.vcpu.reset_state(Reset::Init).unwrap();
        g.vcpu.start_up((CODE >> 12) as u8).unwrap();
        assert!(matches!(g.vcpu.run().unwrap(), Exit::PioIn { .. }));
        assert_eq!([g.byte(MARK), g.byte(MARK + 1)], [0x00, 0x01], "CS is the vector times 0x100");
    }
    g.vcpu.reset_state(Reset::Init).unwrap();
    let regs = g.vcpu.regs().unwrap();
    assert_eq!((regs.rip, regs.rax), (0xfff0, 0), "the pending IN has not reached the new state");
}
