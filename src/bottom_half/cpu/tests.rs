use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::*;
use crate::clock::Stepped;
use crate::context::Process;
use crate::system::{Config, System};
use crate::testing::{Gate, Log, Recorder, one_cpu, one_cpu_with, wait_for};

#[test]
fn softirqs_run_on_leaving_the_top_half_in_order_of_priority() {
    let (system, owner, port) = one_cpu();
    let log = Log::default();
    for vector in Vector::ALL {
        let log = log.clone();
        assert!(system.set_handler(vector, move |softirq| log.add(softirq.vector().name())));
    }
    owner.top_half(|top| {
        for vector in Vector::ALL.into_iter().rev() {
            top.raise(vector);
        }
        assert!(log.take().is_empty(), "the top half is not over");
    });
    assert_eq!(log.take(), Vector::ALL.map(Vector::name));
    assert_eq!(port.kicks(), 0, "its own top half needs no kick");
    assert!(!system.set_handler(Vector::Hi, |_| ()), "a handler is set once");
}

#[test]
fn a_raise_from_elsewhere_kicks_once_until_it_is_looked_at() {
    let (system, owner, port) = one_cpu();
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    assert!(system.set_handler(Vector::Block, move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
    for _ in 0..3 {
        owner.cpu().raise(Vector::Block);
    }
    assert_eq!((port.kicks(), runs.load(Ordering::SeqCst)), (1, 0));
    owner.top_half(|_| ());
    assert_eq!(runs.load(Ordering::SeqCst), 1, "activations merge");
    owner.cpu().raise(Vector::Block);
    assert_eq!(port.kicks(), 2);
    let stats = owner.cpu().stats();
    assert_eq!((stats.raised[Vector::Block.index()], stats.run[Vector::Block.index()], stats.merged), (4, 1, 2));
}

#[test]
fn what_never_ends_is_handed_over_after_ten_rounds() {
    let (system, owner, _port) = one_cpu();
    let runs = Arc::new(AtomicU32::new(0));
    let (count, until) = (Arc::clone(&runs), 25);
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&threads);
    assert!(system.set_handler(Vector::NetRx, move |softirq| {
        seen.lock().unwrap().push(std::thread::current().id());
        if count.fetch_add(1, Ordering::SeqCst) + 1 < until {
            softirq.raise(Vector::NetRx);
        }
    }));
    owner.top_half(|top| top.raise(Vector::NetRx));
    wait_for(|| runs.load(Ordering::SeqCst) == until);
    let threads = threads.lock().unwrap();
    let here = threads.iter().filter(|id| **id == std::thread::current().id()).count();
    assert_eq!((here, threads.len()), (10, 25));
    let stats = owner.cpu().stats();
    assert_eq!(stats.handed_over, 1);
    assert!(stats.rounds >= 25);
}

/// The softirq thread is in NET_RX, where it waits until the second gate opens; the first says that it is there.
fn hand_over_at_the_second_round(system: &System) -> (Gate, Gate) {
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let runs = AtomicU32::new(0);
    assert!(system.set_handler(Vector::NetRx, move |softirq| match runs.fetch_add(1, Ordering::SeqCst) {
        0 => softirq.raise(Vector::NetRx),
        _ => {
            entered_there.open();
            gate_there.wait();
        }
    }));
    (entered, gate)
}

#[test]
fn an_owner_has_no_deadline_while_the_softirq_thread_serves() {
    let clock = Arc::new(Stepped::default());
    let config = Config { clock: Arc::clone(&clock) as _, rounds: 1, ..Config::default() };
    let (system, owner, port) = one_cpu_with(config);
    let (entered, gate) = hand_over_at_the_second_round(&system);
    let ran = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&ran);
    let due = crate::Timer::precise(owner.cpu(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    });
    let later = crate::Timer::precise(owner.cpu(), |_| None);
    owner.top_half(|top| top.raise(Vector::NetRx));
    entered.wait();
    later.start(1_000_000);
    due.start(10);
    clock.advance(20);
    owner.top_half(|top| owner.expire(top));
    assert_eq!(owner.cpu().next_deadline(), Some(10), "only the softirq thread can run it");
    assert_eq!(owner.alarm(), None, "the owner would turn round and round until then");
    gate.open();
    wait_for(|| ran.load(Ordering::SeqCst) == 1 && !owner.cpu().serving.is_handed_over());
    assert_eq!((owner.alarm(), port.deadline()), (Some(1_000_000), Some(1_000_000)));
}

#[test]
fn an_owner_hears_of_the_deadline_when_the_softirq_thread_is_done() {
    let clock = Arc::new(Stepped::default());
    let (system, owner, port) = one_cpu_with(Config { clock, rounds: 1, ..Config::default() });
    let (entered, gate) = hand_over_at_the_second_round(&system);
    let timer = crate::Timer::precise(owner.cpu(), |_| None);
    timer.start(1_000_000);
    owner.top_half(|top| top.raise(Vector::NetRx));
    entered.wait();
    let before = port.announced();
    gate.open();
    // Nothing else wakes an owner that sleeps without a deadline.
    wait_for(|| port.announced() > before);
    assert_eq!(owner.alarm(), Some(1_000_000));
}

