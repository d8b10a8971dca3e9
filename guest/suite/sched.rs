//! C22 and C23: threads, who runs when, and waiting.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::percpu::{self, this_cpu};
use kernel::arch::vectors;
use kernel::chips::apic;
use kernel::irq::entry;
use kernel::sched::sleep;
use kernel::sched::task::{self, kthread_run};
use kernel::sched::wait_queue::WaitQueue;
use kernel::sched::{self, PreemptGuard, Priority, Task};
use kernel::softirq::{self, Kind};
use kernel::testing::{Failure, TestResult};
use kernel::time::tick;
use kernel::{check, check_eq, heap, probe, test, wait};

test!("sched.threads_are_made_and_end", [22], made_and_end);
test!("sched.switch_keeps_registers", [22], keeps_registers);
test!("sched.higher_priority_runs_first", [22], by_priority);
test!("sched.one_priority_takes_turns", [22], takes_turns);
test!("sched.woken_thread_of_higher_priority_preempts", [22, 23], wake_preempts);
test!("sched.preempts_on_the_way_out_of_an_interrupt", [23], preempts_on_exit);
test!("sched.softirqs_come_before_preemption", [23], softirqs_first);
test!("sched.does_not_preempt_while_forbidden", [23], forbidden);
test!("sched.does_not_preempt_with_interrupts_off", [23], not_with_interrupts_off);
test!("sched.wakes_all_but_one_of_the_exclusive", [22], exclusive);
test!("sched.no_wake_up_is_lost", [22], ping_pong; .cpus(2));
test!("sched.idle_thread_runs_when_all_wait", [22], idle);
test!("sched.time_slices_share_the_cpu", [21, 22], slices);
test!("sched.handlers_and_softirqs_may_not_wait", [8, 22], may_not_wait);
test!("sched.thread_is_asked_to_stop", [22], stops);

static TRACE: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);
static QUEUE: WaitQueue = WaitQueue::new();

fn reset() {
    TRACE.store(0, Ordering::SeqCst);
    COUNT.store(0, Ordering::SeqCst);
}

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn trace() -> u64 {
    TRACE.load(Ordering::SeqCst)
}

fn note(n: u64) {
    TRACE.store(trace() << 4 | n, Ordering::SeqCst);
}

/// A thread on this CPU.
fn thread(priority: Priority, body: impl FnOnce() -> i32 + Send + 'static) -> Arc<Task> {
    kthread_run("test", this_cpu().number(), priority, body)
}

/// A thread that notes `n`.
fn noting(n: u64, priority: Priority) -> Arc<Task> {
    thread(priority, move || {
        note(n);
        0
    })
}

fn made_and_end() -> TestResult {
    let first = kthread_run("test", 0, Priority::Normal, || 42);
    check_eq!((first.name(), first.cpu()), ("test", 0), "its name and CPU");
    check_eq!(first.join(), 42, "its exit code");
    check!(first.is_dead(), "it is not dead");
    drop(first);
    wait::for_condition(|| !has_thread("test"))?;
    let before = heap::used();
    for n in 0..10 {
        check_eq!(kthread_run("test", 0, Priority::Normal, move || n).join(), n, "exit code {n}");
    }
    wait::for_condition(|| !has_thread("test"))?;
    // Lists of the run queue may have grown, a stack would be more.
    check!(heap::used() < before + 4096, "{} bytes are lost", heap::used() - before);
    Ok(())
}

fn has_thread(name: &str) -> bool {
    let mut found = false;
    percpu::cpus().for_each(|cpu| sched::for_each_task(cpu.number(), |task| found |= task.name() == name));
    found
}

/// Two threads that fill all registers that a function must keep with values of their own, and give the CPU to each other.
fn keeps_registers() -> TestResult {
    let other =
        thread(Priority::Normal, || (0..20).filter(|_| !probe::registers_across_a_call(0x1000, yields)).count() as i32);
    let wrong = (0..20).filter(|_| !probe::registers_across_a_call(0x2000, yields)).count();
    check_eq!((wrong as i32, other.join()), (0, 0), "switches that changed a register");
    check!(other.switches.load(Ordering::Relaxed) > 10, "they did not take turns");
    Ok(())
}

extern "C" fn yields() {
    sched::yield_now();
}

fn by_priority() -> TestResult {
    reset();
    let guard = PreemptGuard::new();
    let tasks = [
        noting(4, Priority::Low),
        noting(3, Priority::Normal),
        noting(2, Priority::High),
        noting(1, Priority::Interrupt),
    ];
    check_eq!(trace(), 0, "what ran while preemption was forbidden");
    drop(guard);
    check_eq!(trace(), 0x12, "what preempted this thread");
    tasks.iter().for_each(|task| _ = task.join());
    check_eq!(trace(), 0x1234, "the order");
    Ok(())
}

