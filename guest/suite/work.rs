//! C18: work queues.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::percpu::{self, this_cpu};
use kernel::irq::entry;
use kernel::sched::wait_queue::WaitQueue;
use kernel::sched::{PreemptGuard, sleep};
use kernel::smp::call;
use kernel::softirq::{self, Kind as Softirq};
use kernel::sync::IrqLock;
use kernel::testing::{Failure, TestResult};
use kernel::time::tick::{self, jiffies};
use kernel::workqueue::delayed::DelayedWork;
use kernel::workqueue::{self, Kind, Work, WorkQueue};
use kernel::{check, check_eq, test, wait};

test!("work.runs_where_it_may_wait", [15, 18], may_wait);
test!("work.queued_twice_runs_once", [15, 18], runs_once);
test!("work.runs_on_the_cpu_it_was_queued_on", [18], per_cpu; .cpus(2));
test!("work.is_queued_from_handlers_and_softirqs", [15, 18], from_handlers);
test!("work.ordered_queue_keeps_its_order", [18], ordered);
test!("work.high_priority_comes_first", [18], high_priority);
test!("work.waiting_item_does_not_stop_the_queue", [18], waiting_item);
test!("work.never_on_two_workers_at_once", [18], never_twice; .cpus(2));
test!("work.flush_waits_for_what_was_before_and_no_more", [18], flush_before);
test!("work.item_flushes_its_own_queue", [18], flush_self);
test!("work.two_items_flush_their_queue", [18], flush_each_other);
test!("work.cancelled_item_does_not_run", [18], cancel);
test!("work.cancel_sync_waits_for_its_end", [18], cancel_sync);
test!("work.destroy_runs_what_is_queued", [18], destroy);
test!("work.delayed_item_is_never_early", [18, 19], delayed);
test!("work.delayed_item_runs_on_its_cpu", [18], delayed_on; .cpus(2));
test!("work.delayed_item_is_cancelled_and_changed", [18], delayed_cancel);
test!("work.many_items_on_all_cpus", [18, 25], load; .cpus(2));

static COUNT: AtomicU32 = AtomicU32::new(0);
static TRACE: AtomicU64 = AtomicU64::new(0);
/// What items that wait are waiting for.
static GATE: AtomicU32 = AtomicU32::new(0);
static QUEUE: WaitQueue = WaitQueue::new();

fn reset() {
    [&COUNT, &GATE].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    TRACE.store(0, Ordering::SeqCst);
}

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn trace() -> u64 {
    TRACE.load(Ordering::SeqCst)
}

fn noting(n: u64) -> Arc<Work> {
    Work::new(move || TRACE.store(trace() << 4 | n, Ordering::SeqCst))
}

fn counting() -> Arc<Work> {
    Work::new(|| _ = COUNT.fetch_add(1, Ordering::SeqCst))
}

/// One that waits until the gate is open.
fn waiting() -> Arc<Work> {
    Work::new(|| {
        COUNT.fetch_add(1, Ordering::SeqCst);
        QUEUE.wait_event(|| GATE.load(Ordering::SeqCst) != 0);
        COUNT.fetch_add(1, Ordering::SeqCst);
    })
}

fn open_gate() {
    GATE.store(1, Ordering::SeqCst);
    QUEUE.wake_up_all();
}

fn may_wait() -> TestResult {
    reset();
    let work = Work::new(|| COUNT.store(1 + u32::from(entry::may_block()), Ordering::SeqCst));
    check!(workqueue::system().queue(&work), "it was queued already");
    workqueue::flush_work(&work);
    check_eq!(count(), 2, "items that may wait, and one");
    check_eq!(work.runs(), 1, "runs");
    Ok(())
}

fn runs_once() -> TestResult {
    reset();
    let work = counting();
    let guard = PreemptGuard::new();
    check!(workqueue::system().queue(&work), "it was queued already");
    check!(!workqueue::system().queue(&work), "it was queued twice");
    check!(work.is_pending(), "it does not wait to be run");
    drop(guard);
    workqueue::flush_work(&work);
    check_eq!((count(), work.is_pending()), (1, false), "runs, and whether it is still queued");
    check!(workqueue::system().queue(&work), "it can't be queued again");
    workqueue::flush_work(&work);
    check_eq!(count(), 2, "runs in all");
    Ok(())
}

