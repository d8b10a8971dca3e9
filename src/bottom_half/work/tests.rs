use std::sync::atomic::AtomicU32 as StdU32;
use std::thread;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, Stepped};
use crate::system::{Config, Stuck, System};
use crate::testing::{Gate, Log, Recorder, one_cpu, one_cpu_with, wait_for};

fn process() -> Process<'static> {
    Process::of_thread()
}

fn two_cpus(config: Config) -> (System, Vec<crate::CpuOwner>) {
    let ports = [Arc::new(Recorder::default()), Arc::new(Recorder::default())];
    System::new(config, ports.map(|port| port as _).to_vec()).unwrap()
}

const KINDS: [QueueKind; 3] = [QueueKind::Bound, QueueKind::Unbound, QueueKind::Ordered];

#[test]
fn items_run_in_a_worker_and_can_be_queued_again() {
    let (system, _owner, _port) = one_cpu();
    for kind in KINDS {
        let queue = system.queue("q", kind);
        let log = Log::default();
        let seen = log.clone();
        let work = queue.work(move |_| seen.add(thread::current().name().unwrap_or("?")));
        for _ in 0..3 {
            assert_eq!(work.queue(), Queued::Yes);
            work.flush(&process());
        }
        let names = log.take();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| name.starts_with("worker/")), "{names:?}");
    }
}

#[test]
fn a_pending_item_queued_again_is_merged_and_one_that_runs_runs_again() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Ordered);
    let (entered, gate) = (Gate::default(), Gate::default());
    let runs = Arc::new(StdU32::new(0));
    let (entered_there, gate_there, count) = (entered.clone(), gate.clone(), Arc::clone(&runs));
    let work = queue.work(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        entered_there.open();
        gate_there.wait();
    });
    assert_eq!(work.queue(), Queued::Yes);
    entered.wait();
    assert!(work.is_running() && !work.is_pending());
    assert_eq!([work.queue(), work.queue(), work.queue()], [Queued::Yes, Queued::Already, Queued::Already]);
    gate.open();
    queue.flush(&process());
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let stats = queue.stats();
    assert_eq!((stats.queued, stats.merged, stats.run), (2, 2, 2));
}

#[test]
fn an_ordered_queue_keeps_its_order_one_at_a_time() {
    let (system, _owner, _port) = one_cpu_with(Config { unbound_limit: 4, ..Config::default() });
    let queue = system.queue("q", QueueKind::Ordered);
    let log = Log::default();
    let inside = Arc::new(StdU32::new(0));
    let items: Vec<_> = (0..100)
        .map(|n| {
            let (log, inside) = (log.clone(), Arc::clone(&inside));
            queue.work(move |process| {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                // Blocking does not let the next one start.
                process.block(thread::yield_now);
                log.add(&n.to_string());
                inside.fetch_sub(1, Ordering::SeqCst);
            })
        })
        .collect();
    items.iter().for_each(|item| assert_eq!(item.queue(), Queued::Yes));
    queue.flush(&process());
    assert_eq!(log.take(), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_blocked_worker_is_replaced_and_the_queue_goes_on() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Bound);
    let gate = Gate::default();
    let blocked: Vec<_> = (0..5)
        .map(|_| {
            let gate = gate.clone();
            queue.work(move |process| process.block(|| gate.wait()))
        })
        .collect();
    blocked.iter().for_each(|item| assert_eq!(item.queue(), Queued::Yes));
    let opener = gate.clone();
    // One runs at a time on this CPU; it gets there only if blocked ones don't count.
    let last = queue.work(move |_| opener.open());
    assert_eq!(last.queue(), Queued::Yes);
    queue.flush(&process());
    assert_eq!(queue.stats().run, 6);
}

#[test]
fn one_at_a_time_runs_on_a_cpu_of_a_bound_queue() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Bound);
    let inside = Arc::new(StdU32::new(0));
    let items: Vec<_> = (0..50)
        .map(|_| {
            let inside = Arc::clone(&inside);
            queue.work(move |_| {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two run");
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
            })
        })
        .collect();
    items.iter().for_each(|item| assert_eq!(item.queue(), Queued::Yes));
    queue.flush(&process());
    assert_eq!(queue.stats().run, 50);
}

