//! C15 to C17 and C25: softirqs and tasklets.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::accounting;
use kernel::arch::percpu;
use kernel::irq::entry;
use kernel::sched::Priority;
use kernel::sched::task::kthread_run;
use kernel::smp::call;
use kernel::softirq::{self, BhGuard, Kind, MAX_ROUNDS};
use kernel::sync::without_interrupts;
use kernel::tasklet::Tasklet;
use kernel::testing::TestResult;
use kernel::time::hrtimer::HrTimer;
use kernel::time::tick;
use kernel::time::timer::Timer;
use kernel::workqueue::{self, Work, WorkQueue};
use kernel::{check, check_eq, test, wait};

test!("softirq.runs_in_the_order_of_kinds", [15, 16], in_order);
test!("softirq.runs_with_interrupts_on", [15, 16], with_interrupts_on);
test!("softirq.activations_merge", [15, 16], merge);
test!("softirq.disabling_nests", [16], disabling_nests);
test!("softirq.ten_rounds_and_then_the_thread", [16], hand_over);
test!("softirq.thread_does_what_is_left", [16, 22], thread_does_it);
test!("softirq.thread_leaves_room_for_others", [16, 22], thread_is_low);
test!("softirq.runs_on_all_cpus_at_once", [16], at_once; .cpus(2));
test!("softirq.table_looks_like_proc_softirqs", [25], table);
test!("accounting.counts_all_deferred_work", [25], deferred);
test!("tasklet.scheduled_twice_runs_once", [17], runs_once);
test!("tasklet.high_priority_comes_first", [17], high_first);
test!("tasklet.disabled_one_stays_queued", [17], stays_queued);
test!("tasklet.never_on_two_cpus_at_once", [17], never_twice; .cpus(2).limit_ms(60_000));

static COUNT: AtomicU64 = AtomicU64::new(0);
static TRACE: AtomicU64 = AtomicU64::new(0);

fn count() -> u64 {
    COUNT.load(Ordering::SeqCst)
}

fn counting() {
    COUNT.fetch_add(1, Ordering::SeqCst);
}

fn note(n: u64) {
    TRACE.store(TRACE.load(Ordering::SeqCst) << 4 | n, Ordering::SeqCst);
}

/// With this action for NET_RX, and the counts at 0.
fn with_action(action: softirq::Action, body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    TRACE.store(0, Ordering::SeqCst);
    let old = softirq::open(Kind::NetRx, Some(action));
    let result = body();
    softirq::open(Kind::NetRx, old);
    result
}

/// Raises them in the wrong order while they can't run.
fn in_order() -> TestResult {
    let actions: [(Kind, softirq::Action); 4] =
        [(Kind::Rcu, || note(4)), (Kind::Block, || note(3)), (Kind::Timer, || note(1)), (Kind::NetTx, || note(2))];
    TRACE.store(0, Ordering::SeqCst);
    let old = actions.map(|(kind, action)| softirq::open(kind, Some(action)));
    let guard = BhGuard::new();
    actions.iter().for_each(|(kind, _)| softirq::raise(*kind));
    let early = TRACE.load(Ordering::SeqCst);
    drop(guard);
    actions.iter().zip(old).for_each(|((kind, _), old)| _ = softirq::open(*kind, old));
    check_eq!(early, 0, "what ran while they were kept off");
    check_eq!(TRACE.load(Ordering::SeqCst), 0x1234, "the order");
    Ok(())
}

fn with_interrupts_on() -> TestResult {
    fn action() {
        let on = softirq::is_running() && !entry::in_hardirq() && kernel::sync::interrupts_are_on();
        COUNT.fetch_add(u64::from(on), Ordering::SeqCst);
    }
    with_action(action, || {
        softirq::raise(Kind::NetRx);
        check_eq!(count(), 1, "softirqs that ran with interrupts on, outside of handlers");
        check!(!softirq::in_softirq(), "still in a softirq");
        Ok(())
    })
}

fn merge() -> TestResult {
    with_action(counting, || {
        without_interrupts(|| (0..5).for_each(|_| softirq::raise(Kind::NetRx)));
        check_eq!(count(), 0, "runs while interrupts are off");
        // The way out of any interrupt.
        kernel::chips::apic::send_to(kernel::chips::apic::id(), kernel::arch::vectors::RESCHEDULE);
        wait::for_condition(|| count() != 0)?;
        check_eq!(count(), 1, "runs for five activations");
        Ok(())
    })
}

