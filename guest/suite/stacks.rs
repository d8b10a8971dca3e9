//! C6: stacks of their own, and what happens without one.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::percpu::this_cpu;
use kernel::arch::stack::call_on_softirq_stack;
use kernel::arch::{traps, vectors};
use kernel::chips::apic;
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, probe, test, wait};

test!("stacks.hard_interrupts_have_their_own", [6], hardirq_stack);
test!("stacks.softirqs_have_their_own", [6], softirq_stack);
test!("stacks.debug_exceptions_have_their_own", [6], debug_stack);
test!("stacks.fault_without_a_stack_is_reported", [6], without_stack);
test!("stacks.double_fault_on_a_bad_stack_is_reported", [6], double_fault);
test!("stacks.double_fault_without_a_gate_is_reported", [6], double_fault_without_gate);
test!("stacks.canary_catches_an_overrun", [6], canary);

static WHERE: AtomicU64 = AtomicU64::new(0);

fn here() -> u64 {
    let local = 0u8;
    &raw const local as u64
}

fn hardirq_stack() -> TestResult {
    fn handler(_: &mut Frame) {
        WHERE.store(here(), Ordering::Relaxed);
        apic::eoi();
    }
    WHERE.store(0, Ordering::Relaxed);
    let Some(vector) = vectors::allocate(handler) else { return Err(Failure::new(format_args!("no vector"))) };
    apic::send_to(apic::id(), vector);
    let came = wait::for_condition(|| WHERE.load(Ordering::Relaxed) != 0);
    vectors::release(vector);
    came?;
    check!(this_cpu().stacks.hardirq.holds(WHERE.load(Ordering::Relaxed)), "the handler ran on another stack");
    check!(!this_cpu().stacks.hardirq.holds(here()), "the test runs on the interrupt stack");
    Ok(())
}

fn softirq_stack() -> TestResult {
    extern "C" fn body(argument: u64) {
        WHERE.store(here() ^ argument, Ordering::Relaxed);
    }
    kernel::sync::without_interrupts(|| call_on_softirq_stack(body, 0));
    check!(this_cpu().stacks.softirq.holds(WHERE.load(Ordering::Relaxed)), "it ran on another stack");
    Ok(())
}

fn debug_stack() -> TestResult {
    fn hook(_: &mut Frame) -> bool {
        WHERE.store(here(), Ordering::Relaxed);
        true
    }
    let old = traps::set_hook(1, Some(hook));
    probe::single_step_over_nops();
    traps::set_hook(1, old);
    check!(this_cpu().stacks.debug.holds(WHERE.load(Ordering::Relaxed)), "the handler ran on another stack");
    Ok(())
}

/// Twice each: the way back leaves everything as it was.
fn without_stack() -> TestResult {
    for round in 0..2 {
        check!(probe::fault_without_stack(), "round {round} was not noticed");
    }
    Ok(())
}

fn double_fault() -> TestResult {
    let before = this_cpu().vectors[8].load(Ordering::Relaxed);
    for round in 0..2 {
        check!(probe::double_fault(), "round {round} was not noticed");
    }
    check_eq!(this_cpu().vectors[8].load(Ordering::Relaxed), before + 2, "double faults");
    Ok(())
}

fn double_fault_without_gate() -> TestResult {
    let before = this_cpu().vectors[8].load(Ordering::Relaxed);
    check!(probe::double_fault_without_gate(), "it was not noticed");
    check_eq!(this_cpu().vectors[8].load(Ordering::Relaxed), before + 1, "double faults");
    Ok(())
}

fn canary() -> TestResult {
    let cpu = this_cpu();
    check_eq!(cpu.overrun(), None, "a stack has overflowed already");
    for (stack, name) in [(&cpu.stacks.softirq, "softirq stack"), (&cpu.stacks.nmi, "NMI stack")] {
        let good = stack.canary().swap(0, Ordering::Relaxed);
        let found = cpu.overrun();
        stack.canary().store(good, Ordering::Relaxed);
        check_eq!(found, Some(name), "what was reported");
    }
    check_eq!(cpu.overrun(), None, "a stack afterwards");
    Ok(())
}