/// How many rounds the owner has of a softirq that never ends, with `each` in each, before it hands over.
fn rounds_of_the_owner(config: Config, each: impl Fn() + Send + Sync + 'static) -> u32 {
    let (system, owner, _port) = one_cpu_with(config);
    let owner_thread = std::thread::current().id();
    let (here, there) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (Arc::clone(&here), Arc::clone(&there));
    assert!(system.set_handler(Vector::Block, move |softirq| {
        let is_here = std::thread::current().id() == owner_thread;
        let count = if is_here { &counts.0 } else { &counts.1 };
        count.fetch_add(1, Ordering::SeqCst);
        each();
        if is_here {
            softirq.raise(Vector::Block);
        }
    }));
    owner.top_half(|top| top.raise(Vector::Block));
    wait_for(|| there.load(Ordering::SeqCst) == 1);
    assert_eq!(owner.cpu().stats().handed_over, 1);
    here.load(Ordering::SeqCst)
}

#[test]
fn a_used_up_budget_hands_over_before_ten_rounds() {
    let clock = Arc::new(Stepped::default());
    let config = Config { clock: Arc::clone(&clock) as _, budget: 1000, ..Config::default() };
    assert_eq!(rounds_of_the_owner(config, move || clock.advance(600)), 2);
}

/// A clock that knows how long the one thread there is has run.
#[derive(Default)]
struct Busy {
    now: AtomicU64,
    ran: AtomicU64,
}

impl Busy {
    fn advance(&self, waited: u64, ran: u64) {
        self.now.fetch_add(waited + ran, Ordering::SeqCst);
        self.ran.fetch_add(ran, Ordering::SeqCst);
    }
}

impl Clock for Busy {
    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn ran(&self) -> Option<u64> {
        Some(self.ran.load(Ordering::SeqCst))
    }
}

/// Red when: a busy host, which lets the owner wait, is taken for too much work (then everything waits for the softirq thread, which such a
/// host lets wait far longer), or waiting hides that there is too much.
#[test]
fn waiting_for_a_processor_uses_up_no_budget() {
    for (waited, ran, rounds) in [(5000, 50, 10), (0, 600, 4), (5000, 600, 3)] {
        let clock = Arc::new(Busy::default());
        let config = Config { clock: Arc::clone(&clock) as _, budget: 1000, rounds: 10, ..Config::default() };
        let here = rounds_of_the_owner(config, move || clock.advance(waited, ran));
        assert_eq!(here, rounds, "waits {waited}, runs {ran}");
    }
}

/// Red when: the softirq thread has so low a priority that it stands still while its processor is busy.
#[test]
fn the_softirq_thread_has_a_share_of_a_busy_processor() {
    const OWN: u64 = 500_000_000;
    let ran = Arc::new(AtomicU64::new(0));
    let measured = Arc::clone(&ran);
    // In a thread of its own: the system's threads inherit its one processor.
    let busy = std::thread::spawn(move || {
        let allowed = |cpu: &usize| sys::thread::run_on_cpus(&[*cpu]).is_ok();
        assert!((0..1024).any(|cpu| allowed(&cpu)), "a processor to run on");
        let (system, owner, _port) = one_cpu();
        let owner_thread = std::thread::current().id();
        let over = Arc::new(AtomicU32::new(0));
        let is_over = Arc::clone(&over);
        assert!(system.set_handler(Vector::Block, move |softirq| {
            if std::thread::current().id() != owner_thread {
                measured.store(sys::clock::thread_cpu_ns(), Ordering::SeqCst);
            }
            if is_over.load(Ordering::SeqCst) == 0 {
                softirq.raise(Vector::Block);
            }
        }));
        owner.top_half(|top| top.raise(Vector::Block));
        assert_eq!(owner.cpu().stats().handed_over, 1);
        let end = sys::clock::thread_cpu_ns() + OWN;
        while sys::clock::thread_cpu_ns() < end {}
        over.store(1, Ordering::SeqCst);
    });
    busy.join().unwrap();
    // A fourth of all is a third of ours; the lowest priority would have a seventieth of ours.
    let ran = ran.load(Ordering::SeqCst);
    assert!(ran > OWN / 10, "{ran} ns of its own beside {OWN}");
}

#[test]
fn masking_nests_and_runs_what_is_pending_at_its_end() {
    let (system, owner, _port) = one_cpu();
    let log = Log::default();
    let seen = log.clone();
    assert!(system.set_handler(Vector::Sched, move |_| seen.add("run")));
    let process = Process::of_thread();
    let outer = owner.mask(&process);
    let inner = owner.mask(&process);
    assert_eq!(owner.masked(), 2);
    owner.top_half(|top| top.raise(Vector::Sched));
    assert!(log.take().is_empty(), "masked");
    drop(inner);
    assert!(log.take().is_empty(), "still masked");
    drop(outer);
    assert_eq!(log.take(), ["run"]);
}

