//! C24: the NMI watchdog.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::percpu::{self, this_cpu};
use kernel::smp::call;
use kernel::sync::without_interrupts;
use kernel::testing::TestResult;
use kernel::time::tick;
use kernel::{check, check_eq, test, wait, watchdog};

test!("watchdog.reports_a_cpu_that_is_stuck", [24], stuck; .limit_ms(30_000));
test!("watchdog.reports_another_cpu_that_is_stuck", [24], other_is_stuck; .cpus(2));
test!("watchdog.leaves_busy_cpus_alone", [24], busy; .cpus(2));

/// NMIs without a tick until a CPU counts as stuck.
const LIMIT: u32 = 4;

fn nmis() -> u64 {
    this_cpu().nmis.load(Ordering::Relaxed)
}

fn is_code(address: u64) -> bool {
    // The image lies from 1 MiB up.
    (0x10_0000..0x1000_0000).contains(&address)
}

/// Once for each time, and again after the CPU has gone on.
fn stuck() -> TestResult {
    let _dog = watchdog::start(LIMIT);
    for round in 1..=2 {
        without_interrupts(|| {
            // On a slow host there may be NMIs between two ticks before it is stuck. In this order: one in between counts twice.
            let before = nmis();
            let silent = u64::from(watchdog::silent_on(0));
            wait::for_condition(|| watchdog::lockups_on(0).0 == round)?;
            let needed = nmis() - before + silent;
            check!(needed >= LIMIT.into(), "it was reported after {needed} NMIs");
            wait::for_condition(|| nmis() >= before + 2 * u64::from(LIMIT))
        })?;
        let (lockups, place) = watchdog::lockups_on(0);
        check_eq!(lockups, round, "reports");
        check!(is_code(place), "it was stuck at {place:#x}");
        let ticks = tick::ticks_on(0);
        wait::for_condition(|| tick::ticks_on(0) > ticks + 1)?;
        let seen = nmis();
        wait::for_condition(|| nmis() > seen + 1)?;
    }
    Ok(())
}

fn other_is_stuck() -> TestResult {
    static GATE: AtomicU32 = AtomicU32::new(0);
    fn hangs(_: usize) {
        while GATE.load(Ordering::SeqCst) == 0 {
            core::hint::spin_loop();
        }
    }
    GATE.store(0, Ordering::SeqCst);
    let _dog = watchdog::start(LIMIT);
    if let Some(cpu) = percpu::cpu(1) {
        call::call_on(cpu, hangs, 0, false);
    }
    let found = wait::for_condition(|| watchdog::lockups_on(1).0 == 1);
    GATE.store(1, Ordering::SeqCst);
    found?;
    check!(is_code(watchdog::lockups_on(1).1), "it was stuck at {:#x}", watchdog::lockups_on(1).1);
    check_eq!(watchdog::lockups_on(0).0, 0, "reports of a CPU that was not stuck");
    Ok(())
}

/// One CPU works without a pause, the others sleep: all have their ticks. The limit is one that a host's own pauses do not reach.
fn busy() -> TestResult {
    let _dog = watchdog::start(10 * LIMIT);
    let before = nmis();
    wait::for_condition(|| nmis() >= before + 2 * u64::from(LIMIT))?;
    for cpu in percpu::cpus() {
        check_eq!(watchdog::lockups_on(cpu.number()).0, 0, "reports of CPU {}", cpu.number());
    }
    Ok(())
}
