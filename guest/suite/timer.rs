//! C19 and C21: timers, the tick and the clocks.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::percpu::{self, this_cpu};
use kernel::arch::vectors;
use kernel::random::Random;
use kernel::sched::task::kthread_run;
use kernel::sched::{self, Priority, sleep};
use kernel::smp::call;
use kernel::softirq::{self, Kind};
use kernel::sync::{IrqLock, without_interrupts};
use kernel::testing::TestResult;
use kernel::time::clock::{self, SECOND};
use kernel::time::hrtimer::{self, HrTimer};
use kernel::time::tick::{self, TICK, jiffies};
use kernel::time::timer::Timer;
use kernel::time::wheel::{FARTHEST, Wheel};
use kernel::time::{self, rtc};
use kernel::{check, check_eq, test, wait};

test!("timer.wheel_is_never_early_and_an_eighth_late_at_most", [19], wheel);
test!("timer.wheel_finds_what_it_removes", [19], wheel_removes);
test!("timer.runs_from_its_softirq_when_it_is_due", [15, 19], runs);
test!("timer.is_changed_and_deleted", [19], changed);
test!("timer.can_start_itself_again", [19], starts_itself);
test!("timer.delete_sync_waits_for_its_function", [19], delete_waits; .cpus(2));
test!("timer.of_every_cpu_runs_there", [19], every_cpu; .cpus(2));
test!("hrtimer.runs_in_the_order_of_time", [19], in_order);
test!("hrtimer.is_never_early", [19], hr_never_early);
test!("hrtimer.periodic_one_does_not_drift", [19], hr_periodic);
test!("hrtimer.is_cancelled", [19], hr_cancel);
test!("hrtimer.cancel_waits_for_its_function", [19], hr_cancel_waits; .cpus(2));
test!("hrtimer.wakes_who_sleeps", [19, 21], nanosleep);
test!("tick.comes_on_every_cpu", [21], every_tick; .cpus(2));
test!("tick.long_stop_is_not_replayed", [20, 21], no_replay);
test!("clock.monotonic_never_goes_back", [21], monotonic; .cpus(2));
test!("clock.real_is_the_rtc_and_can_be_set", [21], real);
test!("clock.days_are_those_of_the_calendar", [21], calendar);
test!("clock.cpu_time_is_the_threads_own", [21, 22], cpu_time);

static COUNT: AtomicU32 = AtomicU32::new(0);
static TRACE: AtomicU64 = AtomicU64::new(0);
static GATE: AtomicU32 = AtomicU32::new(0);

fn reset() {
    [&COUNT, &GATE].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    TRACE.store(0, Ordering::SeqCst);
}

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn counting() -> Arc<Timer> {
    Timer::new(|| _ = COUNT.fetch_add(1, Ordering::SeqCst))
}

/// Turns a wheel by hand, over its first levels.
fn wheel() -> TestResult {
    let mut random = Random::from_seed(19);
    for start in [0u64, 511] {
        let mut wheel = Wheel::new();
        let mut expected = Vec::new();
        for n in 0..16u64 {
            let distance = random.below(2 << (n % 8));
            expected.push(start + distance);
            wheel.insert(start, start + distance, n as usize);
        }
        let (mut now, mut seen) = (start, 0);
        while !wheel.is_empty() {
            while let Some(due) = wheel.turn(now, |_, _| {}) {
                for n in due {
                    let (expires, distance) = (expected[n], expected[n] - start);
                    check!(now >= expires, "due at {expires}, run at {now}");
                    check!(now - expires <= distance / 7 + 1, "due at {expires}, run at {now}, made at {start}");
                    seen += 1;
                }
            }
            now += 1;
        }
        check_eq!(seen, 16, "items that came out, begun at {start}");
    }
    Ok(())
}

fn wheel_removes() -> TestResult {
    let mut wheel = Wheel::new();
    let places: Vec<_> =
        [5u64, 70, 600, FARTHEST, 10 * FARTHEST].into_iter().map(|at| (at, wheel.insert(0, at, at))).collect();
    check_eq!(wheel.len(), 5, "items");
    let levels: Vec<_> = places.iter().map(|(_, bucket)| bucket / 64).collect();
    check_eq!(levels, [0, 1, 2, 5, 5], "their levels");
    for (at, bucket) in places.into_iter().rev() {
        check_eq!(wheel.remove(bucket, |item| *item == at), Some(at), "what is in bucket {bucket}");
        check_eq!(wheel.remove(bucket, |item| *item == at), None, "the same once more");
    }
    check!(wheel.is_empty(), "{} items are left", wheel.len());
    Ok(())
}

