use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, Stepped};
use crate::cpu::CpuOwner;
use crate::system::{Config, System};
use crate::testing::{Gate, Log, Recorder, one_cpu_with, wait_for};

const MS: u64 = 1_000_000;

fn stepped() -> (System, CpuOwner, Arc<Recorder>, Arc<Stepped>) {
    let clock = Arc::new(Stepped::default());
    clock.advance(1000 * MS);
    let config = Config { clock: Arc::clone(&clock) as _, ..Config::default() };
    let (system, owner, port) = one_cpu_with(config);
    (system, owner, port, clock)
}

fn tick(owner: &CpuOwner) {
    owner.top_half(|top| owner.expire(top));
}

#[test]
fn precise_timers_run_in_order_at_their_time() {
    let (_system, owner, port, clock) = stepped();
    let log = Log::default();
    let make = |name: &'static str| {
        let log = log.clone();
        Timer::precise(owner.cpu(), move |_| {
            log.add(name);
            None
        })
    };
    let (late, early, same) = (make("late"), make("early"), make("same"));
    let now = clock.now();
    assert!(!late.start(now + 500) && !early.start(now + 100) && !same.start(now + 100));
    assert_eq!(port.deadline(), Some(now + 100));
    assert_eq!(owner.cpu().next_deadline(), Some(now + 100));
    tick(&owner);
    assert!(log.take().is_empty());
    clock.advance(100);
    tick(&owner);
    assert_eq!(log.take(), ["early", "same"]);
    assert_eq!(port.deadline(), Some(now + 500));
    clock.advance(1000);
    tick(&owner);
    assert_eq!(log.take(), ["late"]);
    assert_eq!(port.deadline(), None, "nothing ticks");
}

#[test]
fn a_timer_is_moved_and_cancelled_and_says_whether_it_was_pending() {
    let (_system, owner, port, clock) = stepped();
    for timer in [Timer::timeout(owner.cpu(), |_| None), Timer::precise(owner.cpu(), |_| None)] {
        let now = clock.now();
        assert!(!timer.cancel());
        assert!(!timer.start(now + 50 * MS) && timer.is_pending());
        let announced = port.announced();
        assert!(timer.start(now + 90 * MS));
        assert!(timer.start_if_idle(now + MS), "it is pending, and stays where it is");
        assert_eq!(port.announced(), announced, "a later deadline costs no call");
        clock.advance(60 * MS);
        tick(&owner);
        assert!(timer.is_pending(), "moved away from the first deadline");
        assert!(timer.cancel() && !timer.is_pending() && !timer.cancel());
        clock.advance(100 * MS);
        tick(&owner);
        assert_eq!(port.deadline(), None);
    }
}

#[test]
fn a_periodic_timer_restarts_by_what_it_returns_unless_it_was_cancelled() {
    let (_system, owner, _port, clock) = stepped();
    let log = Log::default();
    let seen = log.clone();
    let timer = Timer::precise(owner.cpu(), move |softirq| {
        seen.add("tick");
        Some(softirq.now() + 10)
    });
    timer.start(clock.now() + 10);
    for _ in 0..5 {
        clock.advance(10);
        tick(&owner);
    }
    assert_eq!(log.take().len(), 5);
    assert!(timer.cancel());
    clock.advance(100);
    tick(&owner);
    assert!(log.take().is_empty());
}

#[test]
fn cancelling_with_waiting_waits_for_the_run_and_beats_its_restart() {
    let (_system, owner, _port, clock) = stepped();
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let timer = Timer::timeout(owner.cpu(), move |softirq| {
        entered_there.open();
        gate_there.wait();
        Some(softirq.now() + MS)
    });
    timer.start(clock.now());
    clock.advance(10 * MS);
    std::thread::scope(|scope| {
        let opener = gate.clone();
        scope.spawn(move || tick(&owner));
        entered.wait();
        let waiter = scope.spawn(|| timer.cancel_and_wait(&Process::of_thread()));
        opener.open();
        waiter.join().unwrap();
        // The run had begun, so it was not pending; its restart does not count.
        assert!(!timer.is_pending());
    });
}

#[test]
fn a_dropped_timer_is_forgotten_even_from_its_own_run() {
    let (_system, owner, _port, clock) = stepped();
    let entries = || owner.cpu().timers.state.lock().entries.iter().count();
    let before = entries();
    let own: Arc<Mutex<Option<Timer>>> = Arc::default();
    let there = Arc::clone(&own);
    let timer = Timer::precise(owner.cpu(), move |_| {
        drop(there.lock().take());
        Some(1)
    });
    timer.start(clock.now());
    *own.lock() = Some(timer);
    tick(&owner);
    assert_eq!(entries(), before);
    let unused = Timer::timeout(owner.cpu(), |_| None);
    unused.start(clock.now() + 5 * MS);
    drop(unused);
    clock.advance(10 * MS);
    tick(&owner);
    assert_eq!(owner.cpu().next_deadline(), None);
}

#[test]
fn many_due_timers_take_turns_with_other_softirqs() {
    let (system, owner, _port, clock) = stepped();
    let log = Log::default();
    let timers: Vec<_> = (0..TURN + 10)
        .map(|_| {
            let log = log.clone();
            Timer::precise(owner.cpu(), move |_| {
                log.add("timer");
                None
            })
        })
        .collect();
    let rcu = log.clone();
    assert!(system.set_handler(Vector::Rcu, move |_| rcu.add("rcu")));
    timers.iter().for_each(|timer| _ = timer.start(clock.now()));
    owner.top_half(|top| {
        top.raise(Vector::Rcu);
        owner.expire(top);
    });
    wait_for(|| log.len() == TURN + 11);
    assert_eq!(log.take().iter().position(|what| what == "rcu"), Some(TURN));
}

