//! Accounting: counters, latencies, and tables that a kernel person knows how to read.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::softirq::{VECTORS, Vector};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Latencies are told apart to 1 %, up to a minute; what is longer counts as a minute.
const LONGEST_LATENCY: u64 = 60_000_000_000;

/// A counter that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    pub(crate) fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long from activation to run, and how long a run.
#[derive(Debug)]
pub(crate) struct Times {
    latency: Mutex<Histogram<u64>>,
    longest: Counter,
}

impl Default for Times {
    fn default() -> Self {
        Self { latency: Mutex::new(new_histogram()), longest: Counter::default() }
    }
}

fn new_histogram() -> Histogram<u64> {
    // These bounds are always accepted; without them it grows by itself.
    Histogram::new_with_bounds(1, LONGEST_LATENCY, 2)
        .unwrap_or_else(|_| Histogram::new(2).unwrap_or_else(|_| unreachable!()))
}

impl Times {
    pub(crate) fn record(&self, latency: u64, run: u64) {
        self.latency.lock().saturating_record(latency.max(1));
        self.longest.raise_to(run);
    }

    pub(crate) fn longest_at_least(&self, run: u64) {
        self.longest.raise_to(run);
    }

    pub(crate) fn read(&self) -> (Histogram<u64>, u64) {
        (self.latency.lock().clone(), self.longest.get())
    }
}

/// What a CPU counts.
#[derive(Debug, Default)]
pub(crate) struct CpuCounters {
    pub(crate) raised: [Counter; VECTORS],
    pub(crate) run: [Counter; VECTORS],
    pub(crate) rounds: Counter,
    pub(crate) handed_over: Counter,
    pub(crate) queued: Counter,
    pub(crate) merged: Counter,
    pub(crate) times: Times,
}

/// One CPU's figures since the start.
#[derive(Debug, Clone)]
pub struct CpuStats {
    /// Times that each vector was raised; merged ones are counted.
    pub raised: [u64; VECTORS],
    /// Times that each vector ran.
    pub run: [u64; VECTORS],
    /// Rounds over the pending vectors.
    pub rounds: u64,
    /// Times that the rounds or the time were used up, and the rest went to the softirq thread.
    pub handed_over: u64,
    /// Tasklets put on a list of this CPU.
    pub queued: u64,
    /// Raises and schedules that merged into one that was pending.
    pub merged: u64,
    /// From activation to run, in ns, of those measured.
    pub latency: Histogram<u64>,
    /// The longest measured run of a vector, in ns.
    pub longest: u64,
}

impl CpuCounters {
    pub(crate) fn read(&self) -> CpuStats {
        let (latency, longest) = self.times.read();
        CpuStats {
            raised: std::array::from_fn(|i| self.raised[i].get()),
            run: std::array::from_fn(|i| self.run[i].get()),
            rounds: self.rounds.get(),
            handed_over: self.handed_over.get(),
            queued: self.queued.get(),
            merged: self.merged.get(),
            latency,
            longest,
        }
    }
}

/// One work queue's figures since it was made.
#[derive(Debug, Clone)]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Activations that made an item pending.
    pub queued: u64,
    /// Activations that merged into a pending one.
    pub merged: u64,
    /// Runs.
    pub run: u64,
    /// Items cancelled before they ran.
    pub cancelled: u64,
    /// From activation to run, in ns, of those measured.
    pub latency: Histogram<u64>,
    /// The longest run, in ns, of those measured or reported by the watchdog.
    pub longest: u64,
}

/// The table in `/proc/softirqs`: a column a CPU, a row a vector, how often each has run.
pub(crate) fn softirqs_table(cpus: &[CpuStats]) -> String {
    let mut table = " ".repeat(10);
    for cpu in 0..cpus.len() {
        let _ = write!(table, " {:<10}", format!("CPU{cpu}"));
    }
    let end = table.trim_end().len();
    table.truncate(end);
    table.push('\n');
    for vector in Vector::ALL {
        let _ = write!(table, "{:>9}:", vector.name());
        for cpu in cpus {
            let _ = write!(table, " {:>10}", cpu.run[vector.index()]);
        }
        table.push('\n');
    }
    table
}

/// Latency and hand-over, a row a CPU.
pub(crate) fn cpus_table(cpus: &[CpuStats]) -> String {
    let mut table =
        String::from("  CPU     ROUNDS  HANDOVER     QUEUED     MERGED   P50(us)   P99(us)   MAX(us) LONGEST(us)\n");
    for (index, cpu) in cpus.iter().enumerate() {
        let _ = writeln!(
            table,
            "{index:>5} {:>10} {:>9} {:>10} {:>10} {:>9} {:>9} {:>9} {:>11}",
            cpu.rounds,
            cpu.handed_over,
            cpu.queued,
            cpu.merged,
            cpu.latency.value_at_quantile(0.5) / 1000,
            cpu.latency.value_at_quantile(0.99) / 1000,
            cpu.latency.max() / 1000,
            cpu.longest / 1000
        );
    }
    table
}

/// A row a work queue.
pub(crate) fn queues_table(queues: &[QueueStats]) -> String {
    let mut table =
        String::from("QUEUE                QUEUED     MERGED        RUN  CANCELLED   P50(us)   P99(us) LONGEST(us)\n");
    for queue in queues {
        let _ = writeln!(
            table,
            "{:<16} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>11}",
            queue.name,
            queue.queued,
            queue.merged,
            queue.run,
            queue.cancelled,
            queue.latency.value_at_quantile(0.5) / 1000,
            queue.latency.value_at_quantile(0.99) / 1000,
            queue.longest / 1000
        );
    }
    table
}