fn runs() -> TestResult {
    static WHEN: AtomicU64 = AtomicU64::new(0);
    reset();
    let _tick = tick::start();
    let softirqs = || softirq::count_on(0, Kind::Timer);
    let before = softirqs();
    let timer = Timer::new(|| {
        WHEN.store(jiffies(), Ordering::SeqCst);
        COUNT.fetch_add(1 + 10 * u32::from(!softirq::is_running()), Ordering::SeqCst);
    });
    for (n, delay) in [1u64, 3].into_iter().enumerate() {
        let expires = jiffies() + delay;
        check!(!timer.modify(expires), "it was pending");
        check!(timer.is_pending() || jiffies() >= expires, "it is not pending");
        wait::for_condition(|| count() == n as u32 + 1)?;
        let when = WHEN.load(Ordering::SeqCst);
        check!(when >= expires, "it ran at {when}, and was due at {expires}");
        check!(!timer.is_pending(), "it is still pending");
    }
    check!(softirqs() > before, "not by a softirq");
    Ok(())
}

fn changed() -> TestResult {
    reset();
    let _tick = tick::start();
    let (first, second) = (counting(), counting());
    first.modify_after(1_000_000);
    check!(first.modify_after(1), "it was not pending");
    let was_pending = without_interrupts(|| {
        second.modify_after(2);
        second.delete()
    });
    check!(was_pending, "it was not pending");
    check!(!second.delete(), "it was pending twice");
    wait::for_condition(|| count() == 1)?;
    sleep::schedule_timeout(4);
    check_eq!(count(), 1, "functions that were called");
    Ok(())
}

fn starts_itself() -> TestResult {
    static TIMER: IrqLock<Option<Arc<Timer>>> = IrqLock::new(None);
    reset();
    let _tick = tick::start();
    let timer = Timer::new(|| {
        if COUNT.fetch_add(1, Ordering::SeqCst) < 3 {
            let timer = TIMER.lock().clone();
            timer.inspect(|timer| _ = timer.modify_after(0));
        }
    });
    *TIMER.lock() = Some(timer.clone());
    timer.modify_after(0);
    let came = wait::for_condition(|| count() == 4);
    *TIMER.lock() = None;
    timer.delete_sync();
    came
}

