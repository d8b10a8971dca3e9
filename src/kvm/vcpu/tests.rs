//! With real guests. Times differ wildly between hosts, so only order and state are asserted.

use iced_x86::code_asm::*;
use x86::msr::{IA32_APIC_BASE, X2APIC_FIRST};
use x86::platform::LAPIC_BASE;

use super::*;
use crate::MsrReason;
use crate::testing::{CODE, Guest, guest};

/// Where handlers go.
const HANDLER: u64 = 0x2000;
const GP_HANDLER: u64 = 0x2100;
/// Where handlers leave marks.
const MARK: u64 = 0x600;
const VECTOR: u8 = 0x40;
const GP: u8 = 13;

/// Runs past signals to the next exit, and expects HLT.
fn run_to_halt(vcpu: &mut Vcpu) {
    loop {
        match vcpu.run().unwrap() {
            Exit::Halt => return,
            Exit::Interrupted => {}
            other => panic!("not a halt: {other:?}"),
        }
    }
}

/// Handlers that count themselves at MARK (interrupt) and MARK + 1 (#GP, which also skips a two-byte instruction).
fn install_handlers(guest: &Guest) {
    guest.set_vector(VECTOR, HANDLER);
    guest.load(HANDLER, |a| {
        a.inc(byte_ptr(MARK)).unwrap();
        a.iret().unwrap();
    });
    guest.set_vector(GP, GP_HANDLER);
    guest.load(GP_HANDLER, |a| {
        a.inc(byte_ptr(MARK + 1)).unwrap();
        a.push(bp).unwrap();
        a.mov(bp, sp).unwrap();
        a.add(word_ptr(bp + 2), 2).unwrap();
        a.pop(bp).unwrap();
        a.iret().unwrap();
    });
}