#[test]
fn work_queued_in_a_top_half_runs_on_that_cpu_and_named_cpus_are_obeyed() {
    let (system, owners) = two_cpus(Config::default());
    let log = Log::default();
    let seen = log.clone();
    let work = system.shared_queue().work(move |_| seen.add(thread::current().name().unwrap_or("?")));
    assert_eq!(owners[1].top_half(|_| work.queue()), Queued::Yes);
    work.flush(&process());
    assert_eq!(work.queue_on(owners[0].cpu()), Queued::Yes);
    work.flush(&process());
    assert_eq!(log.take(), ["worker/1", "worker/0"]);
}

#[test]
fn high_priority_queues_have_workers_of_their_own() {
    let (system, _owner, _port) = one_cpu();
    let log = Log::default();
    let seen = log.clone();
    let work = system.high_priority_queue("hi", QueueKind::Bound).work(move |_| {
        seen.add(thread::current().name().unwrap_or("?"));
    });
    assert_eq!(work.queue(), Queued::Yes);
    work.flush(&process());
    assert_eq!(log.take(), ["worker/0H"]);
}

#[test]
fn an_item_never_runs_on_two_workers_at_once() {
    let (system, _owner, _port) = one_cpu_with(Config { unbound_limit: 4, ..Config::default() });
    let queue = system.queue("q", QueueKind::Unbound);
    let inside = Arc::new(StdU32::new(0));
    let seen = Arc::clone(&inside);
    let work = queue.work(move |process| {
        assert_eq!(seen.fetch_add(1, Ordering::SeqCst), 0, "on two workers at once");
        process.block(thread::yield_now);
        seen.fetch_sub(1, Ordering::SeqCst);
    });
    let queued = StdU32::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if work.queue() == Queued::Yes {
                        queued.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    queue.flush(&process());
    assert_eq!(queue.stats().run, u64::from(queued.load(Ordering::SeqCst)));
}

#[test]
fn cancel_takes_back_what_is_pending_and_waits_for_what_runs() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Ordered);
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    // It queues itself again and again: only cancel-and-wait ends it.
    let first = queue.work(move |process| {
        entered_there.open();
        gate_there.wait();
        let _ = process.requeue();
    });
    let second = queue.work(|_| panic!("cancelled, and ran"));
    assert_eq!([first.queue(), second.queue()], [Queued::Yes, Queued::Yes]);
    entered.wait();
    assert!(second.cancel() && !second.cancel());
    assert!(!first.cancel(), "it runs: not pending");
    gate.open();
    first.cancel_and_wait(&process());
    assert!(!first.is_running() && !first.is_pending());
    queue.flush(&process());
    assert_eq!(first.queue(), Queued::Yes, "it can be queued again");
    first.cancel_and_wait(&process());
}

#[test]
fn an_item_may_cancel_itself() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Bound);
    let own: Arc<std::sync::OnceLock<Work>> = Arc::default();
    let there = Arc::clone(&own);
    let work = queue.work(move |process| {
        assert_eq!(process.requeue(), Some(Queued::Yes));
        assert!(there.get().unwrap().cancel_and_wait(process), "the new activation was pending");
    });
    own.set(work).unwrap();
    assert_eq!(own.get().unwrap().queue(), Queued::Yes);
    queue.flush(&process());
    assert_eq!(queue.stats().run, 1);
}

