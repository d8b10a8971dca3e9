//! C7, C9, C10, C14: two things at once. Lines are the agent's, so each is level-triggered at a pin or an input that no device has,
//! and nothing that it asks for may be lost, however the controllers are changed meanwhile.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::agent;
use kernel::arch::nmi;
use kernel::arch::percpu::{self, this_cpu};
use kernel::chips::{apic, ioapic};
use kernel::irq::chip::Chip;
use kernel::irq::desc::{Action, Handler, IrqReturn};
use kernel::irq::flow::Flow;
use kernel::irq::manage;
use kernel::random::Random;
use kernel::smp::call;
use kernel::sync::{disable_interrupts, enable_interrupts, without_interrupts};
use kernel::testing::{Failure, TestResult};
use kernel::user::{self, programs};
use kernel::{check, check_eq, test, wait};
use x86::agent::Status;
use x86::test_record::Needs;

use crate::irq::done;

test!("races.mask_against_raise", [10, 14], mask_against_raise; .needs(Needs::AGENT).needs(Needs::IN_SERVICE));
test!("races.entry_is_rewritten_in_service", [10, 12, 14], rewritten_in_service;
    .needs(Needs::AGENT).cpus(2).needs(Needs::IN_SERVICE));
test!("races.line_falls_before_it_is_taken", [10, 14], falls_early; .needs(Needs::AGENT));
test!("races.line_rises_again_before_its_eoi", [10, 14], rises_before_eoi;
    .needs(Needs::AGENT).needs(Needs::IN_SERVICE));
test!("races.pic_and_apic_are_exchanged_while_busy", [9, 10, 11], exchanged;
    .needs(Needs::AGENT).needs(Needs::IN_SERVICE));
test!("races.nmis_on_the_way_into_and_out_of_the_kernel", [3, 7, 22], nmis_at_entries; .cpus(2));

/// A pin, and an input of the 8259A pair, that no device of the machine has.
const PIN: u8 = 10;

static COUNT: AtomicU32 = AtomicU32::new(0);
static WHERE: AtomicU32 = AtomicU32::new(0);

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn set_line(up: bool) -> TestResult {
    let failed = |status: Status| Failure::new(format_args!("the agent says {status:?}"));
    agent::set_line(PIN.into(), up).map_err(failed)
}

