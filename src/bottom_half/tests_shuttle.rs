//! Runs of the whole under a scheduler that tries many interleavings at random; a failure prints its schedule, which can
//! be replayed. `RUSTFLAGS="--cfg shuttle" cargo test --release -p bottom_half --lib shuttle`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shuttle::thread;

use crate::{
    AtomicStop, Clock, Config, CpuOwner, Process, QueueKind, Queued, Scheduled, Stepped, System, Tasklet, ThreadPort,
    Timer, Vector, Work,
};

/// Interleavings of each run.
const RUNS: usize = 1000;

/// For what ends only if every thread gets its turn.
fn explore_fairly(run: fn()) {
    shuttle::check_random(run, RUNS);
}

fn explore(run: fn()) {
    explore_fairly(run);
    shuttle::check_pct(run, RUNS, 3);
}

/// A system whose CPUs are served by threads of their own.
struct Served {
    system: System,
    clock: Arc<Stepped>,
    ports: Vec<Arc<ThreadPort>>,
    stop: Arc<AtomicStop>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Served {
    fn new(cpus: usize, config: Config) -> Self {
        let clock = Arc::new(Stepped::default());
        let ports: Vec<_> = (0..cpus).map(|_| Arc::new(ThreadPort::default())).collect();
        let as_ports = ports.iter().map(|port| Arc::clone(port) as _).collect();
        let (system, owners) = System::new(Config { clock: Arc::clone(&clock) as _, ..config }, as_ports).unwrap();
        let stop = Arc::new(AtomicStop::default());
        let serve = |(owner, port): (CpuOwner, &Arc<ThreadPort>)| {
            let (port, stop) = (Arc::clone(port), Arc::clone(&stop));
            thread::spawn(move || owner.run(&port, &stop))
        };
        let threads = owners.into_iter().zip(&ports).map(serve).collect();
        Self { system, clock, ports, stop, threads }
    }

    fn end(self) {
        self.stop.stop();
        self.ports.iter().for_each(|port| port.wake());
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.system.shutdown(None).unwrap();
    }
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

#[test]
fn shuttle_softirqs_and_tasklets_are_never_left_behind() {
    explore(|| {
        // One round: nearly all goes through the softirq thread.
        let served = Served::new(2, Config { rounds: 1, ..Config::default() });
        let inside = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&inside);
        let tasklet = Arc::new(Tasklet::new(&served.system, &served.system.cpus()[0], move |softirq| {
            assert_eq!(seen.fetch_add(1, Ordering::SeqCst), 0, "on two CPUs at once");
            softirq.raise(Vector::Rcu);
            seen.fetch_sub(1, Ordering::SeqCst);
        }));
        let callers = [0, 1].map(|cpu| {
            let (tasklet, cpu) = (Arc::clone(&tasklet), Arc::clone(&served.system.cpus()[cpu]));
            thread::spawn(move || (0..2).filter(|_| tasklet.schedule_on(&cpu) == Scheduled::Yes).count() as u64)
        });
        tasklet.disable_and_wait(&Process::of_thread());
        assert_eq!(inside.load(Ordering::SeqCst), 0);
        tasklet.enable();
        let scheduled: u64 = callers.map(|caller| caller.join().unwrap()).iter().sum();
        wait_for(|| !tasklet.is_scheduled());
        tasklet.kill(&Process::of_thread());
        assert_eq!(tasklet.runs(), scheduled);
        served.end();
    });
}

#[test]
fn shuttle_work_is_run_once_for_each_activation_and_flushed() {
    explore(|| {
        let served = Served::new(1, Config { unbound_limit: 2, ..Config::default() });
        let queue = served.system.queue("q", QueueKind::Unbound);
        let (runs, inside) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (count, seen) = (Arc::clone(&runs), Arc::clone(&inside));
        let work = Arc::new(queue.work(move |process| {
            assert_eq!(seen.fetch_add(1, Ordering::SeqCst), 0, "on two workers at once");
            process.block(thread::yield_now);
            count.fetch_add(1, Ordering::SeqCst);
            seen.fetch_sub(1, Ordering::SeqCst);
        }));
        let other = Arc::clone(&work);
        let caller = thread::spawn(move || u32::from(other.queue() == Queued::Yes));
        let mut queued = u32::from(work.queue() == Queued::Yes);
        work.flush(&Process::of_thread());
        assert!(runs.load(Ordering::SeqCst) >= 1, "flushed, and it has not run");
        queued += caller.join().unwrap();
        queue.flush(&Process::of_thread());
        assert_eq!(runs.load(Ordering::SeqCst), queued);
        served.end();
    });
}

#[test]
fn shuttle_a_flush_finds_what_another_thread_queues_on_another_cpu() {
    explore(|| {
        let served = Served::new(2, Config::default());
        let queue = served.system.queue("q", QueueKind::Bound);
        let runs = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&runs);
        let work = Arc::new(queue.work(move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
        // It has run in the first pool.
        assert_eq!(work.queue(), Queued::Yes);
        work.flush(&Process::of_thread());
        let (other, cpu) = (Arc::clone(&work), Arc::clone(&served.system.cpus()[1]));
        let caller = thread::spawn(move || u32::from(other.queue_on(&cpu) == Queued::Yes));
        let queued = u32::from(work.queue() == Queued::Yes);
        work.flush(&Process::of_thread());
        assert!(runs.load(Ordering::SeqCst) >= 2, "flushed, and it has not run");
        let queued = 1 + queued + caller.join().unwrap();
        queue.flush(&Process::of_thread());
        assert_eq!(runs.load(Ordering::SeqCst), queued);
        served.end();
    });
}

#[test]
fn shuttle_cancelling_beats_an_item_that_queues_itself() {
    explore_fairly(|| {
        let served = Served::new(1, Config::default());
        let queue = served.system.queue("q", QueueKind::Bound);
        let work = queue.work(|process| _ = process.requeue());
        assert_eq!(work.queue(), Queued::Yes);
        work.cancel_and_wait(&Process::of_thread());
        assert!(!work.is_pending() && !work.is_running());
        served.end();
    });
}

#[test]
fn shuttle_cancelling_takes_back_what_another_thread_is_about_to_push() {
    explore(|| {
        let served = Served::new(2, Config::default());
        let queue = served.system.queue("q", QueueKind::Bound);
        let runs = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&runs);
        let work = Arc::new(queue.work(move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
        let (other, cpu) = (Arc::clone(&work), Arc::clone(&served.system.cpus()[1]));
        let caller = thread::spawn(move || _ = other.queue_on(&cpu));
        // The other thread's one call has made it pending already, or may do so after the cancelling.
        let is_all = work.queue() == Queued::Already;
        work.cancel_and_wait(&Process::of_thread());
        let before = runs.load(Ordering::SeqCst);
        assert!(!is_all || !work.is_pending() && !work.is_running());
        caller.join().unwrap();
        queue.flush(&Process::of_thread());
        assert!(!is_all || runs.load(Ordering::SeqCst) == before, "cancelled, and it has run afterwards");
        served.end();
    });
}

#[test]
fn shuttle_an_item_that_cancels_itself_takes_back_what_another_thread_is_about_to_push() {
    explore(|| {
        let served = Served::new(1, Config::default());
        let queue = served.system.queue("q", QueueKind::Bound);
        let own: Arc<std::sync::OnceLock<Arc<Work>>> = Arc::default();
        let there = Arc::clone(&own);
        let work = Arc::new(queue.work(move |process| {
            let Some(own) = there.get() else { return };
            wait_for(|| own.is_pending());
            own.cancel_and_wait(process);
            assert!(!own.is_pending(), "cancelled, and it is pending");
        }));
        own.set(Arc::clone(&work)).unwrap_or_else(|_| panic!("set once"));
        assert_eq!(work.queue(), Queued::Yes);
        wait_for(|| work.is_running());
        assert_eq!(work.queue(), Queued::Yes);
        queue.flush(&Process::of_thread());
        served.end();
    });
}

#[test]
fn shuttle_destroying_runs_or_refuses_what_comes_late() {
    explore(|| {
        let served = Served::new(1, Config::default());
        let queue = served.system.queue("q", QueueKind::Ordered);
        let runs = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&runs);
        let work = Arc::new(queue.work(move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
        let late = Arc::clone(&work);
        let caller = thread::spawn(move || late.queue() == Queued::Yes);
        queue.destroy(&Process::of_thread());
        let before = runs.load(Ordering::SeqCst);
        assert_eq!(before, u32::from(caller.join().unwrap()));
        served.end();
        assert_eq!(runs.load(Ordering::SeqCst), before);
    });
}

#[test]
fn shuttle_flushing_ones_own_queue_ends() {
    explore(|| {
        let served = Served::new(1, Config::default());
        let queue = served.system.queue("q", QueueKind::Ordered);
        let (first, second) = (queue.clone(), queue.clone());
        let items = [queue.work(move |process| first.flush(process)), queue.work(move |process| second.flush(process))];
        items.iter().for_each(|item| assert_eq!(item.queue(), Queued::Yes));
        queue.flush(&Process::of_thread());
        assert!(items.iter().all(|item| !item.is_running() && !item.is_pending()));
        served.end();
    });
}

#[test]
fn shuttle_timers_are_cancelled_for_good() {
    explore_fairly(|| {
        let served = Served::new(1, Config::default());
        let over = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&over);
        let timer = Timer::precise(&served.system.cpus()[0], move |softirq| {
            assert_eq!(seen.load(Ordering::SeqCst), 0, "it runs after it was cancelled");
            Some(softirq.now())
        });
        timer.start(served.clock.now());
        served.ports[0].wake();
        timer.cancel_and_wait(&Process::of_thread());
        over.store(1, Ordering::SeqCst);
        served.end();
    });
}

#[test]
fn shuttle_shutdown_ends_whatever_is_under_way() {
    explore_fairly(|| {
        let served = Served::new(1, Config { rounds: 1, ..Config::default() });
        let queue = served.system.queue("q", QueueKind::Bound);
        let work = Arc::new(queue.work(|process| _ = process.requeue()));
        assert_eq!(work.queue(), Queued::Yes);
        let tasklet = Tasklet::new(&served.system, &served.system.cpus()[0], |_| crate::Turn::Again);
        tasklet.schedule();
        let late = Arc::clone(&work);
        let caller = thread::spawn(move || late.queue());
        served.system.shutdown(None).unwrap();
        let _ = caller.join().unwrap();
        served.end();
    });
}