#[test]
fn flush_waits_for_what_was_queued_before_and_no_more() {
    let (system, _owner, _port) = one_cpu_with(Config { unbound_limit: 3, ..Config::default() });
    let queue = system.queue("q", QueueKind::Unbound);
    let (early_gate, late_gate) = (Gate::default(), Gate::default());
    let (early_there, late_there) = (early_gate.clone(), late_gate.clone());
    let early = queue.work(move |process| process.block(|| early_there.wait()));
    let late = queue.work(move |process| process.block(|| late_there.wait()));
    assert_eq!(early.queue(), Queued::Yes);
    let state = StdU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            state.store(1, Ordering::SeqCst);
            queue.flush(&process());
            state.store(2, Ordering::SeqCst);
        });
        wait_for(|| queue.0.group.pools[0].lock().queues.get(queue.0.index).unwrap().colour == 1);
        // Comes later, never ends by itself.
        assert_eq!(late.queue(), Queued::Yes);
        wait_for(|| late.is_running());
        assert_eq!(state.load(Ordering::SeqCst), 1, "the flush does not wait");
        early_gate.open();
        wait_for(|| state.load(Ordering::SeqCst) == 2);
        assert!(late.is_running());
        late_gate.open();
    });
}

#[test]
fn more_flushes_than_colours_all_end() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Ordered);
    let gate = Gate::default();
    let there = gate.clone();
    let first = queue.work(move |_| there.wait());
    let items: Vec<_> = (0..40).map(|_| queue.work(|_| ())).collect();
    assert_eq!(first.queue(), Queued::Yes);
    let started = StdU32::new(0);
    thread::scope(|scope| {
        for item in &items {
            assert_eq!(item.queue(), Queued::Yes);
            let (queue, started) = (&queue, &started);
            scope.spawn(move || {
                started.fetch_add(1, Ordering::SeqCst);
                queue.flush(&process());
                assert!(!item.is_pending());
            });
        }
        wait_for(|| started.load(Ordering::SeqCst) == 40);
        gate.open();
    });
}

#[test]
fn a_worker_that_flushes_its_own_queue_does_not_deadlock() {
    let (system, _owner, _port) = one_cpu();
    for kind in KINDS {
        let queue = system.queue("q", kind);
        let log = Log::default();
        let gate = Gate::default();
        let (own, log_there, gate_there) = (queue.clone(), log.clone(), gate.clone());
        let flusher = queue.work(move |process| {
            gate_there.wait();
            own.flush(process);
            log_there.add("flushed");
        });
        let (own, log_there) = (queue.clone(), log.clone());
        // It flushes, too: they don't wait for each other.
        let behind = queue.work(move |process| {
            log_there.add("behind");
            own.flush(process);
        });
        assert_eq!([flusher.queue(), behind.queue()], [Queued::Yes, Queued::Yes]);
        gate.open();
        queue.flush(&process());
        let order = log.take();
        assert_eq!(order.len(), 2, "{kind:?}");
        assert_eq!(order[0], "behind", "{kind:?}: the flush did not wait for what was queued before it");
    }
}

#[test]
fn destroying_drains_and_then_refuses() {
    let (system, _owner, _port) = one_cpu();
    for kind in KINDS {
        let queue = system.queue("q", kind);
        let (gate, runs) = (Gate::default(), Arc::new(StdU32::new(0)));
        let (gate_there, count) = (gate.clone(), Arc::clone(&runs));
        let chain = queue.work(move |process| {
            gate_there.wait();
            if count.fetch_add(1, Ordering::SeqCst) < 4 {
                assert_eq!(process.requeue(), Some(Queued::Yes), "its own items may go on");
            }
        });
        let other = queue.work(|_| ());
        assert_eq!(chain.queue(), Queued::Yes);
        thread::scope(|scope| {
            scope.spawn(|| queue.destroy(&process()));
            wait_for(|| queue.0.is_closing());
            assert_eq!(other.queue(), Queued::Refused);
            gate.open();
        });
        assert_eq!(runs.load(Ordering::SeqCst), 5);
        assert_eq!(chain.queue(), Queued::Refused);
    }
}