/// Serves the device: its line falls.
fn serving(_: u32, _: usize) -> IrqReturn {
    let _ = agent::set_line(PIN.into(), false);
    WHERE.store(this_cpu().number() as u32, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// With the pin level-triggered.
fn with_pin(handler: Handler, body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    done(manage::set_up_pin(PIN, true))?;
    let action = Action { handler, thread: None, device: 0, name: "races", shared: false };
    let result = done(manage::request(PIN.into(), action)).and_then(|()| body());
    let _ = agent::set_line(PIN.into(), false);
    done(manage::free(PIN.into(), 0))?;
    done(manage::tear_down(PIN.into()))?;
    result
}

/// Masked and unmasked before, while and after the line rises: each rise is served once.
fn mask_against_raise() -> TestResult {
    let mut random = Random::from_seed(10);
    with_pin(serving, || {
        for round in 1..=40 {
            let raise_at = random.below(4);
            for step in 0..4 {
                if step == raise_at {
                    set_line(true)?;
                }
                ioapic::set_masked(PIN, random.below(2) == 0);
            }
            ioapic::set_masked(PIN, false);
            wait::for_condition(|| count() == round)?;
        }
        check!(!ioapic::entry(PIN).remote_irr(), "remote IRR is still set");
        check_eq!(count(), 40, "what was served");
        Ok(())
    })
}

/// The handler sends its line to the other CPU; the EOI of this one still counts, and the next interrupt comes there.
fn rewritten_in_service() -> TestResult {
    fn handler(irq: u32, device: usize) -> IrqReturn {
        let other = 1 - this_cpu().number().min(1);
        if let Some(other) = percpu::cpu(other) {
            ioapic::set_destination(PIN, other.apic_id.load(Ordering::Relaxed) as u8);
        }
        serving(irq, device)
    }
    with_pin(handler, || {
        for round in 0..20 {
            set_line(true)?;
            wait::for_condition(|| count() == round + 1)?;
            check_eq!(WHERE.load(Ordering::SeqCst), round % 2, "the CPU of round {round}");
            wait::for_condition(|| !ioapic::entry(PIN).remote_irr())?;
        }
        Ok(())
    })
}

/// Accepted and not taken yet when the line falls: the request stays, its handler finds nothing to do, and the pin works as before.
fn falls_early() -> TestResult {
    with_pin(serving, || {
        for round in 0..10 {
            without_interrupts(|| {
                set_line(true)?;
                wait::for_condition(|| ioapic::entry(PIN).remote_irr())?;
                set_line(false)
            })?;
            wait::for_condition(|| count() == 2 * round + 1)?;
            wait::for_condition(|| !ioapic::entry(PIN).remote_irr())?;
            set_line(true)?;
            wait::for_condition(|| count() == 2 * round + 2)?;
        }
        Ok(())
    })
}

/// The line falls and rises within the handler: the EOI finds it up, and it comes once more.
fn rises_before_eoi() -> TestResult {
    fn handler(_: u32, _: usize) -> IrqReturn {
        let first = COUNT.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        let _ = agent::set_line(PIN.into(), false);
        if first {
            let _ = agent::set_line(PIN.into(), true);
        }
        IrqReturn::Handled
    }
    with_pin(handler, || {
        for round in 1..=20 {
            set_line(true)?;
            wait::for_condition(|| count() == 2 * round)?;
            wait::for_condition(|| !ioapic::entry(PIN).remote_irr())?;
            check_eq!(count(), 2 * round, "interrupts of two rises");
        }
        Ok(())
    })
}

/// The same wire at both controllers, of which one at a time lets it through; exchanged before, while and after it rises.
fn exchanged() -> TestResult {
    with_pin(serving, || {
        // A number of its own for the input of the pair.
        let irq = done(manage::create(Chip::Software, Flow::Simple, 1))?;
        done(manage::set_up(irq, Chip::Pic(PIN), Flow::Level, true, 1))?;
        let result = done(manage::request_simply(irq, serving, "pic")).and_then(|()| exchange(irq));
        apic::connect_pic(false);
        done(manage::free(irq, 0))?;
        done(manage::tear_down(irq))?;
        result
    })
}

fn exchange(pic_irq: u32) -> TestResult {
    let mut random = Random::from_seed(9);
    let mut by_pic = false;
    for round in 1..=30 {
        let raise_at = random.below(3);
        for step in 0..3 {
            if step == raise_at {
                set_line(true)?;
            }
            by_pic = !by_pic;
            // Off the old one before it is let through the new one.
            if by_pic {
                ioapic::set_masked(PIN, true);
                apic::connect_pic(true);
            } else {
                apic::connect_pic(false);
                ioapic::set_masked(PIN, false);
            }
        }
        wait::for_condition(|| count() >= round)?;
        check_eq!(count(), round, "what was served, the last time by {}", if by_pic { "the PIC" } else { "the APIC" });
    }
    check!(manage::synchronize(pic_irq).is_ok(), "its number is gone");
    Ok(())
}

/// A program that does nothing but enter and leave the kernel, and NMIs from the other CPU, one after the other.
fn nmis_at_entries() -> TestResult {
    const CALLS: u64 = 100;
    static STOP: AtomicU32 = AtomicU32::new(0);
    static SENT: AtomicU32 = AtomicU32::new(0);
    static SENDING: AtomicU32 = AtomicU32::new(0);
    // With interrupts on inside the call: what ends a program waits for all CPUs to forget its memory.
    fn send(target: usize) {
        enable_interrupts();
        while STOP.load(Ordering::SeqCst) == 0 {
            if count() == SENT.load(Ordering::SeqCst) {
                SENT.fetch_add(1, Ordering::SeqCst);
                apic::send_nmi(target as u32);
            }
            core::hint::spin_loop();
        }
        disable_interrupts();
        SENDING.store(0, Ordering::SeqCst);
    }
    [&COUNT, &STOP, &SENT].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    SENDING.store(1, Ordering::SeqCst);
    let old = nmi::set_handler(Some(|_| _ = COUNT.fetch_add(1, Ordering::SeqCst)));
    if let Some(cpu) = percpu::cpu(1) {
        call::call_on(cpu, send, apic::id() as usize, false);
    }
    let task = user::exec("program", 0, programs::float(), [0x5a5a, CALLS]);
    let code = task.map(|task| (task.join(), task.system_calls.load(Ordering::Relaxed)));
    STOP.store(1, Ordering::SeqCst);
    let ended = wait::for_condition(|| SENDING.load(Ordering::SeqCst) == 0);
    let arrived = wait::for_condition(|| count() == SENT.load(Ordering::SeqCst));
    nmi::set_handler(old);
    ended.and(arrived)?;
    check_eq!(code, Some((0, CALLS + 1)), "exit code and system calls of the program");
    check!(count() > 0, "no NMI came");
    Ok(())
}