fn disabling_nests() -> TestResult {
    with_action(counting, || {
        let outer = BhGuard::new();
        let inner = BhGuard::new();
        softirq::raise(Kind::NetRx);
        drop(inner);
        check_eq!(count(), 0, "runs under the outer guard");
        check_eq!(softirq::pending(), 1 << Kind::NetRx as u8, "what is raised");
        drop(outer);
        check_eq!(count(), 1, "runs after it");
        Ok(())
    })
}

/// One that raises itself again and again.
fn hand_over() -> TestResult {
    fn action() {
        if COUNT.fetch_add(1, Ordering::SeqCst) < 24 {
            softirq::raise(Kind::NetRx);
        }
    }
    with_action(action, || {
        let before = softirq::hand_overs_on(0);
        softirq::raise(Kind::NetRx);
        check_eq!(count(), u64::from(MAX_ROUNDS), "rounds before it was handed over");
        check!(softirq::run_handed_over(), "nothing for the thread");
        check_eq!(count(), 2 * u64::from(MAX_ROUNDS), "rounds after the thread's first turn");
        while softirq::run_handed_over() {}
        check_eq!(count(), 25, "rounds in all");
        check_eq!(softirq::hand_overs_on(0) - before, 2, "times that it was handed over");
        Ok(())
    })
}

/// Raises itself 24 times.
fn again_and_again() {
    if COUNT.fetch_add(1, Ordering::SeqCst) < 24 {
        softirq::raise(Kind::NetRx);
    }
}

fn thread_does_it() -> TestResult {
    with_action(again_and_again, || {
        let before = softirq::hand_overs_on(0);
        softirq::raise(Kind::NetRx);
        check_eq!(count(), u64::from(MAX_ROUNDS), "rounds before it was handed over");
        wait::for_condition(|| count() == 25)?;
        check_eq!(softirq::hand_overs_on(0) - before, 2, "times that it was handed over");
        Ok(())
    })
}

/// A flood that never ends, and a thread that wants to get something done.
fn thread_is_low() -> TestResult {
    static STOP: AtomicU64 = AtomicU64::new(0);
    fn flood() {
        COUNT.fetch_add(1, Ordering::SeqCst);
        if STOP.load(Ordering::SeqCst) == 0 {
            softirq::raise(Kind::NetRx);
        }
    }
    STOP.store(0, Ordering::SeqCst);
    with_action(flood, || {
        softirq::raise(Kind::NetRx);
        let before = count();
        let thread = kthread_run("test", 0, Priority::Normal, || (0..100).map(|_| 1).sum());
        let done = thread.join();
        let after = count();
        STOP.store(1, Ordering::SeqCst);
        wait::for_condition(|| softirq::pending() & 1 << Kind::NetRx as u8 == 0)?;
        check_eq!(done, 100, "what the thread has done");
        check_eq!((before, after), (u64::from(MAX_ROUNDS), u64::from(MAX_ROUNDS)), "rounds before and during that");
        Ok(())
    })
}

/// The kind runs on every CPU and waits there for the others.
fn at_once() -> TestResult {
    fn action() {
        counting();
        let _ = wait::for_condition(|| count() == percpu::cpus().count() as u64);
    }
    with_action(action, || {
        call::call_on_others(|_| softirq::raise(Kind::NetRx), 0, false);
        softirq::raise(Kind::NetRx);
        check_eq!(count(), percpu::cpus().count() as u64, "CPUs that ran it at once");
        wait::for_condition(|| percpu::cpus().all(|cpu| softirq::count_on(cpu.number(), Kind::NetRx) != 0))
    })
}

fn table() -> TestResult {
    let mut lines = 0;
    let mut good = true;
    softirq::show_softirqs(|line| {
        lines += 1;
        let name = lines == 1 || Kind::ALL.iter().any(|kind| line.trim_start().starts_with(kind.name()));
        good &= name && line.split_ascii_whitespace().count() >= percpu::cpus().count();
    });
    check_eq!(lines, 11, "lines");
    check!(good, "a line is not of its form");
    Ok(())
}