#[test]
fn what_is_queued_while_a_queue_is_destroyed_is_run_or_refused() {
    for _ in 0..200 {
        let (system, _owner, _port) = one_cpu();
        let queue = system.queue("q", QueueKind::Unbound);
        let runs = Arc::new(StdU32::new(0));
        let count = Arc::clone(&runs);
        let work = queue.work(move |_| _ = count.fetch_add(1, Ordering::SeqCst));
        let accepted = thread::scope(|scope| {
            let queuer = scope.spawn(|| work.queue() == Queued::Yes);
            queue.destroy(&process());
            let before = runs.load(Ordering::SeqCst);
            let accepted = queuer.join().unwrap();
            assert_eq!(before, u32::from(accepted), "it ran after the end of its queue, or never");
            accepted
        });
        system.shutdown(None).unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), u32::from(accepted));
    }
}

#[test]
fn delayed_work_waits_for_its_time_and_says_when_it_is_pending() {
    let clock = Arc::new(Stepped::default());
    let config = Config { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Config::default() };
    let (system, owners) = two_cpus(config);
    let log = Log::default();
    let seen = log.clone();
    let cpu = owners[1].cpu();
    let work = DelayedWork::new(system.shared_queue(), cpu, move |_| seen.add(thread::current().name().unwrap_or("?")));
    let tick = |by| {
        clock.advance(by);
        owners[1].top_half(|top| owners[1].expire(top));
    };
    assert_eq!([work.queue_after(50_000_000), work.queue_after(1)], [Queued::Yes, Queued::Already]);
    tick(40_000_000);
    assert!(work.is_pending());
    assert!(work.modify(100_000_000));
    tick(60_000_000);
    assert!(work.is_pending() && log.len() == 0);
    tick(60_000_000);
    wait_for(|| log.len() == 1);
    assert_eq!(log.take(), ["worker/1"], "on its named CPU");
    wait_for(|| !work.is_pending());
    assert_eq!(work.queue_after(10_000_000), Queued::Yes);
    assert!(work.cancel() && !work.is_pending());
    assert_eq!(work.queue_after(10_000_000), Queued::Yes);
    work.flush(&process());
    assert_eq!(log.take().len(), 1, "a flush does not wait for the time");
    assert!(!work.cancel_and_wait(&process()));
}

#[test]
fn without_threads_the_rescuer_does_the_work() {
    // One worker, which blocks, and no other may be made.
    let (system, _owner, _port) = one_cpu_with(Config { max_workers: 1, ..Config::default() });
    let queue = system.queue("q", QueueKind::Bound);
    let gate = Gate::default();
    let there = gate.clone();
    let blocked = queue.work(move |process| process.block(|| there.wait()));
    let log = Log::default();
    let (seen, opener) = (log.clone(), gate.clone());
    let other = queue.work(move |_| {
        seen.add(thread::current().name().unwrap_or("?"));
        opener.open();
    });
    assert_eq!([blocked.queue(), other.queue()], [Queued::Yes, Queued::Yes]);
    queue.flush(&process());
    assert_eq!(log.take(), ["rescuer"]);
}

#[test]
fn a_hog_is_reported_once_and_the_pool_goes_on() {
    let clock = Arc::new(Stepped::default());
    let config =
        Config { clock: Arc::clone(&clock) as Arc<dyn Clock>, watchdog_period: 1_000_000_000, ..Config::default() };
    let (system, owner, _port) = one_cpu_with(config);
    let queue = system.queue("q", QueueKind::Bound);
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    // It does not say that it blocks.
    let hog = queue.work(move |_| {
        entered_there.open();
        gate_there.wait();
    });
    let opener = gate.clone();
    let other = queue.work(move |_| opener.open());
    assert_eq!(hog.queue(), Queued::Yes);
    entered.wait();
    assert_eq!(other.queue(), Queued::Yes);
    for _ in 0..10 {
        clock.advance(500_000_000);
        owner.top_half(|top| owner.expire(top));
    }
    queue.flush(&process());
    let hogs = system.hogs();
    assert_eq!(hogs.len(), 1);
    assert!(hogs[0].function.contains("a_hog_is_reported"), "{hogs:?}");
    assert_eq!((hogs[0].queue.as_str(), hogs[0].worker.as_str()), ("q", "worker/0"));
    // Nobody works any more: nothing ticks.
    clock.advance(10_000_000_000);
    wait_for(|| {
        owner.top_half(|top| owner.expire(top));
        owner.cpu().next_deadline().is_none()
    });
}