fn takes_turns() -> TestResult {
    reset();
    let tasks: Vec<_> = (1..=3)
        .map(|n| {
            thread(Priority::Normal, move || {
                for _ in 0..2 {
                    note(n);
                    sched::yield_now();
                }
                0
            })
        })
        .collect();
    tasks.iter().for_each(|task| _ = task.join());
    check_eq!(trace(), 0x12_3123, "the turns");
    Ok(())
}

fn wake_preempts() -> TestResult {
    reset();
    let waiter = thread(Priority::High, || {
        QUEUE.wait_event(|| count() == 1);
        note(1);
        0
    });
    check!(waiter.is_waiting(), "it does not wait");
    COUNT.store(1, Ordering::SeqCst);
    QUEUE.wake_up();
    note(2);
    waiter.join();
    check_eq!(trace(), 0x12, "the order");
    Ok(())
}

static VECTOR: AtomicU32 = AtomicU32::new(0);

/// With a vector whose handler is this.
fn with_vector(handler: vectors::Handler, body: impl FnOnce(u8) -> TestResult) -> TestResult {
    let Some(vector) = vectors::allocate(handler) else { return Err(Failure::new(format_args!("no vector"))) };
    VECTOR.store(vector.into(), Ordering::SeqCst);
    let result = body(vector);
    vectors::release(vector);
    result
}

fn waking_handler(_: &mut Frame) {
    apic::eoi();
    COUNT.store(1, Ordering::SeqCst);
    QUEUE.wake_up();
    note(1);
}

/// The interrupted thread never gives the CPU away: it spins until the other has run.
fn preempts_on_exit() -> TestResult {
    reset();
    with_vector(waking_handler, |vector| {
        let waiter = thread(Priority::High, || {
            QUEUE.wait_event(|| count() == 1);
            note(2);
            0
        });
        apic::send_to(apic::id(), vector);
        for _ in 0..1_000_000 {
            if trace() == 0x12 {
                break;
            }
            core::hint::spin_loop();
        }
        check_eq!(trace(), 0x12, "handler and thread, while this one never waited");
        waiter.join();
        Ok(())
    })
}

/// Both were asked for by the same interrupt.
fn softirqs_first() -> TestResult {
    fn handler(frame: &mut Frame) {
        softirq::raise(Kind::NetRx);
        waking_handler(frame);
    }
    reset();
    let old = softirq::open(Kind::NetRx, Some(|| note(2)));
    let result = with_vector(handler, |vector| {
        let waiter = thread(Priority::High, || {
            QUEUE.wait_event(|| count() == 1);
            note(3);
            0
        });
        apic::send_to(apic::id(), vector);
        waiter.join();
        check_eq!(trace(), 0x123, "handler, softirq, thread");
        Ok(())
    });
    softirq::open(Kind::NetRx, old);
    result
}

fn forbidden() -> TestResult {
    reset();
    with_vector(waking_handler, |vector| {
        let waiter = thread(Priority::High, || {
            QUEUE.wait_event(|| count() == 1);
            note(3);
            0
        });
        let guard = PreemptGuard::new();
        check!(!entry::may_block(), "waiting is allowed");
        apic::send_to(apic::id(), vector);
        let came = wait::for_condition(|| count() == 1);
        note(2);
        drop(guard);
        came?;
        check_eq!(trace(), 0x123, "handler, this thread, the other");
        waiter.join();
        Ok(())
    })
}

fn not_with_interrupts_off() -> TestResult {
    reset();
    let waiter = thread(Priority::High, || {
        QUEUE.wait_event(|| count() == 1);
        note(2);
        0
    });
    kernel::sync::without_interrupts(|| {
        COUNT.store(1, Ordering::SeqCst);
        QUEUE.wake_up();
        note(1);
    });
    sched::preempt::check();
    check_eq!(trace(), 0x12, "this thread, then the other");
    waiter.join();
    Ok(())
}