#[test]
fn masking_keeps_the_softirq_thread_out_too() {
    let (system, owner, _port) = one_cpu();
    let inside = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&inside);
    let stop = Arc::new(AtomicU32::new(0));
    let stopped = Arc::clone(&stop);
    assert!(system.set_handler(Vector::NetRx, move |softirq| {
        seen.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        seen.fetch_sub(1, Ordering::SeqCst);
        if stopped.load(Ordering::SeqCst) == 0 {
            softirq.raise(Vector::NetRx);
        }
    }));
    owner.top_half(|top| top.raise(Vector::NetRx));
    let process = Process::of_thread();
    for _ in 0..50 {
        let _masked = owner.mask(&process);
        for _ in 0..10 {
            assert_eq!(inside.load(Ordering::SeqCst), 0, "a softirq runs while they are masked");
            std::thread::yield_now();
        }
    }
    stop.store(1, Ordering::SeqCst);
    wait_for(|| {
        owner.top_half(|_| ());
        owner.cpu().serving.pending() == 0
    });
}

#[test]
fn the_same_vector_runs_on_two_cpus_at_once() {
    let ports = [Arc::new(Recorder::default()), Arc::new(Recorder::default())];
    let (system, owners) = System::new(Config::default(), ports.map(|port| port as _).to_vec()).unwrap();
    let inside = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&inside);
    // Each waits for the other: this ends only if both are in it.
    assert!(system.set_handler(Vector::NetTx, move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        wait_for(|| seen.load(Ordering::SeqCst) == 2);
    }));
    std::thread::scope(|scope| {
        for owner in owners {
            scope.spawn(move || owner.top_half(|top| top.raise(Vector::NetTx)));
        }
    });
    assert_eq!(inside.load(Ordering::SeqCst), 2);
}

#[test]
fn nested_top_halves_run_softirqs_once_at_the_end() {
    let (system, owner, _port) = one_cpu();
    let log = Log::default();
    let seen = log.clone();
    assert!(system.set_handler(Vector::Rcu, move |_| seen.add("run")));
    owner.top_half(|top| {
        top.raise(Vector::Rcu);
        owner.top_half(|top| top.raise(Vector::Rcu));
        assert!(log.take().is_empty(), "the outer top half is not over");
    });
    assert_eq!(log.take(), ["run"]);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "about to block")]
fn blocking_in_a_softirq_is_found_at_run_time() {
    let (system, owner, _port) = one_cpu();
    assert!(system.set_handler(Vector::Hi, |_| _ = Process::of_thread()));
    owner.top_half(|top| top.raise(Vector::Hi));
}

#[test]
fn a_thread_of_its_own_serves_kicks_and_deadlines() {
    let port = Arc::new(ThreadPort::default());
    let (system, owners) = System::new(Config::default(), vec![Arc::clone(&port) as _]).unwrap();
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    assert!(system.set_handler(Vector::Block, move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
    let expired = Arc::clone(&ran);
    let timer = crate::Timer::precise(&system.cpus()[0], move |_| {
        expired.fetch_add(100, Ordering::SeqCst);
        None
    });
    let stop = Arc::new(AtomicStop::default());
    std::thread::scope(|scope| {
        let (port_there, stop_there) = (Arc::clone(&port), Arc::clone(&stop));
        for owner in owners {
            let (port, stop) = (Arc::clone(&port_there), Arc::clone(&stop_there));
            scope.spawn(move || owner.run(&port, &stop));
        }
        system.cpus()[0].raise(Vector::Block);
        wait_for(|| ran.load(Ordering::SeqCst) == 1);
        timer.start(system.clock().now() + 1);
        wait_for(|| ran.load(Ordering::SeqCst) == 101);
        stop.stop();
        port.wake();
    });
    system.shutdown(None).unwrap();
}

#[test]
fn the_tables_read_like_the_kernels() {
    let (system, owner, _port) = one_cpu_with(Config { measure_every: 1, ..Config::default() });
    owner.top_half(|top| top.raise(Vector::NetRx));
    let table = system.softirqs_table();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0].split_whitespace().collect::<Vec<_>>(), ["CPU0"]);
    let names: Vec<_> = rows[1..].iter().map(|row| row.split(':').next().unwrap().trim()).collect();
    assert_eq!(names, Vector::ALL.map(Vector::name));
    assert_eq!(rows[4].split_whitespace().collect::<Vec<_>>(), ["NET_RX:", "1"]);
    assert_eq!(owner.cpu().stats().latency.len(), 1);
    assert!(system.tables().contains("HANDOVER"));
}
