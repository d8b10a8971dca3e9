//! Queues of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bottom_half::{Config, QueueKind, Queued, System, ThreadPort, Work, WorkQueue};

use crate::{ALLOCATOR, median, print};

/// Workers of each peer.
const WORKERS: usize = 2;
/// Items that are queued one after the other.
const ITEMS: usize = 10_000;
/// Producers, when there are several.
const PRODUCERS: usize = 4;
/// Items that are kept on their way when latency is measured under load.
const BACKLOG: usize = 16;

/// What the items do: say when they start, and count.
struct Board {
    started: Vec<AtomicU64>,
    done: AtomicUsize,
    zero: Instant,
}

impl Board {
    fn new() -> Arc<Self> {
        let started = (0..ITEMS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { started, done: AtomicUsize::new(0), zero: Instant::now() })
    }

    fn now(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    fn timed(&self, index: usize) {
        self.started[index].store(self.now(), Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Release);
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }

    fn reset(&self) {
        self.done.store(0, Ordering::Relaxed);
    }

    fn wait_for(&self, count: usize) {
        while self.done.load(Ordering::Acquire) < count {
            std::thread::yield_now();
        }
    }
}

/// What an item is to do.
#[derive(Clone, Copy, PartialEq)]
enum Job {
    Timed,
    Count,
}

fn run(board: &Board, job: Job, index: usize) {
    match job {
        Job::Timed => board.timed(index),
        Job::Count => board.count(),
    }
}

/// Something that runs items on threads of its own.
trait Peer: Sync {
    fn submit(&self, board: &Arc<Board>, job: Job, index: usize);
}

struct Ours {
    system: System,
    queue: WorkQueue,
    timed: Vec<Work>,
    count: Vec<Work>,
}

impl Ours {
    fn new(kind: QueueKind, board: &Arc<Board>) -> Self {
        let config = Config { unbound_limit: WORKERS as u32, ..Config::default() };
        let (system, _owners) = System::new(config, vec![Arc::new(ThreadPort::default())]).expect("threads");
        let queue = system.queue("bench", kind);
        let make = |job| {
            let item = |index| {
                let board = Arc::clone(board);
                queue.work(move |_| run(&board, job, index))
            };
            (0..ITEMS).map(item).collect()
        };
        Self { timed: make(Job::Timed), count: make(Job::Count), queue, system }
    }
}

impl Peer for Ours {
    fn submit(&self, _board: &Arc<Board>, job: Job, index: usize) {
        let items = if job == Job::Timed { &self.timed } else { &self.count };
        assert_eq!(items[index].queue(), Queued::Yes);
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.queue.destroy(&bottom_half::Process::of_thread());
        self.system.shutdown(None).expect("nobody is stuck");
    }
}

struct Spawn(tokio::runtime::Runtime);

impl Peer for Spawn {
    fn submit(&self, board: &Arc<Board>, job: Job, index: usize) {
        let board = Arc::clone(board);
        self.0.spawn(async move { run(&board, job, index) });
    }
}

struct SpawnBlocking(tokio::runtime::Runtime);

impl Peer for SpawnBlocking {
    fn submit(&self, board: &Arc<Board>, job: Job, index: usize) {
        let board = Arc::clone(board);
        self.0.spawn_blocking(move || run(&board, job, index));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).max_blocking_threads(WORKERS).enable_time().build().expect("threads")
}

struct Rayon(rayon::ThreadPool);

impl Peer for Rayon {
    fn submit(&self, board: &Arc<Board>, job: Job, index: usize) {
        let board = Arc::clone(board);
        self.0.spawn(move || run(&board, job, index));
    }
}

/// A `ThreadPool` is not `Sync`, by its channel: each producer would clone it. One lock is what sharing it takes.
struct Threadpool(std::sync::Mutex<threadpool::ThreadPool>);

impl Peer for Threadpool {
    fn submit(&self, board: &Arc<Board>, job: Job, index: usize) {
        let board = Arc::clone(board);
        self.0.lock().expect("no panic").execute(move || run(&board, job, index));
    }
}

type Boxed = Box<dyn FnOnce() + Send>;

struct Crossbeam(crossbeam_channel::Sender<Boxed>);

impl Crossbeam {
    fn new() -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded::<Boxed>();
        for _ in 0..WORKERS {
            let receiver = receiver.clone();
            std::thread::spawn(move || receiver.iter().for_each(|item| item()));
        }
        Self(sender)
    }
}

impl Peer for Crossbeam {
    fn submit(&self, board: &Arc<Board>, job: Job, index: usize) {
        let board = Arc::clone(board);
        self.0.send(Box::new(move || run(&board, job, index))).expect("workers");
    }
}

