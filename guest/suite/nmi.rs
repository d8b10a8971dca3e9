//! C7: non-maskable interrupts and their nesting.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::nmi;
use kernel::arch::percpu::{self, this_cpu};
use kernel::chips::apic;
use kernel::smp::call::call_on;
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult, not_on_qemu_tcg};
use kernel::{check, check_eq, probe, test, wait};

test!("nmi.reaches_its_handler", [7], reaches);
test!("nmi.comes_while_interrupts_are_off", [7], while_off);
test!("nmi.runs_on_its_own_stack", [6, 7], own_stack);
test!("nmi.second_waits_for_the_first", [7], second_waits);
test!("nmi.exception_inside_does_not_let_it_be_corrupted", [7], exception_inside);
test!("nmi.at_most_one_more_is_latched", [7], at_most_one);
test!("nmi.faulting_handler_leaves_page_faults_alone", [5, 7], keeps_cr2);
test!("nmi.one_from_each_cpu_makes_two", [7], two_senders; .cpus(2));
test!("nmi.storm_with_faults_during_interrupts", [7], storm; .cpus(2).limit_ms(120_000));

static COUNT: AtomicU32 = AtomicU32::new(0);
static FAULTS: AtomicU32 = AtomicU32::new(0);
static WHERE: AtomicU64 = AtomicU64::new(0);

/// With this handler, and the counts at 0.
fn with_handler(handler: nmi::NmiHandler, body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    FAULTS.store(0, Ordering::SeqCst);
    let old = nmi::set_handler(Some(handler));
    let result = body();
    nmi::set_handler(old);
    result
}

fn counting(_: &Frame) {
    COUNT.fetch_add(1, Ordering::SeqCst);
}

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn reaches() -> TestResult {
    with_handler(counting, || {
        for n in 1..=3 {
            apic::send_nmi(apic::id());
            wait::for_condition(|| count() == n)?;
        }
        check!(!nmi::in_nmi(), "an NMI is still being handled");
        Ok(())
    })
}

fn while_off() -> TestResult {
    with_handler(counting, || {
        without_interrupts(|| {
            apic::send_nmi(apic::id());
            wait::for_condition(|| count() == 1)
        })
    })
}

fn own_stack() -> TestResult {
    fn handler(frame: &Frame) {
        let local = 0u8;
        let here = &raw const local as u64;
        let stack = &this_cpu().stacks.nmi;
        let frame = core::ptr::from_ref(frame) as u64;
        WHERE.store(u64::from(stack.holds(here) && stack.holds(frame)), Ordering::SeqCst);
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    with_handler(handler, || {
        apic::send_nmi(apic::id());
        wait::for_condition(|| count() == 1)?;
        check_eq!(WHERE.load(Ordering::SeqCst), 1, "handler and frame on the NMI stack");
        Ok(())
    })
}

/// Sends itself another one from inside. Without an `iret` in between it can't come in; afterwards it does.
fn second_waits() -> TestResult {
    fn handler(_: &Frame) {
        if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
            apic::send_nmi(apic::id());
            for _ in 0..200 {
                core::hint::spin_loop();
            }
            WHERE.store(count().into(), Ordering::SeqCst);
        }
    }
    with_handler(handler, || {
        let nested = this_cpu().nested_nmis.load(Ordering::Relaxed);
        apic::send_nmi(apic::id());
        wait::for_condition(|| count() == 2)?;
        check_eq!(WHERE.load(Ordering::SeqCst), 1, "NMIs while the first was being handled");
        check_eq!(this_cpu().nested_nmis.load(Ordering::Relaxed), nested, "nested ones");
        Ok(())
    })
}

/// The exception's `iret` lets the second one in: it leaves a note, the first finishes as it began, and then goes round again.
fn exception_inside() -> TestResult {
    fn handler(frame: &Frame) {
        if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
            let before = *frame;
            let nested = this_cpu().nested_nmis.load(Ordering::Relaxed);
            apic::send_nmi(apic::id());
            FAULTS.fetch_add(u32::from(probe::undefined_instruction().is_some()), Ordering::SeqCst);
            for _ in 0..10_000 {
                if this_cpu().nested_nmis.load(Ordering::Relaxed) > nested {
                    break;
                }
                core::hint::spin_loop();
            }
            let came = this_cpu().nested_nmis.load(Ordering::Relaxed) == nested + 1;
            let inside = count() == 1;
            WHERE.store(u64::from(came && inside && *frame == before), Ordering::SeqCst);
        }
    }
    with_handler(handler, || {
        WHERE.store(0, Ordering::SeqCst);
        apic::send_nmi(apic::id());
        wait::for_condition(|| count() == 2)?;
        check_eq!(FAULTS.load(Ordering::SeqCst), 1, "exceptions inside the handler");
        check_eq!(WHERE.load(Ordering::SeqCst), 1, "the second came, was held back, and left the first's frame alone");
        check!(!nmi::in_nmi(), "an NMI is still being handled");
        Ok(())
    })
}