/// A function that runs on the other CPU until it is let go.
fn holds_on() {
    COUNT.fetch_add(1, Ordering::SeqCst);
    while GATE.load(Ordering::SeqCst) == 0 {
        core::hint::spin_loop();
    }
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// In a thread of this CPU `wait` must not come back before the function on the other CPU has ended.
fn waits_for_end(wait_for_it: impl FnOnce() + Send + 'static) -> TestResult {
    wait::for_condition(|| count() == 1)?;
    let thread = kthread_run("deleter", 0, Priority::Normal, move || {
        wait_for_it();
        count() as i32
    });
    for _ in 0..20 {
        sched::yield_now();
    }
    let early = thread.is_dead();
    GATE.store(1, Ordering::SeqCst);
    check!(!early, "it did not wait");
    check_eq!(thread.join(), 2, "what had happened when it returned");
    Ok(())
}

fn delete_waits() -> TestResult {
    reset();
    let _tick = tick::start();
    let timer = Timer::new_on(1, holds_on);
    timer.modify_after(0);
    waits_for_end(move || _ = timer.delete_sync())
}

fn every_cpu() -> TestResult {
    reset();
    let _tick = tick::start();
    let timers: Vec<_> = percpu::cpus()
        .map(|cpu| {
            let number = cpu.number();
            Timer::new_on(number, move || {
                _ = COUNT.fetch_or(u32::from(this_cpu().number() == number) << number, Ordering::SeqCst)
            })
        })
        .collect();
    timers.iter().for_each(|timer| _ = timer.modify_after(1));
    let all = (1 << percpu::cpus().count()) - 1;
    wait::for_condition(|| count() == all)
}

fn noting(n: u64) -> Arc<HrTimer> {
    HrTimer::new(move |_| {
        TRACE.store(TRACE.load(Ordering::SeqCst) << 4 | n, Ordering::SeqCst);
        None
    })
}

fn in_order() -> TestResult {
    reset();
    let _tick = tick::start();
    let timers = [(3, 900_000), (1, 300_000), (4, 900_000), (2, 600_000)].map(|(n, after)| (noting(n), after));
    without_interrupts(|| {
        let now = clock::monotonic();
        timers.iter().for_each(|(timer, after)| _ = timer.start(now + after));
    });
    wait::for_condition(|| timers.iter().all(|(timer, _)| !timer.is_pending()))?;
    wait::for_condition(|| TRACE.load(Ordering::SeqCst) == 0x1234)?;
    check!(hrtimer::runs_on(0) >= 4, "runs that were counted");
    Ok(())
}

fn hr_never_early() -> TestResult {
    static WHEN: AtomicU64 = AtomicU64::new(0);
    reset();
    let _tick = tick::start();
    let timer = HrTimer::new(|_| {
        WHEN.store(clock::monotonic(), Ordering::SeqCst);
        COUNT.fetch_add(1 + 10 * u32::from(!softirq::is_running()), Ordering::SeqCst);
        None
    });
    for (n, after) in [0u64, 1_000, 123_456, 3_000_000, 25_000_000].into_iter().enumerate() {
        let expires = clock::monotonic() + after;
        timer.start(expires);
        wait::for_condition(|| count() == n as u32 + 1)?;
        let when = WHEN.load(Ordering::SeqCst);
        check!(when >= expires, "it ran {} ns early", expires - when);
    }
    Ok(())
}

/// However late each run is, all are due at whole intervals from the first.
fn hr_periodic() -> TestResult {
    const INTERVAL: u64 = 2_000_000;
    static FIRST: AtomicU64 = AtomicU64::new(0);
    static WRONG: AtomicU32 = AtomicU32::new(0);
    reset();
    WRONG.store(0, Ordering::SeqCst);
    check_eq!(hrtimer::forward(100, 100, 10), (110, 1), "one interval on");
    check_eq!(hrtimer::forward(100, 125, 10), (130, 3), "two that were missed");
    let _tick = tick::start();
    let timer = HrTimer::new(|expired| {
        let off = (expired - FIRST.load(Ordering::SeqCst)) % INTERVAL;
        WRONG.fetch_add(u32::from(off != 0 || clock::monotonic() < expired), Ordering::SeqCst);
        let more = COUNT.fetch_add(1, Ordering::SeqCst) < 9;
        more.then(|| hrtimer::forward(expired, clock::monotonic(), INTERVAL).0)
    });
    let first = clock::monotonic() + INTERVAL;
    FIRST.store(first, Ordering::SeqCst);
    timer.start(first);
    wait::for_condition(|| count() == 10)?;
    check_eq!(WRONG.load(Ordering::SeqCst), 0, "runs that were early or off");
    check!(clock::monotonic() >= first + 9 * INTERVAL, "ten runs came too soon");
    Ok(())
}

fn hr_cancel() -> TestResult {
    reset();
    let _tick = tick::start();
    let (first, second) = (noting(1), noting(2));
    first.start_after(1_000 * SECOND);
    check!(first.start_after(2_000_000), "it was not pending");
    let was_pending = without_interrupts(|| {
        second.start_after(1_000_000);
        second.cancel()
    });
    check!(was_pending, "it was not pending");
    check!(!second.try_to_cancel(), "it was pending twice");
    wait::for_condition(|| !first.is_pending())?;
    wait::for_condition(|| TRACE.load(Ordering::SeqCst) == 1)
}

fn hr_cancel_waits() -> TestResult {
    static TIMER: IrqLock<Option<Arc<HrTimer>>> = IrqLock::new(None);
    fn start_there(_: usize) {
        let timer = HrTimer::new(|_| {
            holds_on();
            None
        });
        timer.start_after(0);
        *TIMER.lock() = Some(timer);
    }
    reset();
    let _tick = tick::start();
    if let Some(cpu) = percpu::cpu(1) {
        call::call_on(cpu, start_there, 0, true);
    }
    waits_for_end(|| {
        let timer = TIMER.lock().clone();
        timer.inspect(|timer| _ = timer.cancel());
        *TIMER.lock() = None;
    })
}

fn nanosleep() -> TestResult {
    let _tick = tick::start();
    for nanoseconds in [1u64, 500_000, 12_000_000] {
        let before = clock::monotonic();
        sleep::nanosleep(nanoseconds);
        let slept = clock::monotonic() - before;
        check!(slept >= nanoseconds, "it slept {slept} ns, not {nanoseconds}");
    }
    Ok(())
}

fn every_tick() -> TestResult {
    let timer_interrupts =
        |cpu: &percpu::PerCpu| cpu.vectors[usize::from(vectors::LOCAL_TIMER)].load(Ordering::Relaxed);
    let before: Vec<_> = percpu::cpus().map(|cpu| (tick::ticks_on(cpu.number()), timer_interrupts(cpu))).collect();
    let tick = tick::start();
    let first = jiffies();
    wait::for_condition(|| {
        percpu::cpus().zip(&before).all(|(cpu, (ticks, _))| tick::ticks_on(cpu.number()) >= ticks + 3)
    })?;
    check!(jiffies() >= first + 2, "jiffies went from {first} to {}", jiffies());
    for (cpu, (_, interrupts)) in percpu::cpus().zip(&before) {
        check!(timer_interrupts(cpu) >= interrupts + 3, "ticks without an interrupt on CPU {}", cpu.number());
    }
    drop(tick);
    let stopped = jiffies();
    time::delay(3 * TICK / 1_000);
    check_eq!(jiffies(), stopped, "jiffies without a tick");
    Ok(())
}

/// With interrupts off for ten ticks, time goes on, and one tick makes up for all.
fn no_replay() -> TestResult {
    let _tick = tick::start();
    let (ticks, first) = without_interrupts(|| {
        let ticks = tick::ticks_on(0);
        let (first, from) = (clock::monotonic() / TICK, clock::monotonic());
        while clock::monotonic() < from + 10 * TICK {
            core::hint::spin_loop();
        }
        (ticks, first)
    });
    let (now, end) = (tick::ticks_on(0), clock::monotonic() / TICK);
    wait::for_condition(|| jiffies() >= first + 10)?;
    check!(now - ticks <= 1 + end - (first + 10), "{} ticks came at once", now - ticks);
    Ok(())
}

/// Each CPU's readings, and those of one after the other's.
fn monotonic() -> TestResult {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static WRONG: AtomicU32 = AtomicU32::new(0);
    fn look(_: usize) {
        for _ in 0..20 {
            let before = LAST.load(Ordering::SeqCst);
            let now = clock::monotonic();
            WRONG.fetch_add(u32::from(now < before), Ordering::SeqCst);
            LAST.fetch_max(now, Ordering::SeqCst);
        }
    }
    [&LAST].into_iter().for_each(|last| last.store(0, Ordering::SeqCst));
    WRONG.store(0, Ordering::SeqCst);
    for _ in 0..10 {
        call::call_on_others(look, 0, false);
        look(0);
    }
    call::call_on_others(|_| {}, 0, true);
    check_eq!(WRONG.load(Ordering::SeqCst), 0, "times it went back");
    Ok(())
}

fn real() -> TestResult {
    let real = clock::real();
    let from_rtc = rtc::since_epoch();
    // The RTC counts whole seconds, and was read a little earlier or later.
    check!(from_rtc.abs_diff(real / SECOND) <= 2, "{} s by the kernel, {from_rtc} s by the RTC", real / SECOND);
    let before = clock::monotonic();
    clock::set_real(1_000 * SECOND);
    let changed = clock::real();
    check!((1_000 * SECOND..2_000 * SECOND).contains(&changed), "it was set to 1000 s and is {changed} ns");
    check!(clock::monotonic() >= before && clock::monotonic() < before + 1_000 * SECOND, "monotonic time was set, too");
    clock::set_real(real);
    Ok(())
}

fn calendar() -> TestResult {
    for ((year, month, day), days) in [
        ((1970, 1, 1), 0),
        ((1970, 3, 1), 59),
        ((2000, 2, 29), 11_016),
        ((2000, 3, 1), 11_017),
        ((2026, 11, 28), 20_785),
        ((2100, 3, 1), 47_541),
    ] {
        check_eq!(rtc::days_since_epoch(year, month, day), days, "days to {year}-{month}-{day}");
    }
    Ok(())
}

/// Of a thread that works and one that waits all the time, only the first has used any to speak of.
fn cpu_time() -> TestResult {
    reset();
    let worker = kthread_run("worker", 0, Priority::Normal, || {
        let Some(me) = sched::current() else { return 1 };
        let mut last = me.cpu_time();
        while last < 3_000_000 {
            let now = me.cpu_time();
            if now < last {
                return 2;
            }
            last = now;
        }
        0
    });
    let before = clock::monotonic();
    check_eq!(worker.join(), 0, "its exit code");
    let used = worker.cpu_time();
    check!(used >= 3_000_000, "it has used {used} ns, and says more itself");
    check!(used <= clock::monotonic() - before, "it has used {used} ns, more than there were");
    Ok(())
}