#[test]
fn port_accesses_of_each_size_exit_with_their_data() {
    let Some(mut g) = guest(|a| {
        a.mov(eax, 0x4433_2211u32).unwrap();
        a.mov(dx, 0x3f8u32).unwrap();
        a.out(dx, al).unwrap();
        a.out(dx, ax).unwrap();
        a.out(dx, eax).unwrap();
        a.in_(eax, dx).unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    for bytes in [&[0x11][..], &[0x11, 0x22], &[0x11, 0x22, 0x33, 0x44]] {
        match g.vcpu.run().unwrap() {
            Exit::PioOut { port: 0x3f8, size, data } => assert_eq!((usize::from(size), data), (bytes.len(), bytes)),
            other => panic!("{other:?}"),
        }
    }
    match g.vcpu.run().unwrap() {
        Exit::PioIn { port: 0x3f8, size: 4, data } => {
            assert_eq!(data, [0xff; 4], "unanswered reads are all ones");
            data.copy_from_slice(&[1, 2, 3, 4]);
        }
        other => panic!("{other:?}"),
    }
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.vcpu.regs().unwrap().rax, 0x0403_0201);
}

#[test]
fn string_port_accesses_carry_every_element() {
    let Some(mut g) = guest(|a| {
        a.mov(di, 0x700u32).unwrap();
        a.mov(cx, 5u32).unwrap();
        a.mov(dx, 0x60u32).unwrap();
        a.rep().insw().unwrap();
        a.mov(si, 0x700u32).unwrap();
        a.mov(cx, 5u32).unwrap();
        a.rep().outsw().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    let (mut sent, mut received) = (0u8, Vec::new());
    loop {
        match g.vcpu.run().unwrap() {
            Exit::PioIn { port: 0x60, size: 2, data } => {
                assert_eq!(data.len() % 2, 0);
                for byte in data {
                    sent += 1;
                    *byte = sent;
                }
            }
            Exit::PioOut { port: 0x60, size: 2, data } => received.extend_from_slice(data),
            Exit::Halt => break,
            Exit::Interrupted => {}
            other => panic!("{other:?}"),
        }
    }
    // KVM may read ahead, but the guest sees what was sent first, in order.
    assert_eq!(received, (1..=10).collect::<Vec<u8>>());
}

#[test]
fn memory_accesses_without_memory_exit() {
    let Some(mut g) = guest(|a| {
        a.mov(ax, 0xb800u32).unwrap();
        a.mov(ds, ax).unwrap();
        a.mov(dword_ptr(0x10), 0x1234_5678u32).unwrap();
        a.mov(bx, word_ptr(0x20)).unwrap();
        a.mov(cl, byte_ptr(0x30)).unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    match g.vcpu.run().unwrap() {
        Exit::MmioWrite { addr: 0xb8010, data } => assert_eq!(data, [0x78, 0x56, 0x34, 0x12]),
        other => panic!("{other:?}"),
    }
    match g.vcpu.run().unwrap() {
        Exit::MmioRead { addr: 0xb8020, data } => data.copy_from_slice(&[0xcd, 0xab]),
        other => panic!("{other:?}"),
    }
    match g.vcpu.run().unwrap() {
        Exit::MmioRead { addr: 0xb8030, data } => assert_eq!(data, [0xff], "unanswered reads are all ones"),
        other => panic!("{other:?}"),
    }
    run_to_halt(&mut g.vcpu);
    let regs = g.vcpu.regs().unwrap();
    assert_eq!((regs.rbx as u16, regs.rcx as u8), (0xabcd, 0xff));
}

/// wrmsr of edx:eax = 5:7, then rdmsr into eax, then hlt.
fn msr_program(a: &mut CodeAssembler, msr: u32) {
    a.mov(ecx, msr).unwrap();
    a.mov(eax, 7u32).unwrap();
    a.mov(edx, 5u32).unwrap();
    a.wrmsr().unwrap();
    a.rdmsr().unwrap();
    a.hlt().unwrap();
}

#[test]
fn filtered_msrs_exit_and_answers_arrive() {
    let Some(mut g) = guest(|a| msr_program(a, IA32_APIC_BASE)) else { return };
    g.filter(IA32_APIC_BASE);
    match g.vcpu.run().unwrap() {
        Exit::MsrWrite { index: IA32_APIC_BASE, value, reason: MsrReason::Filtered, reply } => {
            assert_eq!(value, 5 << 32 | 7);
            reply.accept();
        }
        other => panic!("{other:?}"),
    }
    match g.vcpu.run().unwrap() {
        Exit::MsrRead { index: IA32_APIC_BASE, reason: MsrReason::Filtered, reply } => reply.value(9 << 32 | 0x77),
        other => panic!("{other:?}"),
    }
    run_to_halt(&mut g.vcpu);
    let regs = g.vcpu.regs().unwrap();
    assert_eq!((regs.rax, regs.rdx), (0x77, 9));
}

#[test]
fn an_msr_nobody_answers_gives_gp() {
    let Some(mut g) = guest(|a| msr_program(a, X2APIC_FIRST + 0x3f)) else { return };
    install_handlers(&g);
    assert!(matches!(g.vcpu.run().unwrap(), Exit::MsrWrite { reason: MsrReason::Invalid, .. }));
    assert!(matches!(g.vcpu.run().unwrap(), Exit::MsrRead { reason: MsrReason::Invalid, .. }));
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.byte(MARK + 1), 2);
}

/// Halts with interrupts on; goes on to a second halt behind the first.
fn halting_program(a: &mut CodeAssembler) {
    a.sti().unwrap();
    a.hlt().unwrap();
    a.hlt().unwrap();
}

#[test]
fn an_interrupt_injected_into_a_halted_guest_is_handled_and_returns() {
    let Some(mut g) = guest(halting_program) else { return };
    install_handlers(&g);
    run_to_halt(&mut g.vcpu);
    assert!(g.vcpu.if_flag() && g.vcpu.can_inject());
    g.vcpu.inject(VECTOR).unwrap();
    assert_eq!(g.byte(MARK), 0, "not before the next run");
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.byte(MARK), 1);
    assert_eq!(g.vcpu.regs().unwrap().rip, CODE + 3, "the handler has returned behind the first hlt");
}

#[test]
fn a_second_interrupt_for_the_same_entry_is_refused() {
    let Some(mut g) = guest(halting_program) else { return };
    install_handlers(&g);
    run_to_halt(&mut g.vcpu);
    g.vcpu.inject(VECTOR).unwrap();
    assert!(!g.vcpu.ready_for_interrupt());
    assert!(matches!(g.vcpu.inject(VECTOR + 1), Err(Error::NotReady { .. })));
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.byte(MARK), 1, "the first was not overwritten");
}

#[test]
fn a_guest_with_interrupts_off_is_not_ready() {
    let Some(mut g) = guest(|a| a.hlt().unwrap()) else { return };
    assert!(!g.vcpu.ready_for_interrupt(), "nothing is known before the first run");
    run_to_halt(&mut g.vcpu);
    assert!(!g.vcpu.if_flag());
    assert!(matches!(g.vcpu.inject(VECTOR), Err(Error::NotReady { .. })));
}

#[test]
fn setting_registers_makes_readiness_unknown_until_refreshed() {
    let Some(mut g) = guest(halting_program) else { return };
    run_to_halt(&mut g.vcpu);
    assert!(g.vcpu.can_inject());
    let mut regs = g.vcpu.regs().unwrap();
    g.vcpu.set_regs(&regs).unwrap();
    assert!(!g.vcpu.can_inject());
    assert!(g.vcpu.refresh().unwrap().is_none());
    assert!(g.vcpu.can_inject());
    regs.rflags &= !(1 << 9);
    g.vcpu.set_regs(&regs).unwrap();
    assert!(g.vcpu.refresh().unwrap().is_none());
    assert!(!g.vcpu.if_flag() && !g.vcpu.can_inject());
}

#[test]
fn an_open_interrupt_window_is_reported_or_the_halt_behind_it() {
    let Some(mut g) = guest(|a| {
        a.sti().unwrap();
        a.nop().unwrap();
        a.nop().unwrap();
        a.hlt().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    install_handlers(&g);
    g.vcpu.set_request_interrupt_window(true);
    let exit = g.vcpu.run().unwrap();
    assert!(matches!(exit, Exit::InterruptWindow | Exit::Halt), "{exit:?}");
    assert!(g.vcpu.can_inject(), "either way the guest can take one now");
    g.vcpu.set_request_interrupt_window(false);
    g.vcpu.inject(VECTOR).unwrap();
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.byte(MARK), 1);
}

/// sti, nop, then an access that `access` makes, two nops, hlt.
fn interruptible(a: &mut CodeAssembler, access: impl FnOnce(&mut CodeAssembler)) {
    a.sti().unwrap();
    a.nop().unwrap();
    access(a);
    a.nop().unwrap();
    a.nop().unwrap();
    a.hlt().unwrap();
}

#[test]
fn after_port_and_memory_accesses_an_interrupt_waits_for_the_completion() {
    let accesses: [fn(&mut CodeAssembler); 3] = [
        |a| a.out(0x80u32, al).unwrap(),
        |a| a.in_(al, 0x80u32).unwrap(),
        |a| {
            a.mov(bx, 0xb800u32).unwrap();
            a.mov(ds, bx).unwrap();
            a.mov(byte_ptr(0), al).unwrap();
        },
    ];
    for access in accesses {
        let Some(mut g) = guest(|a| interruptible(a, access)) else { return };
        install_handlers(&g);
        let exit = g.vcpu.run().unwrap();
        assert!(matches!(exit, Exit::PioIn { .. } | Exit::PioOut { .. } | Exit::MmioWrite { .. }), "{exit:?}");
        assert!(!g.vcpu.injection_safe() && g.vcpu.inject(VECTOR).is_err());
        assert!(g.vcpu.complete_pending().unwrap().is_none());
        assert!(g.vcpu.can_inject());
        g.vcpu.inject(VECTOR).unwrap();
        // The handler counts with ds as the guest left it, so this mark is checked by where the handler returns to.
        let mut regs = g.vcpu.sregs().unwrap();
        regs.ds.base = 0;
        regs.ds.selector = 0;
        g.vcpu.set_sregs(&regs).unwrap();
        run_to_halt(&mut g.vcpu);
        assert_eq!(g.byte(MARK), 1);
    }
}

#[test]
fn after_an_accepted_msr_write_an_interrupt_can_go_in_at_once() {
    let Some(mut g) = guest(|a| {
        a.mov(ecx, X2APIC_FIRST + 0x0b).unwrap();
        interruptible(a, |a| a.wrmsr().unwrap());
    }) else {
        return;
    };
    install_handlers(&g);
    match g.vcpu.run().unwrap() {
        Exit::MsrWrite { reply, .. } => reply.accept(),
        other => panic!("{other:?}"),
    }
    assert!(g.vcpu.can_inject());
    g.vcpu.inject(VECTOR).unwrap();
    run_to_halt(&mut g.vcpu);
    assert_eq!((g.byte(MARK), g.byte(MARK + 1)), (1, 0));
}

#[test]
fn an_msr_error_is_delivered_first_and_the_interrupt_is_not_lost() {
    let Some(mut g) = guest(|a| {
        a.mov(ecx, X2APIC_FIRST + 0x0b).unwrap();
        interruptible(a, |a| a.wrmsr().unwrap());
    }) else {
        return;
    };
    install_handlers(&g);
    match g.vcpu.run().unwrap() {
        Exit::MsrWrite { reply, .. } => reply.fault(),
        other => panic!("{other:?}"),
    }
    assert!(g.vcpu.ready_for_interrupt(), "KVM does not know of the #GP yet");
    assert!(!g.vcpu.injection_safe());
    assert!(matches!(g.vcpu.inject(VECTOR), Err(Error::NotReady { .. })));
    assert!(g.vcpu.complete_pending().unwrap().is_none());
    assert!(g.vcpu.injection_safe() && !g.vcpu.ready_for_interrupt(), "now it knows");

    // As the run loop does: inject as soon as an exit is ready for it.
    g.vcpu.set_request_interrupt_window(true);
    loop {
        let halted = matches!(g.vcpu.run().unwrap(), Exit::Halt);
        if g.vcpu.can_inject() {
            g.vcpu.set_request_interrupt_window(false);
            g.vcpu.inject(VECTOR).unwrap();
            if !halted {
                run_to_halt(&mut g.vcpu);
            } else {
                // Behind the halt there is nothing: step over the handler only.
                g.vcpu.set_debug(true).unwrap();
                while g.byte(MARK) == 0 {
                    let _ = g.vcpu.run().unwrap();
                }
            }
            break;
        }
    }
    assert_eq!((g.byte(MARK), g.byte(MARK + 1)), (1, 1));
}

#[test]
fn a_trap_flag_makes_msr_exits_unsafe() {
    let Some(mut g) = guest(|a| {
        a.mov(ecx, X2APIC_FIRST + 0x0b).unwrap();
        a.wrmsr().unwrap();
        a.wrmsr().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    match g.vcpu.run().unwrap() {
        Exit::MsrWrite { reply, .. } => reply.accept(),
        other => panic!("{other:?}"),
    }
    assert!(g.vcpu.injection_safe());
    let mut regs = g.vcpu.regs().unwrap();
    regs.rflags |= RFLAGS_TF;
    g.vcpu.set_regs(&regs).unwrap();
    assert!(!g.vcpu.injection_safe());
}

#[test]
fn completing_an_access_that_has_more_parts_gives_the_next_one() {
    // push of a memory operand without memory, onto a stack without memory: a read, then a write.
    let Some(mut g) = guest(|a| {
        a.mov(ax, 0xb800u32).unwrap();
        a.mov(ds, ax).unwrap();
        a.mov(ss, ax).unwrap();
        a.mov(sp, 0x100u32).unwrap();
        a.push(word_ptr(0x40)).unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    match g.vcpu.run().unwrap() {
        Exit::MmioRead { addr: 0xb8040, data } => data.copy_from_slice(&[0x34, 0x12]),
        other => panic!("{other:?}"),
    }
    match g.vcpu.complete_pending().unwrap() {
        Some(Exit::MmioWrite { addr: 0xb80fe, data }) => assert_eq!(data, [0x34, 0x12]),
        other => panic!("{other:?}"),
    }
    assert!(!g.vcpu.injection_safe(), "the write is still to be completed");
    assert!(g.vcpu.complete_pending().unwrap().is_none());
    assert!(g.vcpu.injection_safe());
    assert!(g.vcpu.complete_pending().unwrap().is_none(), "nothing left to do");
    run_to_halt(&mut g.vcpu);
}

#[test]
fn completing_runs_no_guest_code_and_keeps_a_kick() {
    let Some(mut g) = guest(|a| {
        a.out(0x80u32, al).unwrap();
        a.inc(byte_ptr(MARK)).unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    for kicked in [false, true] {
        g.vcpu.reset_state(Reset::Init).unwrap();
        g.vcpu.start_up((CODE >> 12) as u8).unwrap();
        let _ = g.vcpu.run().unwrap();
        g.vcpu.set_immediate_exit(kicked);
        assert!(g.vcpu.complete_pending().unwrap().is_none());
        assert_eq!(g.byte(MARK), 0);
        let byte = g.vcpu.page.immediate_exit().load(Ordering::SeqCst);
        assert_eq!(byte != 0, kicked);
    }
    assert!(matches!(g.vcpu.run().unwrap(), Exit::Interrupted), "the kick is still in force");
    g.vcpu.set_immediate_exit(false);
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.byte(MARK), 1);
}

#[test]
fn a_kick_ends_a_guest_that_never_exits() {
    let Some(mut g) = guest(|a| {
        let mut forever = a.create_label();
        a.set_label(&mut forever).unwrap();
        a.jmp(forever).unwrap();
    }) else {
        return;
    };
    let _guard = g.vcpu.register_kick().unwrap();
    let me = kick::ThreadId::current();
    // Before KVM_RUN: the byte ends it. During: the signal does. From another thread it may be either.
    me.signal().unwrap();
    assert!(matches!(g.vcpu.run().unwrap(), Exit::Interrupted));
    for _ in 0..20 {
        g.vcpu.set_immediate_exit(false);
        let kicker = std::thread::spawn(move || me.signal().unwrap());
        assert!(matches!(g.vcpu.run().unwrap(), Exit::Interrupted));
        assert!(kicker.join().unwrap());
    }
}

#[test]
fn an_nmi_is_delivered_with_interrupts_off() {
    let Some(mut g) = guest(|a| {
        a.hlt().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    install_handlers(&g);
    g.set_vector(2, HANDLER);
    run_to_halt(&mut g.vcpu);
    assert!(!g.vcpu.has_something_to_deliver().unwrap());
    g.vcpu.nmi().unwrap();
    assert!(g.vcpu.has_something_to_deliver().unwrap());
    run_to_halt(&mut g.vcpu);
    assert_eq!(g.byte(MARK), 1);
    assert!(!g.vcpu.has_something_to_deliver().unwrap());
}

#[test]
fn single_step_exits_after_each_instruction() {
    let Some(mut g) = guest(|a| {
        a.nop().unwrap();
        a.nop().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    g.vcpu.set_debug(true).unwrap();
    for expected in [CODE + 1, CODE + 2] {
        match g.vcpu.run().unwrap() {
            Exit::Debug { pc, .. } => assert_eq!(pc, expected),
            other => panic!("{other:?}"),
        }
    }
    g.vcpu.set_debug(false).unwrap();
    run_to_halt(&mut g.vcpu);
}

#[test]
fn a_triple_fault_is_a_shutdown() {
    // xor cl, cl; div cl: a divide error, in protected mode and with an empty interrupt table.
    let Some(mut g) = guest(|a| {
        a.xor(cl, cl).unwrap();
        a.div(cl).unwrap();
    }) else {
        return;
    };
    let mut sregs = g.vcpu.sregs().unwrap();
    sregs.cr0 |= 1;
    sregs.idt.limit = 0;
    sregs.cs.selector = 8;
    g.vcpu.set_sregs(&sregs).unwrap();
    let exit = g.vcpu.run().unwrap();
    assert!(matches!(exit, Exit::Shutdown), "{exit:?}");
}

#[test]
fn flags_from_the_run_page_are_those_from_the_ioctl() {
    let Some(mut g) = guest(|a| {
        a.stc().unwrap();
        a.std().unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    run_to_halt(&mut g.vcpu);
    let flags = g.vcpu.rflags().unwrap();
    assert_eq!(flags, g.vcpu.regs().unwrap().rflags);
    assert_eq!(flags & 0x401, 0x401);
    let mut regs = g.vcpu.regs().unwrap();
    regs.rflags = 2;
    g.vcpu.set_regs(&regs).unwrap();
    assert_eq!(g.vcpu.rflags().unwrap(), 2, "not the stale copy");
}

#[test]
fn the_task_priority_goes_both_ways() {
    let Some(mut g) = guest(|a| a.hlt().unwrap()) else { return };
    g.vcpu.set_cr8(0x1b);
    assert_eq!(g.vcpu.cr8(), 0xb);
    run_to_halt(&mut g.vcpu);
    assert_eq!((g.vcpu.cr8(), g.vcpu.sregs().unwrap().cr8), (0xb, 0xb));
    g.vcpu.set_cr8(3);
    g.vcpu.set_apic_base(LAPIC_BASE | 0x800).unwrap();
    assert_eq!(g.vcpu.cr8(), 3, "setting another register does not bring the old one back");
}

#[test]
fn the_effective_tsc_offset_is_told() {
    let Some(mut g) = guest(|a| a.hlt().unwrap()) else { return };
    let kvm = crate::testing::kvm().unwrap();
    let told = g.vcpu.set_guest_tsc_offset(1 << 50).unwrap();
    if crate::probe::HostFeatures::probe(&kvm).unwrap().tsc_offset {
        assert!(told.abs_diff(1 << 50) < 1 << 40, "{told:#x}");
    }
    assert!(g.vcpu.tsc_khz().unwrap() > 0);
    assert_eq!(g.vcpu.msr(0xdead_beef).unwrap(), None);
    assert!(matches!(g.vcpu.set_msr(0xdead_beef, 1), Err(Error::Msr { index: 0xdead_beef, value: 1 })));
}

#[test]
fn a_skipped_instruction_is_not_executed_and_a_traced_one_not_skipped() {
    let Some(mut g) = guest(|a| {
        a.hlt().unwrap();
        a.inc(byte_ptr(MARK)).unwrap();
        a.hlt().unwrap();
    }) else {
        return;
    };
    let start = g.vcpu.regs().unwrap();
    g.vcpu.skip(1).unwrap();
    assert!(matches!(g.vcpu.run().unwrap(), Exit::Halt));
    assert_eq!(g.byte(MARK), 1, "the first HLT was passed over");
    let traced = kvm_bindings::kvm_regs { rflags: start.rflags | RFLAGS_TF, ..start };
    g.vcpu.set_regs(&traced).unwrap();
    g.vcpu.skip(1).unwrap();
    assert_eq!(g.vcpu.regs().unwrap().rip, start.rip);
}
