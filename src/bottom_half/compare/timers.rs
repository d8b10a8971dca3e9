//! Timers and delayed work.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bottom_half::{
    AtomicStop, Config, CpuOwner, DelayedWork, Process, QueueKind, Queued, System, ThreadPort, Timer, WorkQueue,
};
use tokio_util::time::DelayQueue;

use crate::{median, print};

/// Timers that exist while one is added and cancelled.
const STANDING: usize = 1000;
const PAIRS: usize = 20_000;
/// Delayed items that are queued one after the other, each due a little after it is queued.
const DELAYED: usize = 5_000;
const DELAY: Duration = Duration::from_millis(2);

fn far(index: usize) -> Duration {
    Duration::from_secs(100) + Duration::from_micros((index * 7919 % 1_000_000) as u64)
}

fn per_pair(f: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..PAIRS).for_each(f);
    start.elapsed().as_nanos() as f64 / PAIRS as f64
}

/// A system whose only CPU is served by a thread of its own.
struct Served {
    system: System,
    queue: WorkQueue,
    port: Arc<ThreadPort>,
    stop: Arc<AtomicStop>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new() -> Self {
        let (port, stop) = (Arc::new(ThreadPort::default()), Arc::new(AtomicStop::default()));
        let config = Config { unbound_limit: 2, ..Config::default() };
        let (system, mut owners) = System::new(config, vec![Arc::clone(&port) as _]).expect("threads");
        let owner: CpuOwner = owners.remove(0);
        let (port_there, stop_there) = (Arc::clone(&port), Arc::clone(&stop));
        let thread = Some(std::thread::spawn(move || owner.run(&port_there, &stop_there)));
        let queue = system.queue("delayed", QueueKind::Unbound);
        Self { system, queue, port, stop, thread }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.stop();
        self.port.wake();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
        self.system.shutdown(None).expect("nobody is stuck");
    }
}

fn ours_pairs(served: &Served, make: fn(&Served) -> Timer) -> f64 {
    let now = served.system.clock().now();
    let at = |index| now + far(index).as_nanos() as u64;
    let standing: Vec<_> = (0..STANDING).map(|_| make(served)).collect();
    for (index, timer) in standing.iter().enumerate() {
        timer.start(at(index));
    }
    let timer = make(served);
    per_pair(|index| {
        timer.start(at(index));
        assert!(timer.cancel());
    })
}

fn delay_queue_pairs(runtime: &tokio::runtime::Runtime) -> f64 {
    let _inside = runtime.enter();
    // Shared with the task that would poll it.
    let queue = Mutex::new(DelayQueue::new());
    for index in 0..STANDING {
        queue.lock().expect("no panic").insert(index, far(index));
    }
    per_pair(|index| {
        let key = queue.lock().expect("no panic").insert(index, far(index));
        queue.lock().expect("no panic").remove(&key);
    })
}

/// A heap in which cancelled timers stay until they are half of it.
#[derive(Default)]
struct LazyHeap {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    live: Vec<bool>,
    cancelled: usize,
}

impl LazyHeap {
    fn add(&mut self, at: Instant) -> usize {
        let id = self.live.len();
        self.live.push(true);
        self.heap.push(Reverse((at, id)));
        id
    }

    fn cancel(&mut self, id: usize) {
        self.live[id] = false;
        self.cancelled += 1;
        if self.cancelled * 2 > self.heap.len() {
            let live = &self.live;
            self.heap.retain(|Reverse((_, id))| live[*id]);
            self.cancelled = 0;
        }
    }
}

fn heap_pairs() -> f64 {
    let heap = Mutex::new(LazyHeap::default());
    let now = Instant::now();
    for index in 0..STANDING {
        heap.lock().expect("no panic").add(now + far(index));
    }
    per_pair(|index| {
        let id = heap.lock().expect("no panic").add(now + far(index));
        heap.lock().expect("no panic").cancel(id);
    })
}

fn rate(done: &AtomicUsize, queue_all: impl FnOnce()) -> f64 {
    done.store(0, Ordering::Relaxed);
    let start = Instant::now();
    queue_all();
    while done.load(Ordering::Acquire) < DELAYED {
        std::thread::yield_now();
    }
    DELAYED as f64 / start.elapsed().as_secs_f64()
}

fn ours_delayed(done: &AtomicUsize, items: &[DelayedWork]) -> f64 {
    rate(done, || {
        for item in items {
            assert_eq!(item.queue_after(DELAY.as_nanos() as u64), Queued::Yes);
        }
    })
}