fn exclusive() -> TestResult {
    static TICKETS: AtomicU32 = AtomicU32::new(0);
    reset();
    TICKETS.store(0, Ordering::SeqCst);
    // Those that are not exclusive only want to hear that something has happened.
    let all: Vec<_> = (0..3)
        .map(|_| {
            thread(Priority::Normal, || {
                QUEUE.wait_event(|| TICKETS.load(Ordering::SeqCst) > 0);
                note(1);
                0
            })
        })
        .collect();
    let one_each: Vec<_> = (0..3)
        .map(|_| {
            thread(Priority::Normal, || {
                QUEUE.wait_event_exclusive(|| TICKETS.load(Ordering::SeqCst) > count());
                COUNT.fetch_add(1, Ordering::SeqCst);
                0
            })
        })
        .collect();
    wait::for_condition(|| QUEUE.len() == 6)?;
    TICKETS.store(2, Ordering::SeqCst);
    QUEUE.wake_up();
    wait::for_condition(|| all.iter().all(|task| task.is_dead()))?;
    wait::for_condition(|| count() == 1)?;
    check_eq!(QUEUE.len(), 2, "exclusive waiters left after one wake-up, with tickets for two");
    QUEUE.wake_up();
    wait::for_condition(|| count() == 2)?;
    TICKETS.store(3, Ordering::SeqCst);
    QUEUE.wake_up_all();
    one_each.iter().for_each(|task| _ = task.join());
    check_eq!((count(), trace()), (3, 0x111), "exclusive ones and others that were served");
    Ok(())
}

/// Two CPUs that wait for each other: a lost wake-up would leave both waiting for ever.
fn ping_pong() -> TestResult {
    const ROUNDS: u32 = 100;
    static OTHER: WaitQueue = WaitQueue::new();
    reset();
    let other = kthread_run("test", 1, Priority::Normal, || {
        for round in 0..ROUNDS {
            OTHER.wait_event(|| count() == 2 * round + 1);
            COUNT.fetch_add(1, Ordering::SeqCst);
            QUEUE.wake_up();
        }
        0
    });
    for round in 0..ROUNDS {
        COUNT.fetch_add(1, Ordering::SeqCst);
        OTHER.wake_up();
        QUEUE.wait_event(|| count() == 2 * round + 2);
    }
    other.join();
    check_eq!(count(), 2 * ROUNDS, "turns");
    Ok(())
}

fn idle() -> TestResult {
    reset();
    let _tick = tick::start();
    let idles = || this_cpu().idles.load(Ordering::Relaxed);
    let before = idles();
    // A host may take the CPU away for as long as this thread wants to wait.
    let ran = (0..100).any(|_| {
        sleep::schedule_timeout(2);
        idles() > before
    });
    check!(ran, "the idle thread did not run");
    check!(!QUEUE.wait_event_timeout(|| false, 1), "a condition that never holds");
    check!(QUEUE.wait_event_timeout(|| true, 1), "a condition that holds");
    Ok(())
}

/// Three threads that never give the CPU away get it in turn.
fn slices() -> TestResult {
    static ENOUGH: AtomicU32 = AtomicU32::new(0);
    reset();
    ENOUGH.store(0, Ordering::SeqCst);
    let _tick = tick::start();
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            thread(Priority::Normal, move || {
                while ENOUGH.load(Ordering::SeqCst) == 0 {
                    COUNT.fetch_or(1 << n, Ordering::SeqCst);
                }
                0
            })
        })
        .collect();
    // Each was there twice: it was taken from the CPU, and got it back. This thread is one of them, and must not be last.
    let twice = || count() == 0b111 && tasks.iter().all(|task| task.switches.load(Ordering::Relaxed) >= 2);
    let shared = (0..100).any(|_| {
        sleep::schedule_timeout(2);
        twice()
    });
    ENOUGH.store(1, Ordering::SeqCst);
    tasks.iter().for_each(|task| _ = task.join());
    check!(shared, "threads that ran: {:#b}", count());
    Ok(())
}

fn may_not_wait() -> TestResult {
    static IN_SOFTIRQ: AtomicU32 = AtomicU32::new(0);
    fn handler(_: &mut Frame) {
        apic::eoi();
        kernel::sync::enable_interrupts();
        COUNT.store(1 + u32::from(entry::may_block()), Ordering::SeqCst);
        kernel::sync::disable_interrupts();
        softirq::raise(Kind::NetRx);
    }
    reset();
    IN_SOFTIRQ.store(0, Ordering::SeqCst);
    let old =
        softirq::open(Kind::NetRx, Some(|| IN_SOFTIRQ.store(1 + u32::from(entry::may_block()), Ordering::SeqCst)));
    let result = with_vector(handler, |vector| {
        apic::send_to(apic::id(), vector);
        wait::for_condition(|| IN_SOFTIRQ.load(Ordering::SeqCst) != 0)
    });
    softirq::open(Kind::NetRx, old);
    result?;
    check_eq!((count(), IN_SOFTIRQ.load(Ordering::SeqCst)), (1, 1), "handlers and softirqs that may wait");
    check!(entry::may_block(), "a thread may not");
    Ok(())
}

fn stops() -> TestResult {
    let task = thread(Priority::Normal, || {
        QUEUE.wait_event(task::should_stop);
        7
    });
    sched::yield_now();
    check!(task.is_waiting(), "it does not wait");
    check_eq!(task.stop(), 7, "its exit code");
    Ok(())
}
