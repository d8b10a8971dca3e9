//! C11 and C20: interrupts for a CPU that does nothing that a machine monitor would see: they come by themselves.

use kernel::arch::vectors;
use kernel::chips::apic;
use kernel::sync::{disable_interrupts, enable_and_halt, enable_interrupts};
use kernel::testing::TestResult;
use kernel::time::tsc;
use kernel::{check, check_eq, test};
use x86::apic::TimerMode;

use crate::apic::{count, start_timer, ticks_per_millisecond, with_timer};

test!("apic.timer_interrupts_a_loop_without_exits", [11, 20], without_exits);
test!("apic.timer_ends_sleep", [11, 20], ends_sleep);
test!("apic.request_comes_when_interrupts_are_enabled", [11], enabled);

/// Until `n` have come, or three seconds are over. Nothing in this loop leaves the guest: reading the TSC does not.
fn spin_until(n: u32) {
    let started = tsc::read();
    while count() < n && tsc::read() - started < 3 * tsc::hz() {
        core::hint::spin_loop();
    }
}

/// Nothing but the timer makes the machine monitor look.
fn without_exits() -> TestResult {
    with_timer(|| {
        let ticks = 2 * ticks_per_millisecond();
        for n in 1..=3 {
            start_timer(TimerMode::OneShot, ticks, false);
            spin_until(n);
            check_eq!(count(), n, "interrupts in three seconds");
        }
        Ok(())
    })
}

/// Requested while they are off: nothing but their being enabled lets it in.
fn enabled() -> TestResult {
    with_timer(|| {
        for n in 1..=3 {
            disable_interrupts();
            apic::send_to(apic::id(), vectors::LOCAL_TIMER);
            let early = count() >= n;
            enable_interrupts();
            spin_until(n);
            check!(!early, "it came while interrupts were off");
            check_eq!(count(), n, "interrupts in three seconds");
        }
        Ok(())
    })
}

/// A CPU that is not woken sleeps for ever: the host notices.
fn ends_sleep() -> TestResult {
    with_timer(|| {
        let ticks = 3 * ticks_per_millisecond();
        for n in 1..=5 {
            disable_interrupts();
            start_timer(TimerMode::OneShot, ticks, false);
            while count() < n {
                enable_and_halt();
                disable_interrupts();
            }
            enable_interrupts();
        }
        check_eq!(count(), 5, "interrupts");
        Ok(())
    })
}
