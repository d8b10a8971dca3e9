//! A line that nobody serves: its interrupt comes again at each EOI, and without a damper nothing else would run on its CPU.

use core::sync::atomic::AtomicU32;

use kernel::arch::frame::Frame;
use kernel::arch::percpu;
use kernel::chips::{apic, ioapic};
use kernel::smp::call;
use kernel::storm::{self, Source};
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, test, wait};
use x86::apic::reg::TPR;
use x86::ioapic::VERSION;
use x86::test_record::{Modes, Needs};

use super::{COUNT, Ordering, PIN, PROGRAM, Program, Storm, count};

test!("storm.line_that_nobody_serves_is_damped", [10, 22], damped;
    .needs(Needs::AGENT).cpus(2).limit_ms(600_000).modes(Modes::USER.union(Modes::SPLIT)));

/// Interrupts until the I/O APIC holds the pin back: the first one, and 10,000 EOIs that fire it again at once.
const UNTIL_DAMPED: u64 = 10_001;
/// So many of the EOIs are written to the I/O APIC's own register: that is much faster where the host interprets ring 0.
const BY_REGISTER: u64 = 9_900;

/// What was seen of the damper: nothing yet; it holds the pin back; and what the interrupt after that has found.
static STAGE: AtomicU32 = AtomicU32::new(NOTHING);
const NOTHING: u32 = 0;
const DAMPED: u32 = 1;
const PROGRAM_WENT_ON: u32 = 2;
const PROGRAM_STOOD_STILL: u32 = 3;

/// Says EOI and nothing to the device.
fn ignore(frame: &mut Frame) {
    let goes_on = PROGRAM.look(frame);
    if STAGE.load(Ordering::SeqCst) == DAMPED {
        STAGE.store(if goes_on { PROGRAM_WENT_ON } else { PROGRAM_STOOD_STILL }, Ordering::SeqCst);
    }
    let n = COUNT.load(Ordering::SeqCst) + 1;
    apic::eoi();
    // Without the damper the EOI would have sent it again.
    if n + BY_REGISTER == UNTIL_DAMPED {
        let entry = ioapic::entry(PIN);
        if entry.delivery_status() && !entry.remote_irr() {
            STAGE.store(DAMPED, Ordering::SeqCst);
        }
    }
    COUNT.store(n, Ordering::SeqCst);
}

/// The damper engages, the program that was interrupted goes on meanwhile, and then the line is heard again. A host that keeps the CPU
/// from looking, or the program from going on, for as long as the damping takes gets other chances.
fn damped() -> TestResult {
    const CHANCES: u32 = 4;
    check!(ioapic::version() >= VERSION, "an I/O APIC without an EOI register");
    for _ in 0..CHANCES {
        storm()?;
        if STAGE.load(Ordering::SeqCst) == PROGRAM_WENT_ON {
            break;
        }
    }
    check_eq!(STAGE.load(Ordering::SeqCst), PROGRAM_WENT_ON, "what is seen of the damper");
    Ok(())
}

/// Until the damper is seen, and an interrupt after it; or until there were more interrupts than it should let through.
fn storm() -> TestResult {
    let storm = Storm::new(Source::Level, 1, ignore)?;
    STAGE.store(NOTHING, Ordering::SeqCst);
    set_priority(DEVICES)?;
    storm.start(0, 1);
    storm::ring();
    let came = wait::for_condition(|| ioapic::entry(PIN).remote_irr());
    (0..BY_REGISTER).for_each(|_| ioapic::directed_eoi(storm.vector));
    let program = Program::new();
    set_priority(0)?;
    came?;
    let program = program?;
    let is_over = || match STAGE.load(Ordering::SeqCst) {
        NOTHING => count() + BY_REGISTER > UNTIL_DAMPED + 20,
        stage => stage >= PROGRAM_WENT_ON,
    };
    while !is_over() {
        let before = count();
        wait::for_condition(|| count() > before || is_over())?;
    }
    // The program can't end before it gets the CPU.
    drop(storm);
    drop(program);
    Ok(())
}

/// The priority class of all devices' vectors and below; that of calls is above.
const DEVICES: usize = 0xe0;

/// Sets the task priority of the second CPU.
fn set_priority(priority: usize) -> TestResult {
    let Some(cpu) = percpu::cpu(1) else { return Err(Failure::new(format_args!("no second CPU"))) };
    call::call_on(cpu, |priority| apic::write(TPR, priority as u32), priority, true);
    Ok(())
}