/// Four more while one is handled, each let in by an exception: they merge into one more round.
fn at_most_one() -> TestResult {
    fn handler(_: &Frame) {
        if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
            for _ in 0..4 {
                let nested = this_cpu().nested_nmis.load(Ordering::Relaxed);
                apic::send_nmi(apic::id());
                FAULTS.fetch_add(u32::from(probe::divide_by_zero().is_some()), Ordering::SeqCst);
                for _ in 0..10_000 {
                    if this_cpu().nested_nmis.load(Ordering::Relaxed) > nested {
                        break;
                    }
                    core::hint::spin_loop();
                }
            }
        }
    }
    with_handler(handler, || {
        let nested = this_cpu().nested_nmis.load(Ordering::Relaxed);
        apic::send_nmi(apic::id());
        wait::for_condition(|| count() == 2)?;
        check_eq!(this_cpu().nested_nmis.load(Ordering::Relaxed), nested + 4, "nested ones");
        // Anything left over would be handled before this one.
        apic::send_nmi(apic::id());
        wait::for_condition(|| count() == 3)
    })
}

/// A page fault inside must not change CR2 under a page-fault handler that has not read it yet.
fn keeps_cr2() -> TestResult {
    fn handler(_: &Frame) {
        let caught = kernel::arch::uaccess::try_read(kernel::arch::paging::KERNEL_BASE + 0x7000);
        FAULTS.fetch_add(u32::from(caught.is_err()), Ordering::SeqCst);
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    with_handler(handler, || {
        let place = kernel::arch::paging::KERNEL_BASE + 0x9000;
        check!(kernel::arch::uaccess::try_read(place).is_err(), "something is mapped there");
        apic::send_nmi(apic::id());
        wait::for_condition(|| count() == 1)?;
        check_eq!(FAULTS.load(Ordering::SeqCst), 1, "page faults inside");
        check_eq!(kernel::arch::fault::current_cr2(), place, "CR2 afterwards");
        Ok(())
    })
}

/// Both send one at the same time, to the first. A CPU takes one and holds one more: none of two may be lost.
fn two_senders() -> TestResult {
    static TURN: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    fn sends(rounds: usize) {
        let first = percpu::cpu(0).map_or(0, |cpu| cpu.apic_id.load(Ordering::Relaxed));
        for round in 1..=rounds as u32 {
            while TURN.load(Ordering::SeqCst) < round {
                core::hint::spin_loop();
            }
            apic::send_nmi(first);
            DONE.store(round, Ordering::SeqCst);
        }
    }
    not_on_qemu_tcg("an NMI beside one that has not been taken")?;
    with_handler(counting, || {
        let Some(other) = percpu::cpu(1) else { return Err(Failure::new(format_args!("no second CPU"))) };
        let rounds = if kernel::boot::info::boot_info().software_host() { 200 } else { 2000 };
        TURN.store(0, Ordering::SeqCst);
        DONE.store(0, Ordering::SeqCst);
        call_on(other, sends, rounds as usize, false);
        for round in 1..=rounds {
            TURN.store(round, Ordering::SeqCst);
            // Now this one is first, now the other.
            for _ in 0..round % 61 * 4 {
                core::hint::spin_loop();
            }
            apic::send_nmi(apic::id());
            let both = || DONE.load(Ordering::SeqCst) == round && count() == 2 * round;
            if wait::for_condition(both).is_err() {
                // Lets the other one go home before the test fails.
                TURN.store(u32::MAX, Ordering::SeqCst);
                check_eq!(count(), 2 * round, "NMIs in round {round}");
            }
        }
        check_eq!(count(), 2 * rounds, "NMIs");
        Ok(())
    })
}

/// The second CPU takes interrupts all the time, and NMIs that fault, wherever they hit: also just before an entry has moved its frame.
fn storm() -> TestResult {
    fn handler(_: &Frame) {
        let caught = probe::undefined_instruction().is_some() && probe::divide_by_zero().is_some();
        FAULTS.fetch_add(u32::from(caught), Ordering::SeqCst);
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    with_handler(handler, || {
        let Some(other) = percpu::cpu(1) else { return Err(Failure::new(format_args!("no second CPU"))) };
        let apic_id = other.apic_id.load(Ordering::Relaxed);
        let rounds = if kernel::boot::info::boot_info().software_host() { 300 } else { 3000 };
        let vector = kernel::arch::vectors::CALL_FUNCTION;
        let calls = || other.vectors[usize::from(vector)].load(Ordering::Relaxed);
        let mut last = calls();
        for round in 0..rounds {
            apic::send_to(apic_id, vector);
            // A growing distance, so that the NMI hits everywhere.
            for _ in 0..round % 97 {
                core::hint::spin_loop();
            }
            let seen = count();
            apic::send_nmi(apic_id);
            wait::for_condition(|| count() > seen)?;
            wait::for_condition(|| calls() > last)?;
            last = calls();
        }
        check_eq!(FAULTS.load(Ordering::SeqCst), count(), "NMIs whose exceptions came back");
        Ok(())
    })
}
