//! C1 and C2: gates, and who owns which vector.

use core::sync::atomic::Ordering;
use kernel::arch::frame::FLAG_IF;
use kernel::arch::gdt::Ist;
use kernel::arch::idt::{Gate, INTERRUPT_GATE, TRAP_GATE, default_gate, gate};
use kernel::arch::percpu::this_cpu;
use kernel::arch::vectors;
use kernel::chips::apic;
use kernel::testing::TestResult;
use kernel::{check, check_eq, probe, test};

test!("idt.gates_pack_into_sixteen_bytes", [1], gates_pack);
test!("idt.every_gate_reads_back", [1, 2], gates_read_back);
test!("idt.system_gates_are_ring_threes", [1, 2], system_gates);
test!("idt.interrupt_gate_clears_if_and_trap_gate_does_not", [1], if_in_handler);
test!("idt.default_handler_counts_unclaimed_vectors", [1, 2], unclaimed);
test!("idt.vectors_are_claimed_once", [2], claimed_once);
test!("idt.layout_keeps_its_vectors", [2], layout);

/// Bit for bit as the manual draws it.
fn gates_pack() -> TestResult {
    let gate = Gate::to(0x1234_5678_9abc_def0, TRAP_GATE, Ist::Debug, 3);
    check_eq!(gate.into_bits(), 0x1234_5678_9abc_ef03_0010_def0u128, "a packed gate");
    check_eq!(gate.entry(), 0x1234_5678_9abc_def0, "its entry");
    let gate = Gate::to(0xdef0, INTERRUPT_GATE, Ist::None, 0);
    check_eq!(gate.into_bits(), 0x8e00_0010_def0u128, "a small gate");
    Ok(())
}

fn gates_read_back() -> TestResult {
    let mut entries = 0;
    for vector in 0..=255u8 {
        let found = gate(vector);
        check_eq!(found, default_gate(vector), "the gate of vector {vector:#x}");
        check!(found.present() && found.selector() == 0x10 && found.kind() == INTERRUPT_GATE, "vector {vector:#x}");
        // The compiler's library keeps data below the stack pointer, so no gate may push there.
        check!(found.ist() != 0, "vector {vector:#x} has no stack of its own");
        entries += u32::from((0..vector).all(|other| gate(other).entry() != found.entry()));
    }
    check_eq!(entries, 256, "different stubs");
    Ok(())
}

fn system_gates() -> TestResult {
    for vector in 0..=255u8 {
        let expected = if matches!(vector, 3 | 4 | vectors::SYSTEM_CALL) { 3 } else { 0 };
        check_eq!(gate(vector).dpl(), expected, "the privilege level of vector {vector:#x}");
    }
    Ok(())
}

fn if_in_handler() -> TestResult {
    check_eq!(probe::flags_in_handler(INTERRUPT_GATE) & FLAG_IF, 0, "IF behind an interrupt gate");
    check_eq!(probe::flags_in_handler(TRAP_GATE) & FLAG_IF, FLAG_IF, "IF behind a trap gate");
    check_eq!(gate(6), default_gate(6), "the gate afterwards");
    Ok(())
}

/// A stray vector is counted, and ended: it holds back nothing of lower priority.
fn unclaimed() -> TestResult {
    let before = vectors::unclaimed();
    for (n, vector) in [0x21u8, 0x7f, 0x81, 0xee].into_iter().enumerate() {
        let count = this_cpu().vectors[usize::from(vector)].load(Ordering::Relaxed);
        apic::send_to(apic::id(), vector);
        kernel::wait::for_condition(|| vectors::unclaimed() == before + n as u64 + 1)?;
        check_eq!(this_cpu().vectors[usize::from(vector)].load(Ordering::Relaxed), count + 1, "vector {vector:#x}");
    }
    check!(!apic::anything_in_service(), "something is still in service");
    Ok(())
}

fn claimed_once() -> TestResult {
    let Some(vector) = vectors::allocate(|_| apic::eoi()) else {
        return Err(kernel::testing::Failure::new(format_args!("no vector is free")));
    };
    check!(!vectors::claim(vector, |_| apic::eoi()), "vector {vector:#x} was claimed twice");
    vectors::release(vector);
    check!(vectors::claim(vector, |_| apic::eoi()), "vector {vector:#x} did not come free");
    vectors::release(vector);
    Ok(())
}

fn layout() -> TestResult {
    use vectors::{
        APIC_ERROR, CALL_FUNCTION, FIRST_DEVICE, INVALIDATE_TLB, LOCAL_TIMER, RESCHEDULE, SPURIOUS, SYSTEM_CALL,
    };
    let found =
        [FIRST_DEVICE, SYSTEM_CALL, LOCAL_TIMER, CALL_FUNCTION, RESCHEDULE, INVALIDATE_TLB, APIC_ERROR, SPURIOUS];
    check_eq!(found, [0x20, 0x80, 0xef, 0xfb, 0xfc, 0xfd, 0xfe, 0xff], "the layout");
    for _ in 0..300 {
        // Whoever takes all there are gets neither the system call's nor what belongs to the kernel.
        match vectors::allocate(|_| apic::eoi()) {
            Some(vector) => {
                check!((0x20..=0xee).contains(&vector) && vector != SYSTEM_CALL, "vector {vector:#x} was given out");
            }
            None => break,
        }
    }
    check_eq!(vectors::allocate(|_| apic::eoi()), None, "a vector when there are none");
    for vector in (FIRST_DEVICE..=vectors::LAST_DEVICE).filter(|vector| *vector != SYSTEM_CALL) {
        vectors::release(vector);
    }
    Ok(())
}