#[test]
fn the_deadline_of_a_cancelled_timer_runs_nothing_and_announces_the_next() {
    let (_system, owner, port, clock) = stepped();
    let (first, second) = (Timer::precise(owner.cpu(), |_| None), Timer::precise(owner.cpu(), |_| None));
    let now = clock.now();
    first.start(now + 10);
    second.start(now + 20);
    first.cancel();
    assert_eq!(port.deadline(), Some(now + 10), "an alarm too early costs less than a call");
    clock.advance(10);
    tick(&owner);
    assert_eq!(port.deadline(), Some(now + 20));
    assert_eq!(owner.cpu().stats().run[Vector::HrTimer.index()], 0);
}

/// What a test does to a queue of timers.
#[derive(Debug, Clone)]
enum Step {
    Start(u32, u64),
    Cancel(u32),
    Advance(u64),
}

fn steps(longest: u64) -> impl Strategy<Value = Vec<Step>> {
    let delay = prop_oneof![0u64..1 << 21, 0u64..1 << 27, 0..longest];
    let step = prop_oneof![
        3 => (0u32..16, delay.clone()).prop_map(|(id, delay)| Step::Start(id, delay)),
        1 => (0u32..16).prop_map(Step::Cancel),
        2 => delay.prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn the_heap_agrees_with_a_sorted_map(steps in steps(1 << 40)) {
        let (mut heap, mut model) = (Heap::default(), BTreeMap::new());
        let (mut now, mut order) = (0u64, 0);
        (0..16).for_each(|id| heap.grow(id));
        let mut place = [None; 16];
        for step in steps {
            match step {
                Step::Start(id, delay) => {
                    if let Some(key) = place[id as usize].take() {
                        model.remove(&key);
                        heap.remove(id);
                    }
                    order += 1;
                    heap.insert(id, now + delay);
                    model.insert((now + delay, order), id);
                    place[id as usize] = Some((now + delay, order));
                }
                Step::Cancel(id) => if let Some(key) = place[id as usize].take() {
                    model.remove(&key);
                    heap.remove(id);
                }
                Step::Advance(by) => {
                    now += by;
                    while let Some(id) = heap.pop_due(now) {
                        let (key, expected) = model.pop_first().unwrap();
                        prop_assert!(key.0 <= now && expected == id);
                        place[id as usize] = None;
                    }
                }
            }
            prop_assert_eq!(heap.next(), model.first_key_value().map_or(u64::MAX, |(key, _)| key.0));
        }
    }

    #[test]
    fn the_wheel_is_never_early_and_late_by_an_eighth_at_most(steps in steps(1 << 49), start in 0u64..1 << 45) {
        let mut wheel = Wheel::new(start);
        (0..16).for_each(|id| wheel.grow(id));
        let mut now = start;
        let mut pending: [Option<(u64, u64)>; 16] = [None; 16];
        for step in steps {
            match step {
                Step::Start(id, delay) => {
                    if pending[id as usize].take().is_some() {
                        wheel.remove(id);
                    }
                    wheel.insert(id, now + delay, now);
                    pending[id as usize] = Some((now, now + delay));
                }
                Step::Cancel(id) => if pending[id as usize].take().is_some() {
                    wheel.remove(id);
                }
                Step::Advance(by) => {
                    let until = now + by;
                    // As a CPU does that is woken at each deadline.
                    loop {
                        now = wheel.next().clamp(now, until);
                        while let Some(id) = wheel.pop_due(now) {
                            let (_, at) = pending[id as usize].take().unwrap();
                            prop_assert!(at <= now, "early");
                        }
                        if now == until {
                            break;
                        }
                    }
                    for (started, at) in pending.into_iter().flatten() {
                        let allowed = (at - started) / 7 + (3 << 20);
                        prop_assert!(now <= at + allowed, "{at} started at {started} is not done at {now}");
                    }
                }
            }
            let empty = pending.iter().all(Option::is_none);
            prop_assert_eq!(wheel.next() == u64::MAX, empty, "idle must not be woken, and nothing forgotten");
        }
    }
}

/// A timer that the CPU can't keep up with came by the port each time: no round was counted, nothing was handed over.
#[test]
fn a_timer_that_is_due_again_when_its_run_ends_has_its_next_run_in_the_next_round() {
    let (_system, owner, port, clock) = stepped();
    let runs = Arc::new(AtomicU64::new(0));
    let (count, time) = (Arc::clone(&runs), Arc::clone(&clock));
    let timer = Timer::precise(owner.cpu(), move |softirq| {
        time.advance(100);
        (count.fetch_add(1, Ordering::Relaxed) < 3).then(|| softirq.now() - 50)
    });
    timer.start(clock.now() + 10);
    clock.advance(10);
    let announced = port.announced();
    tick(&owner);
    assert_eq!(runs.load(Ordering::Relaxed), 4);
    assert_eq!((port.announced() - announced, port.deadline()), (1, None), "once, at the end");
    assert_eq!(owner.cpu().stats().rounds, 4);
}