/// From queueing to the start of the run, with all workers asleep, in ns.
fn idle_latency(peer: &dyn Peer, board: &Arc<Board>) -> f64 {
    let one = |index| {
        // Long enough that the workers have gone to sleep.
        std::thread::sleep(Duration::from_micros(300));
        board.reset();
        let queued = board.now();
        peer.submit(board, Job::Timed, index);
        board.wait_for(1);
        board.started[index].load(Ordering::Relaxed).saturating_sub(queued) as f64
    };
    median((0..60).map(one).collect())
}

/// The same with a backlog of items that come and go, in ns.
fn busy_latency(peer: &dyn Peer, board: &Arc<Board>) -> f64 {
    board.reset();
    let mut queued = Vec::with_capacity(ITEMS);
    for index in 0..ITEMS {
        board.wait_for(index.saturating_sub(BACKLOG));
        queued.push(board.now());
        peer.submit(board, Job::Timed, index);
    }
    board.wait_for(ITEMS);
    median((0..ITEMS).map(|i| board.started[i].load(Ordering::Relaxed).saturating_sub(queued[i]) as f64).collect())
}

/// Items a second.
fn throughput(peer: &dyn Peer, board: &Arc<Board>, producers: usize) -> f64 {
    const TURNS: usize = 5;
    let mut spent = Duration::ZERO;
    for _ in 0..TURNS {
        board.reset();
        let start = Instant::now();
        if producers == 1 {
            (0..ITEMS).for_each(|index| peer.submit(board, Job::Count, index));
        } else {
            std::thread::scope(|scope| {
                for producer in 0..producers {
                    scope.spawn(move || {
                        (producer..ITEMS).step_by(producers).for_each(|index| peer.submit(board, Job::Count, index));
                    });
                }
            });
        }
        board.wait_for(ITEMS);
        spent += start.elapsed();
    }
    (TURNS * ITEMS) as f64 / spent.as_secs_f64()
}

/// Bytes allocated, per item, by queueing items that don't run yet (`made` ones exist before).
fn queueing_memory(peer: &dyn Peer, board: &Arc<Board>) -> f64 {
    // Nothing runs meanwhile but the items themselves, which allocate nothing: what is allocated is what queueing takes.
    board.reset();
    let before = ALLOCATOR.stats();
    (0..ITEMS).for_each(|index| peer.submit(board, Job::Count, index));
    let after = ALLOCATOR.stats();
    board.wait_for(ITEMS);
    (after.bytes_allocated - before.bytes_allocated) as f64 / ITEMS as f64
}

/// Bytes that an item of ours takes for as long as it exists.
fn item_memory(kind: QueueKind) -> f64 {
    let board = Board::new();
    let (system, _owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    let queue = system.queue("bench", kind);
    let mut items = Vec::with_capacity(ITEMS);
    let live = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
    };
    let before = live();
    for index in 0..ITEMS {
        let board = Arc::clone(&board);
        items.push(queue.work(move |_| run(&board, Job::Count, index)));
    }
    let bytes = (live() - before) / ITEMS as f64;
    drop(items);
    system.shutdown(None).expect("nobody is stuck");
    bytes
}

/// Measures all and prints the table.
pub(crate) fn compare(rounds: usize) {
    let board = Board::new();
    let peers: Vec<(&str, Box<dyn Peer>)> = vec![
        ("ours, bound", Box::new(Ours::new(QueueKind::Bound, &board))),
        ("ours, unbound", Box::new(Ours::new(QueueKind::Unbound, &board))),
        ("tokio spawn", Box::new(Spawn(runtime()))),
        ("tokio spawn_blocking", Box::new(SpawnBlocking(runtime()))),
        ("rayon", Box::new(Rayon(rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build().expect("threads")))),
        ("threadpool", Box::new(Threadpool(std::sync::Mutex::new(threadpool::ThreadPool::new(WORKERS))))),
        ("crossbeam-channel", Box::new(Crossbeam::new())),
    ];
    let rows = [
        "queue to start, idle (ns)",
        "queue to start, busy (ns)",
        "items a second, 1 producer",
        "items a second, 4 producers",
        "allocated by queueing (bytes)",
        "memory of an item (bytes)",
    ];
    let mut all = vec![vec![Vec::new(); peers.len()]; rows.len()];
    for _ in 0..rounds {
        for (column, (_, peer)) in peers.iter().enumerate() {
            let peer = peer.as_ref();
            all[0][column].push(idle_latency(peer, &board));
            all[1][column].push(busy_latency(peer, &board));
            all[2][column].push(throughput(peer, &board, 1));
            all[3][column].push(throughput(peer, &board, PRODUCERS));
            all[4][column].push(queueing_memory(peer, &board));
        }
    }
    let mut figures: Vec<Vec<f64>> = all.into_iter().map(|row| row.into_iter().map(median).collect()).collect();
    // A peer's item is what queueing allocates; ours is made before.
    figures[5] = figures[4].clone();
    figures[5][0] = item_memory(QueueKind::Bound);
    figures[5][1] = item_memory(QueueKind::Unbound);
    let names: Vec<_> = peers.iter().map(|(name, _)| *name).collect();
    print("Work", &names, &rows, &figures);
}