fn tokio_delayed(runtime: &tokio::runtime::Runtime, done: &Arc<AtomicUsize>) -> f64 {
    rate(done, || {
        for _ in 0..DELAYED {
            let done = Arc::clone(done);
            runtime.spawn(async move {
                tokio::time::sleep(DELAY).await;
                done.fetch_add(1, Ordering::Release);
            });
        }
    })
}

/// A task that polls the queue and spawns what has expired.
fn delay_queue_delayed(runtime: &tokio::runtime::Runtime, done: &Arc<AtomicUsize>) -> f64 {
    let queue = Arc::new(Mutex::new(DelayQueue::new()));
    rate(done, || {
        {
            let _inside = runtime.enter();
            for index in 0..DELAYED {
                queue.lock().expect("no panic").insert(index, DELAY);
            }
        }
        let done = Arc::clone(done);
        let queue = Arc::clone(&queue);
        runtime.spawn(async move {
            while poll_fn(|context| queue.lock().expect("no panic").poll_expired(context)).await.is_some() {
                let done = Arc::clone(&done);
                tokio::spawn(async move { done.fetch_add(1, Ordering::Release) });
            }
        });
    })
}

/// A thread that waits for the first of a heap and sends what has expired to two workers.
fn heap_delayed(done: &Arc<AtomicUsize>) -> f64 {
    let shared = Arc::new((Mutex::new(BinaryHeap::<Reverse<(Instant, usize)>>::new()), Condvar::new()));
    let (sender, receiver) = crossbeam_channel::unbounded::<Box<dyn FnOnce() + Send>>();
    for _ in 0..2 {
        let receiver = receiver.clone();
        std::thread::spawn(move || receiver.iter().for_each(|item| item()));
    }
    let there = (Arc::clone(&shared), Arc::clone(done));
    let timer = std::thread::spawn(move || {
        let ((heap, changed), done) = (&*there.0, there.1);
        let mut left = DELAYED;
        let mut heap = heap.lock().expect("no panic");
        while left > 0 {
            let now = Instant::now();
            heap = match heap.peek() {
                Some(Reverse((at, _))) if *at <= now => {
                    heap.pop();
                    left -= 1;
                    let done = Arc::clone(&done);
                    let item = move || _ = done.fetch_add(1, Ordering::Release);
                    sender.send(Box::new(item)).expect("workers");
                    heap
                }
                Some(Reverse((at, _))) => {
                    let wait = *at - now;
                    changed.wait_timeout(heap, wait).expect("no panic").0
                }
                None => changed.wait(heap).expect("no panic"),
            };
        }
    });
    let rate = rate(done, || {
        for index in 0..DELAYED {
            shared.0.lock().expect("no panic").push(Reverse((Instant::now() + DELAY, index)));
            shared.1.notify_one();
        }
    });
    timer.join().expect("no panic");
    rate
}

/// Measures all and prints the table.
pub(crate) fn compare(rounds: usize) {
    let served = Served::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("threads");
    let done = Arc::new(AtomicUsize::new(0));
    let items: Vec<_> = (0..DELAYED)
        .map(|_| {
            let done = Arc::clone(&done);
            DelayedWork::new(&served.queue, &served.system.cpus()[0], move |_| {
                done.fetch_add(1, Ordering::Release);
            })
        })
        .collect();
    let mut pairs = vec![Vec::new(); 5];
    let mut delayed = vec![Vec::new(); 5];
    for _ in 0..rounds {
        pairs[0].push(ours_pairs(&served, |served| Timer::timeout(&served.system.cpus()[0], |_| None)));
        pairs[1].push(ours_pairs(&served, |served| Timer::precise(&served.system.cpus()[0], |_| None)));
        pairs[2].push(delay_queue_pairs(&runtime));
        pairs[3].push(heap_pairs());
        delayed[0].push(ours_delayed(&done, &items));
        delayed[2].push(delay_queue_delayed(&runtime, &done));
        delayed[3].push(heap_delayed(&done));
        delayed[4].push(tokio_delayed(&runtime, &done));
    }
    let names = ["ours, timeout", "ours, precise", "DelayQueue", "BinaryHeap", "tokio sleep"];
    let rows = ["timer add and cancel (ns)", "delayed items a second"];
    print(
        "Timers",
        &names,
        &rows,
        &[pairs.into_iter().map(median).collect(), delayed.into_iter().map(median).collect()],
    );
    for item in &items {
        item.cancel_and_wait(&Process::of_thread());
    }
}