#[test]
fn a_panic_in_an_item_is_not_the_end_of_its_worker() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Bound);
    let bad = queue.work(|_| panic!("on purpose"));
    let good = queue.work(|_| ());
    assert_eq!([bad.queue(), good.queue()], [Queued::Yes, Queued::Yes]);
    queue.flush(&process());
    assert_eq!(queue.stats().run, 2);
}

#[test]
fn a_dropped_item_is_cancelled_and_forgotten() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("q", QueueKind::Ordered);
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let alive = Arc::new(());
    let (there, too) = (Arc::clone(&alive), Arc::clone(&alive));
    let running = queue.work(move |_| {
        let _there = &there;
        entered_there.open();
        gate_there.wait();
    });
    let pending = queue.work(move |_| panic!("dropped, and ran: {too:?}"));
    assert_eq!([running.queue(), pending.queue()], [Queued::Yes, Queued::Yes]);
    entered.wait();
    drop((running, pending));
    gate.open();
    queue.flush(&process());
    wait_for(|| Arc::strong_count(&alive) == 1);
}

#[test]
fn shutdown_says_who_would_not_stop_and_does_not_hang() {
    let (system, _owner, _port) = one_cpu();
    let queue = system.queue("stubborn", QueueKind::Bound);
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let work = queue.work(move |_| {
        entered_there.open();
        gate_there.wait();
    });
    let never = queue.work(|_| panic!("it was cancelled"));
    assert_eq!([work.queue(), never.queue()], [Queued::Yes, Queued::Yes]);
    entered.wait();
    let Err(Stuck(who)) = system.shutdown(Some(Duration::ZERO)) else { panic!("it stopped") };
    assert_eq!(who.len(), 1, "{who:?}");
    assert!(who[0].starts_with("worker/0: ") && who[0].ends_with(" of queue stubborn"), "{who:?}");
    assert!(!never.is_pending());
    assert_eq!(never.queue(), Queued::Refused);
    gate.open();
    system.shutdown(None).unwrap();
}

#[test]
fn a_softirq_that_would_not_stop_is_named() {
    let (system, owner, _port) = one_cpu_with(Config { rounds: 1, ..Config::default() });
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let first = StdU32::new(0);
    assert!(system.set_handler(crate::Vector::NetRx, move |softirq| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            softirq.raise(crate::Vector::NetRx);
        } else {
            entered_there.open();
            gate_there.wait();
        }
    }));
    owner.top_half(|top| top.raise(crate::Vector::NetRx));
    entered.wait();
    let stuck = system.shutdown(Some(Duration::ZERO)).unwrap_err();
    assert_eq!(stuck.0, ["softirq/0: in NET_RX"]);
    gate.open();
    system.shutdown(None).unwrap();
}

#[test]
fn latencies_are_measured() {
    let clock = Arc::new(Stepped::default());
    let config = Config { clock: Arc::clone(&clock) as Arc<dyn Clock>, measure_every: 1, ..Config::default() };
    let (system, _owner, _port) = one_cpu_with(config);
    let queue = system.queue("q", QueueKind::Ordered);
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let first = queue.work(move |_| {
        entered_there.open();
        gate_there.wait();
    });
    let second = queue.work(|_| ());
    clock.advance(1);
    assert_eq!(first.queue(), Queued::Yes);
    entered.wait();
    assert_eq!(second.queue(), Queued::Yes);
    clock.advance(5_000);
    gate.open();
    queue.flush(&process());
    let stats = queue.stats();
    assert_eq!((stats.latency.len(), stats.longest), (2, 5_000));
    assert!((4_900..=5_100).contains(&stats.latency.max()), "{}", stats.latency.max());
}