fn per_cpu() -> TestResult {
    static WHERE: AtomicU32 = AtomicU32::new(0);
    let work = Work::new(|| WHERE.store(this_cpu().number() as u32, Ordering::SeqCst));
    for cpu in percpu::cpus() {
        WHERE.store(u32::MAX, Ordering::SeqCst);
        check!(workqueue::system().queue_on(cpu.number(), &work), "it is queued already");
        workqueue::flush_work(&work);
        check_eq!(WHERE.load(Ordering::SeqCst), cpu.number() as u32, "where it ran");
    }
    Ok(())
}

fn from_handlers() -> TestResult {
    static WORKS: IrqLock<Option<[Arc<Work>; 2]>> = IrqLock::new(None);
    fn queue(n: usize) {
        let works = WORKS.lock().clone();
        works.inspect(|works| _ = workqueue::system().queue(&works[n]));
    }
    reset();
    let works = [counting(), counting()];
    *WORKS.lock() = Some(works.clone());
    workqueue::system();
    let old = softirq::open(Softirq::NetRx, Some(|| queue(0)));
    softirq::raise(Softirq::NetRx);
    softirq::open(Softirq::NetRx, old);
    let other = percpu::cpu(1);
    other.inspect(|cpu| call::call_on(cpu, queue, 1, true));
    *WORKS.lock() = None;
    works.iter().for_each(workqueue::flush_work);
    check_eq!(count(), 1 + u32::from(other.is_some()), "runs");
    Ok(())
}

/// Queued while nothing can run, from one that waits on; ordered also when items wait.
fn ordered() -> TestResult {
    reset();
    let queue = WorkQueue::new(Kind::Ordered);
    let first = Work::new(|| {
        QUEUE.wait_event(|| GATE.load(Ordering::SeqCst) != 0);
        TRACE.store(1, Ordering::SeqCst);
    });
    let others: Vec<_> = (2..=5).map(noting).collect();
    queue.queue(&first);
    others.iter().for_each(|work| _ = queue.queue(work));
    wait::for_condition(|| first.runs() == 1)?;
    sleepless_look();
    check_eq!(trace(), 0, "what ran while the first one waits");
    open_gate();
    queue.flush();
    check_eq!(trace(), 0x1_2345, "the order");
    Ok(())
}

/// Lets all that is ready run.
fn sleepless_look() {
    (0..5).for_each(|_| kernel::sched::yield_now());
}

fn high_priority() -> TestResult {
    reset();
    let (normal, high) = (WorkQueue::new(Kind::PerCpu), WorkQueue::new(Kind::HighPriority));
    let guard = PreemptGuard::new();
    let works = [noting(2), noting(3), noting(1)];
    normal.queue(&works[0]);
    normal.queue(&works[1]);
    high.queue(&works[2]);
    drop(guard);
    normal.flush();
    high.flush();
    check_eq!(trace(), 0x123, "the order");
    Ok(())
}

/// Several that wait, and after them one that does not, all on one CPU.
fn waiting_item() -> TestResult {
    reset();
    let works: Vec<_> = (0..3).map(|_| waiting()).collect();
    let last = counting();
    works.iter().for_each(|work| _ = workqueue::system().queue(work));
    workqueue::system().queue(&last);
    workqueue::flush_work(&last);
    check_eq!(count(), 4, "items that have begun although the first waits");
    open_gate();
    works.iter().for_each(workqueue::flush_work);
    check_eq!(count(), 7, "items that have ended");
    Ok(())
}