/// Each kind of deferred work once; its row says so.
fn deferred() -> TestResult {
    static TASKLETS: [Tasklet; 2] = [Tasklet::new(add, 1), Tasklet::new(add, 2)];
    const NAMES: [&str; 7] = ["HI_TASKLETS", "TASKLETS", "TIMERS", "HRTIMERS", "HI_WORK", "WORK", "SWITCHES"];
    let look = || {
        let mut counts = [0u64; NAMES.len()];
        accounting::show_deferred(|line| {
            let mut words = line.split_ascii_whitespace();
            let name = words.next().and_then(|name| name.strip_suffix(':'));
            if let Some(n) = NAMES.iter().position(|known| Some(*known) == name) {
                counts[n] = words.filter_map(|count| count.parse::<u64>().ok()).sum();
            }
        });
        counts
    };
    let tick = tick::start();
    let queues = [WorkQueue::new(workqueue::Kind::HighPriority), WorkQueue::new(workqueue::Kind::PerCpu)];
    let before = look();
    TASKLETS[0].schedule_high();
    TASKLETS[1].schedule();
    let (timer, hrtimer) = (Timer::new(|| {}), HrTimer::new(|_| None));
    timer.modify_after(0);
    hrtimer.start_after(0);
    wait::for_condition(|| !timer.is_pending() && !hrtimer.is_pending())?;
    timer.delete_sync();
    hrtimer.cancel();
    drop(tick);
    for queue in &queues {
        let work = Work::new(|| {});
        queue.queue(&work);
        workqueue::flush_work(&work);
    }
    let after = look();
    for (n, name) in NAMES.into_iter().enumerate().take(6) {
        check_eq!(after[n] - before[n], 1, "what the row {name} has counted");
    }
    check!(after[6] >= before[6] + 2, "switches went from {} to {}", before[6], after[6]);
    Ok(())
}

fn add(n: usize) {
    COUNT.fetch_add(1, Ordering::SeqCst);
    note(n as u64);
}

fn runs_once() -> TestResult {
    static TASKLET: Tasklet = Tasklet::new(add, 1);
    COUNT.store(0, Ordering::SeqCst);
    let guard = BhGuard::new();
    check!(TASKLET.schedule(), "it was scheduled already");
    check!(!TASKLET.schedule(), "it was scheduled twice");
    drop(guard);
    check_eq!(count(), 1, "runs");
    check!(TASKLET.schedule(), "it is still scheduled");
    TASKLET.kill();
    check_eq!(count(), 2, "runs in all");
    Ok(())
}

fn high_first() -> TestResult {
    static TASKLETS: [Tasklet; 2] = [Tasklet::new(add, 2), Tasklet::new(add, 1)];
    TRACE.store(0, Ordering::SeqCst);
    let guard = BhGuard::new();
    TASKLETS[0].schedule();
    TASKLETS[1].schedule_high();
    drop(guard);
    check_eq!(TRACE.load(Ordering::SeqCst), 0x12, "the order");
    Ok(())
}

fn stays_queued() -> TestResult {
    static TASKLET: Tasklet = Tasklet::new(add, 1);
    COUNT.store(0, Ordering::SeqCst);
    TASKLET.disable();
    TASKLET.schedule();
    check_eq!(count(), 0, "runs while disabled");
    check!(TASKLET.is_scheduled(), "it is no longer queued");
    TASKLET.enable();
    TASKLET.kill();
    check_eq!(count(), 1, "runs when enabled");
    Ok(())
}

/// All CPUs schedule one tasklet as often as they can; within it a second run would be seen.
fn never_twice() -> TestResult {
    static TASKLET: Tasklet = Tasklet::new(alone, 0);
    static SCHEDULED: AtomicU64 = AtomicU64::new(0);
    fn alone(_: usize) {
        if COUNT.fetch_add(1, Ordering::SeqCst) != 0 {
            TRACE.fetch_add(1, Ordering::SeqCst);
        }
        (0..20).for_each(|_| core::hint::spin_loop());
        COUNT.fetch_sub(1, Ordering::SeqCst);
    }
    fn schedule(_: usize) {
        SCHEDULED.fetch_add(u64::from(TASKLET.schedule()), Ordering::SeqCst);
    }
    [&COUNT, &TRACE, &SCHEDULED].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    for _ in 0..200 {
        call::call_on_others(schedule, 0, false);
        schedule(0);
    }
    call::call_on_others(|_| {}, 0, true);
    wait::for_condition(|| TASKLET.runs.load(Ordering::SeqCst) == SCHEDULED.load(Ordering::SeqCst))?;
    TASKLET.kill();
    check_eq!(TRACE.load(Ordering::SeqCst), 0, "runs that met another one");
    Ok(())
}
