//! C14 and C22: handlers with threads.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::irq::chip::Chip;
use kernel::irq::desc::{Action, IrqReturn, State, ThreadHandler};
use kernel::irq::flow::Flow;
use kernel::irq::{entry, manage};
use kernel::sched::task::kthread_run;
use kernel::sched::wait_queue::WaitQueue;
use kernel::sched::{self, Priority};
use kernel::testing::TestResult;
use kernel::{check, check_eq, test, wait};

use crate::irq::{Number, done};

test!("irq.threaded_handler_holds_the_line_back", [14], threaded);
test!("irq.thread_of_a_handler_comes_first", [14, 22, 23], thread_comes_first);
test!("irq.free_waits_for_the_thread", [14, 22], free_waits_for_thread);

/// Handlers, threads, and threads that run just now.
static COUNT: AtomicU32 = AtomicU32::new(0);
static OTHER: AtomicU32 = AtomicU32::new(0);
static INSIDE: AtomicU32 = AtomicU32::new(0);

fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// What threads of handlers wait for.
static GATE: AtomicU32 = AtomicU32::new(0);
static WAITING: WaitQueue = WaitQueue::new();

fn wakes_thread(_: u32, _: usize) -> IrqReturn {
    COUNT.fetch_add(1, Ordering::Relaxed);
    IrqReturn::WakeThread
}

fn waiting_thread(_: u32, _: usize) {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    WAITING.wait_event(|| GATE.load(Ordering::SeqCst) > OTHER.load(Ordering::Relaxed));
    OTHER.fetch_add(1, Ordering::Relaxed);
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

fn with_thread(thread: ThreadHandler, body: impl FnOnce(&Number) -> TestResult) -> TestResult {
    [&COUNT, &OTHER, &GATE, &INSIDE].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    let action = Action { handler: wakes_thread, thread: Some(thread), device: 0, name: "threaded", shared: false };
    done(manage::request(number.irq, action))?;
    body(&number)
}

fn open_gate(times: u32) {
    GATE.store(times, Ordering::SeqCst);
    WAITING.wake_up_all();
}

/// Until the thread is done the line stays masked, and what comes meanwhile comes once afterwards.
fn threaded() -> TestResult {
    with_thread(waiting_thread, |number| {
        number.raise();
        wait::for_condition(|| INSIDE.load(Ordering::SeqCst) == 1)?;
        check!(number.state().contains(State::MASKED), "the line is free while its thread runs");
        let before = count();
        open_gate(1);
        wait::for_condition(|| OTHER.load(Ordering::Relaxed) == 1)?;
        wait::for_condition(|| !number.state().contains(State::MASKED))?;
        check_eq!((before, count()), (1, 1), "handlers");
        number.raise();
        open_gate(2);
        wait::for_condition(|| OTHER.load(Ordering::Relaxed) == 2)?;
        check_eq!(count(), 2, "handlers in all");
        Ok(())
    })
}

/// The thread has run before the interrupted one, which is of a lower priority, goes on: it has no chance to wait in between.
fn thread_comes_first() -> TestResult {
    fn thread(_: u32, _: usize) {
        OTHER.fetch_add(u32::from(entry::may_block()), Ordering::Relaxed);
    }
    with_thread(thread, |number| {
        for round in 1..=5 {
            number.raise();
            while count() < round {
                core::hint::spin_loop();
            }
            check_eq!(OTHER.load(Ordering::Relaxed), round, "threads that ran, where they may wait");
        }
        Ok(())
    })
}

fn free_waits_for_thread() -> TestResult {
    with_thread(waiting_thread, |number| {
        number.raise();
        wait::for_condition(|| INSIDE.load(Ordering::SeqCst) == 1)?;
        let irq = number.irq;
        let freeing = kthread_run("free", 0, Priority::Normal, move || {
            let freed = manage::free(irq, 0).is_ok();
            i32::from(freed) + 2 * INSIDE.load(Ordering::SeqCst) as i32
        });
        (0..20).for_each(|_| sched::yield_now());
        let early = freeing.is_dead();
        open_gate(1);
        check!(!early, "it did not wait");
        check_eq!(freeing.join(), 1, "it was freed, and its thread does not run");
        Ok(())
    })
}