/// Queued from all sides while it runs and waits: there is a second run, but never two at once.
fn never_twice() -> TestResult {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static MOST: AtomicU32 = AtomicU32::new(0);
    [&INSIDE, &MOST].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    reset();
    let work = Work::new(|| {
        MOST.fetch_max(INSIDE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        QUEUE.wait_event(|| GATE.load(Ordering::SeqCst) != 0);
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        COUNT.fetch_add(1, Ordering::SeqCst);
    });
    let queue = workqueue::system();
    queue.queue_on(0, &work);
    wait::for_condition(|| INSIDE.load(Ordering::SeqCst) == 1)?;
    check!(queue.queue_on(1, &work), "it can't be queued while it runs");
    check!(!queue.queue_on(0, &work), "it was queued twice");
    sleepless_look();
    open_gate();
    workqueue::flush_work(&work);
    for n in 0..20usize {
        queue.queue_on(n % 2, &work);
    }
    workqueue::flush_work(&work);
    check_eq!(MOST.load(Ordering::SeqCst), 1, "runs at once");
    check!(count() as u64 == work.runs() && count() >= 3, "{} runs", count());
    Ok(())
}

/// The flush begins before the second one is queued; the second one never ends before the flush does.
fn flush_before() -> TestResult {
    reset();
    let queue: Arc<WorkQueue> = Arc::new(WorkQueue::new(Kind::PerCpu));
    let (before, after) = (waiting(), Work::new(|| QUEUE.wait_event(|| GATE.load(Ordering::SeqCst) == 2)));
    queue.queue(&before);
    wait::for_condition(|| count() == 1)?;
    let flushed = queue.clone();
    let flusher = kernel::sched::task::kthread_run("flusher", 0, kernel::sched::Priority::Normal, move || {
        flushed.flush();
        count() as i32
    });
    wait::for_condition(|| flusher.is_waiting())?;
    queue.queue(&after);
    wait::for_condition(|| after.runs() == 1)?;
    sleepless_look();
    check!(!flusher.is_dead(), "it did not wait for what was queued before");
    open_gate();
    check_eq!(flusher.join(), 2, "what the flush has waited for");
    GATE.store(2, Ordering::SeqCst);
    QUEUE.wake_up_all();
    queue.flush();
    Ok(())
}

/// In an ordered queue nobody else can run those that wait behind it.
fn flush_self() -> TestResult {
    for kind in [Kind::Ordered, Kind::PerCpu, Kind::HighPriority] {
        reset();
        let queue: Arc<WorkQueue> = Arc::new(WorkQueue::new(kind));
        let flushed = Arc::downgrade(&queue);
        let first = Work::new(move || {
            if let Some(queue) = flushed.upgrade() {
                queue.flush();
            }
            TRACE.store(trace() << 4 | 9, Ordering::SeqCst);
        });
        let others: Vec<_> = (1..=3).map(noting).collect();
        let guard = PreemptGuard::new();
        queue.queue(&first);
        others.iter().for_each(|work| _ = queue.queue(work));
        drop(guard);
        queue.flush();
        check_eq!(trace(), 0x1239, "the order in a queue of kind {kind:?}");
    }
    Ok(())
}

fn flush_each_other() -> TestResult {
    reset();
    let queue: Arc<WorkQueue> = Arc::new(WorkQueue::new(Kind::PerCpu));
    let works: Vec<_> = (0..2)
        .map(|_| {
            let flushed = Arc::downgrade(&queue);
            Work::new(move || {
                COUNT.fetch_add(1, Ordering::SeqCst);
                // Both are here before either flushes.
                QUEUE.wait_event(|| count() >= 2);
                QUEUE.wake_up_all();
                if let Some(queue) = flushed.upgrade() {
                    queue.flush();
                }
            })
        })
        .collect();
    works.iter().for_each(|work| _ = queue.queue(work));
    works.iter().for_each(workqueue::flush_work);
    check_eq!(count(), 2, "items");
    Ok(())
}

fn cancel() -> TestResult {
    reset();
    let queue = WorkQueue::new(Kind::Ordered);
    let works = [counting(), counting(), counting()];
    let guard = PreemptGuard::new();
    works.iter().for_each(|work| _ = queue.queue(work));
    check!(workqueue::cancel(&works[0]), "the first was not queued");
    check!(workqueue::cancel(&works[2]), "the last was not queued");
    check!(!workqueue::cancel(&works[2]), "it was cancelled twice");
    drop(guard);
    queue.flush();
    check_eq!(works.each_ref().map(|work| work.runs()), [0, 1, 0], "runs");
    check!(queue.queue(&works[0]), "it can't be queued again");
    queue.flush();
    check_eq!(count(), 2, "runs in all");
    Ok(())
}

fn cancel_sync() -> TestResult {
    reset();
    let work = waiting();
    workqueue::system().queue(&work);
    wait::for_condition(|| count() == 1)?;
    let cancelled = work.clone();
    let thread = kernel::sched::task::kthread_run("canceller", 0, kernel::sched::Priority::Normal, move || {
        let was_pending = workqueue::cancel_sync(&cancelled);
        count() as i32 + 10 * i32::from(was_pending)
    });
    wait::for_condition(|| thread.is_waiting())?;
    open_gate();
    check_eq!(thread.join(), 2, "what had happened when it returned");
    check_eq!(work.runs(), 1, "runs");
    Ok(())
}

fn destroy() -> TestResult {
    reset();
    for kind in [Kind::Ordered, Kind::PerCpu] {
        reset();
        let queue = WorkQueue::new(kind);
        let works: Vec<_> = (0..5).map(|_| counting()).collect();
        let guard = PreemptGuard::new();
        works.iter().for_each(|work| _ = queue.queue(work));
        drop(guard);
        queue.destroy();
        check_eq!(count(), 5, "runs before the queue was gone");
    }
    Ok(())
}

fn delayed() -> TestResult {
    static WHEN: AtomicU64 = AtomicU64::new(0);
    let _tick = tick::start();
    let work = DelayedWork::new(|| WHEN.store(jiffies(), Ordering::SeqCst));
    for delay in [0, 1, 3] {
        let before = jiffies();
        check!(work.queue(workqueue::system(), None, delay), "it is queued already");
        check!(!work.queue(workqueue::system(), None, delay), "it was queued twice");
        wait::for_condition(|| !work.is_pending())?;
        workqueue::flush_work(work.work());
        let took = WHEN.load(Ordering::SeqCst) - before;
        check!(took >= delay, "it ran after {took} jiffies, not {delay}");
    }
    check_eq!(work.work().runs(), 3, "runs");
    // Flushing does not wait for the time.
    work.queue(workqueue::system(), None, 1_000_000);
    work.flush();
    check_eq!(work.work().runs(), 4, "runs after flushing");
    Ok(())
}

fn delayed_on() -> TestResult {
    static WHERE: AtomicU32 = AtomicU32::new(0);
    let _tick = tick::start();
    let work = DelayedWork::new(|| WHERE.store(this_cpu().number() as u32, Ordering::SeqCst));
    for cpu in percpu::cpus() {
        WHERE.store(u32::MAX, Ordering::SeqCst);
        work.queue(workqueue::system(), Some(cpu.number()), 1);
        wait::for_condition(|| WHERE.load(Ordering::SeqCst) == cpu.number() as u32)?;
    }
    Ok(())
}

fn delayed_cancel() -> TestResult {
    reset();
    let _tick = tick::start();
    let work = DelayedWork::new(|| _ = COUNT.fetch_add(1, Ordering::SeqCst));
    check!(!work.cancel(), "it was pending");
    let was_pending = kernel::sync::without_interrupts(|| {
        work.queue(workqueue::system(), None, 2);
        work.cancel()
    });
    check!(was_pending, "it was not pending");
    sleep::schedule_timeout(4);
    check_eq!(count(), 0, "runs of a cancelled one");
    work.queue(workqueue::system(), None, 1_000_000);
    check!(work.cancel_sync(), "it was not pending any more");
    work.queue(workqueue::system(), None, 1_000_000);
    check!(work.modify(workqueue::system(), None, 1), "it was not pending");
    wait::for_condition(|| count() == 1)
}

/// Every CPU queues, items wait, and each runs as often as it was queued.
fn load() -> TestResult {
    const ITEMS: usize = 6;
    const ROUNDS: u64 = 10;
    reset();
    let cpus = percpu::cpus().count();
    let ran = || (0..cpus).map(|cpu| workqueue::runs_on(cpu, false)).sum::<u64>();
    let before = ran();
    let queue = WorkQueue::new(Kind::PerCpu);
    let works: Vec<_> = (0..ITEMS)
        .map(|n| {
            Work::new(move || {
                if n % 3 == 0 {
                    kernel::sched::yield_now();
                }
                COUNT.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let mut queued = 0;
    for _ in 0..ROUNDS {
        for (n, work) in works.iter().enumerate() {
            queued += u64::from(queue.queue_on(n % cpus, work));
        }
        queue.flush();
    }
    check_eq!(queued, ROUNDS * ITEMS as u64, "items that could be queued after each flush");
    check_eq!((u64::from(count()), ran() - before), (queued, queued), "runs, and what was counted");
    if count() == 0 {
        return Err(Failure::new(format_args!("nothing ran")));
    }
    Ok(())
}
