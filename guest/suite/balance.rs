//! C12: interrupts are moved off the busiest CPU.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::agent::{Stream, Target, When};
use kernel::arch::percpu::{self, MAX_CPUS, this_cpu};
use kernel::chips::ioapic;
use kernel::irq::balance::{self, Balancer};
use kernel::irq::desc::{IrqReturn, desc};
use kernel::irq::manage;
use kernel::testing::{Failure, TestResult};
use kernel::time::tick;
use kernel::{check, check_eq, test, wait};
use x86::test_record::Needs;

use crate::irq::done;

test!("balance.moves_a_line_off_the_busiest_cpu", [12], moves; .needs(Needs::AGENT).cpus(2));
test!("balance.leaves_a_single_line_where_it_is", [12], single; .needs(Needs::AGENT).cpus(2));
test!("balance.thread_does_it_by_itself", [12, 22], thread; .needs(Needs::AGENT).cpus(2));

/// Pins that no device of the machine has.
const PINS: [u8; 2] = [20, 21];
/// Interrupts that make a line worth moving.
const MANY: u32 = 12;

static COUNTS: [[AtomicU32; MAX_CPUS]; 2] = [const { [const { AtomicU32::new(0) }; MAX_CPUS] }; 2];

fn count(line: usize) -> u32 {
    COUNTS[line].iter().map(|count| count.load(Ordering::SeqCst)).sum()
}

fn handler(irq: u32, _: usize) -> IrqReturn {
    let line = usize::from(irq != PINS[0].into());
    COUNTS[line][this_cpu().number()].fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// With both lines going to the first CPU.
fn with_lines(body: impl FnOnce() -> TestResult) -> TestResult {
    COUNTS.iter().flatten().for_each(|count| count.store(0, Ordering::SeqCst));
    for pin in PINS {
        done(manage::set_up_pin(pin, false))?;
        done(manage::request_simply(pin.into(), handler, "line"))?;
    }
    let result = body();
    for pin in PINS {
        done(manage::free(pin.into(), 0))?;
        done(manage::tear_down(pin.into()))?;
    }
    result
}

/// Raises a line so many times, each time when the last one has arrived.
fn raise(line: usize, times: u32) -> TestResult {
    for _ in 0..times {
        let before = count(line);
        let stream = Stream::start(Target::Pulse(PINS[line].into()), When::Now, 1, None);
        let stream = stream.map_err(|status| Failure::new(format_args!("the agent says {status:?}")))?;
        wait::for_condition(|| count(line) == before + 1)?;
        drop(stream);
    }
    Ok(())
}

fn destination(line: usize) -> u32 {
    ioapic::entry(PINS[line]).destination().into()
}

fn apic_id(cpu: usize) -> u32 {
    percpu::cpu(cpu).map_or(u32::MAX, |cpu| cpu.apic_id.load(Ordering::Relaxed))
}

/// Of two lines one goes, and its interrupts with it; then all is well.
fn moves() -> TestResult {
    with_lines(|| {
        let mut balancer = Balancer::new();
        raise(0, MANY)?;
        raise(1, MANY + 2)?;
        let Some(moved) = balancer.balance() else { return Err(Failure::new(format_args!("nothing was moved"))) };
        let line = usize::from(moved.irq == u32::from(PINS[1]));
        check_eq!((moved.from, moved.to), (0, 1), "where it was moved");
        check_eq!(destination(line), apic_id(1), "the redirection entry of the one that was moved");
        check_eq!(destination(1 - line), apic_id(0), "that of the other");
        check_eq!(desc(moved.irq).map(|desc| desc.affinity()), Some(0b10), "its affinity");
        raise(0, MANY)?;
        raise(1, MANY)?;
        check_eq!(COUNTS[line][1].load(Ordering::SeqCst), MANY, "interrupts that came where they should");
        check_eq!(COUNTS[1 - line][1].load(Ordering::SeqCst), 0, "interrupts of the other one there");
        check_eq!(balancer.balance(), None, "what was moved when all are equal");
        Ok(())
    })
}

/// It would only make the other CPU the busiest.
fn single() -> TestResult {
    with_lines(|| {
        let mut balancer = Balancer::new();
        raise(0, 2 * MANY)?;
        check_eq!(balancer.balance(), None, "what was moved");
        check_eq!(balancer.balance(), None, "what was moved without any interrupt");
        check_eq!(destination(0), apic_id(0), "where it goes");
        Ok(())
    })
}

fn thread() -> TestResult {
    with_lines(|| {
        let before = balance::moves();
        let _tick = tick::start();
        let thread = balance::start(20);
        // In small portions, since what comes before the thread begins to look does not count; they grow, for hosts that are slow.
        let result = (0..200).try_for_each(|round| match balance::moves() > before {
            true => Ok(()),
            false => raise(0, 2 + round).and_then(|()| raise(1, 2 + round)),
        });
        thread.stop();
        result?;
        check!(balance::moves() > before, "nothing was moved");
        let destinations = [destination(0), destination(1)];
        check!(destinations[0] != destinations[1], "both lines go to {destinations:x?}");
        Ok(())
    })
}
