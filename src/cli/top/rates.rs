//! From two snapshots of a machine to what happened in between, a second.

use std::collections::BTreeMap;

use serde::Serialize;
use vmm::stats::{Latency, Snapshot, SourceStats, VcpuStats};

/// A machine's activity. All rates are a second, over the last interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// The process that runs it.
    pub pid: u32,
    /// Its kernel image.
    pub kernel: String,
    /// Which machine of its process it is.
    pub machine: u32,
    /// user, split or kernel.
    pub irqchip: String,
    /// Where its ledger ends, if it does.
    pub ends: Option<String>,
    /// Since it was made.
    pub uptime_ns: u64,
    /// The length of the interval.
    pub seconds: f64,
    /// Rises of each line.
    pub lines: Vec<Line>,
    /// Accounts of each source.
    pub sources: Vec<Source>,
    /// Interrupts by vector.
    pub vectors: Vec<Vector>,
    /// By number.
    pub vcpus: Vec<Vcpu>,
    /// Runs of each softirq.
    pub softirqs: Vec<Softirq>,
    /// The CPUs of the bottom halves: the vCPUs', and the main loop's.
    pub cpus: Vec<Cpu>,
    /// Work queues.
    pub queues: Vec<Queue>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub gsi: u8,
    pub vector: Option<u8>,
    pub rises: f64,
}

/// A source's account.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    pub name: String,
    pub asserted: f64,
    pub delivered: f64,
    pub merged: f64,
    pub dropped: f64,
    /// Not a rate.
    pub pending: u64,
}

/// A vector.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vector {
    pub vector: u8,
    pub total: f64,
    /// By vCPU.
    pub vcpus: Vec<f64>,
}

/// A vCPU.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vcpu {
    pub interrupts: f64,
    pub nmis: f64,
    pub kicks: f64,
    pub exits: f64,
    pub exits_by_reason: BTreeMap<String, f64>,
}

/// A softirq.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Softirq {
    pub name: String,
    pub total: f64,
    /// By CPU.
    pub cpus: Vec<f64>,
}

/// A CPU of the bottom halves. Latencies are from activation to run, since the start, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cpu {
    pub tasklets: f64,
    pub handed_over: f64,
    pub latency: Latency,
}

/// A work queue. Latencies as above.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Queue {
    pub name: String,
    pub queued: f64,
    pub run: f64,
    pub latency: Latency,
}

impl View {
    /// What has happened since the machine's start.
    pub fn since_start(now: &Snapshot) -> Self {
        Self::between(&Snapshot { machine: 0, ..now.clone() }, now)
    }

    /// What happened from `before` to `now`. After a reset the machine's figures begin anew.
    pub fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let same = before.machine == now.machine && before.pid == now.pid && now.uptime_ns > before.uptime_ns;
        let since = if same { before.uptime_ns } else { 0 };
        let seconds = (now.uptime_ns - since) as f64 / 1e9;
        let rates = Rates { seconds, from_nothing: !same };
        let sources = |snapshot: &Snapshot| -> Vec<SourceStats> {
            snapshot.sources.iter().cloned().chain(of_vcpus(&snapshot.vcpus)).collect()
        };
        let old_sources = sources(before);
        let source = |new: &SourceStats| {
            let old = old_sources.iter().find(|old| old.name == new.name).map(|old| old.account).unwrap_or_default();
            Source {
                name: new.name.clone(),
                asserted: rates.of(old.asserted, new.account.asserted),
                delivered: rates.of(old.delivered, new.account.delivered),
                merged: rates.of(old.merged, new.account.merged),
                dropped: rates.of(old.dropped.total(), new.account.dropped.total()),
                pending: new.pending,
            }
        };
        let line = |(number, wire): (usize, &vmm::stats::WireStats)| {
            let old = before.wires.get(number).filter(|old| old.gsi == wire.gsi).map_or(0, |old| old.rises);
            Line { gsi: wire.gsi, vector: wire.vector, rises: rates.of(old, wire.rises) }
        };
        let empty = VcpuStats::default();
        let vcpus: Vec<_> =
            now.vcpus.iter().enumerate().map(|(i, vcpu)| (before.vcpus.get(i).unwrap_or(&empty), vcpu)).collect();
        Self {
            pid: now.pid,
            kernel: now.kernel.clone(),
            machine: now.machine,
            irqchip: now.irqchip.clone(),
            ends: now.ends.clone(),
            uptime_ns: now.uptime_ns,
            seconds,
            lines: now.wires.iter().enumerate().map(line).collect(),
            sources: sources(now).iter().map(source).collect(),
            vectors: vectors(&vcpus, &rates),
            vcpus: vcpus.iter().map(|(old, new)| vcpu(old, new, &rates)).collect(),
            softirqs: softirqs(before, now, &rates),
            cpus: cpus(before, now, &rates),
            queues: queues(before, now, &rates),
        }
    }
}

struct Rates {
    seconds: f64,
    from_nothing: bool,
}

impl Rates {
    fn of(&self, old: u64, new: u64) -> f64 {
        let old = if self.from_nothing { 0 } else { old };
        if self.seconds > 0.0 { new.saturating_sub(old) as f64 / self.seconds } else { 0.0 }
    }
}

/// The sum; of nothing it is 0, and not the -0 that `Iterator::sum` makes of it.
pub fn total<'a>(rates: impl IntoIterator<Item = &'a f64>) -> f64 {
    rates.into_iter().fold(0.0, |total, rate| total + rate)
}

/// The accounts in the vCPUs' ledgers, as sources with names.
fn of_vcpus(vcpus: &[VcpuStats]) -> Vec<SourceStats> {
    let mut all = Vec::new();
    for (number, vcpu) in vcpus.iter().enumerate() {
        let Some(ledger) = vcpu.ledger else { continue };
        let own = vmm::stats::Source::ALL.map(|source| (source.name(), *ledger.apic.sources.of(source), 0));
        let others = [("IPIs", ledger.apic.ipis, 0), ("NMIs", ledger.nmis, ledger.pending_nmis)];
        let used = own.into_iter().chain(others).filter(|(_, account, _)| !account.is_unused());
        all.extend(used.map(|(name, account, pending)| SourceStats {
            name: format!("vCPU {number} {name}"),
            account,
            pending,
        }));
    }
    all
}

fn vectors(vcpus: &[(&VcpuStats, &VcpuStats)], rates: &Rates) -> Vec<Vector> {
    let count = |vcpu: &VcpuStats, vector| vcpu.vectors.get(&vector).copied().unwrap_or(0);
    let all = (0..=u8::MAX).filter(|vector| vcpus.iter().any(|(_, new)| new.vectors.contains_key(vector)));
    all.map(|vector| {
        let by_vcpu: Vec<_> = vcpus.iter().map(|(old, new)| rates.of(count(old, vector), count(new, vector))).collect();
        Vector { vector, total: total(&by_vcpu), vcpus: by_vcpu }
    })
    .collect()
}

fn vcpu(old: &VcpuStats, new: &VcpuStats, rates: &Rates) -> Vcpu {
    let exit = |(kind, n): (&String, &u64)| (kind.clone(), rates.of(old.exits.get(kind).copied().unwrap_or(0), *n));
    let exits_by_reason: BTreeMap<_, _> = new.exits.iter().map(exit).collect();
    Vcpu {
        interrupts: rates.of(old.interrupts, new.interrupts),
        nmis: rates.of(old.nmis, new.nmis),
        kicks: rates.of(old.signal_kicks + old.futex_kicks, new.signal_kicks + new.futex_kicks),
        exits: total(exits_by_reason.values()),
        exits_by_reason,
    }
}

fn softirqs(before: &Snapshot, now: &Snapshot, rates: &Rates) -> Vec<Softirq> {
    let names = now.softirqs.first().map(|cpu| cpu.run.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let count = |snapshot: &Snapshot, cpu: usize, name: &str| {
        snapshot.softirqs.get(cpu).and_then(|cpu| cpu.run.get(name)).copied().unwrap_or(0)
    };
    let softirq = |name: String| {
        let rate = |cpu| rates.of(count(before, cpu, &name), count(now, cpu, &name));
        let cpus: Vec<_> = (0..now.softirqs.len()).map(rate).collect();
        Softirq { total: total(&cpus), cpus, name }
    };
    names.into_iter().map(softirq).collect()
}

fn cpus(before: &Snapshot, now: &Snapshot, rates: &Rates) -> Vec<Cpu> {
    let cpu = |(number, new): (usize, &vmm::stats::SoftirqStats)| {
        let old = before.softirqs.get(number).cloned().unwrap_or_default();
        Cpu {
            tasklets: rates.of(old.tasklets, new.tasklets),
            handed_over: rates.of(old.handed_over, new.handed_over),
            latency: new.latency.clone(),
        }
    };
    now.softirqs.iter().enumerate().map(cpu).collect()
}

fn queues(before: &Snapshot, now: &Snapshot, rates: &Rates) -> Vec<Queue> {
    let queue = |new: &vmm::stats::QueueStats| {
        let old = before.queues.iter().find(|old| old.name == new.name).cloned().unwrap_or_default();
        Queue {
            name: new.name.clone(),
            queued: rates.of(old.queued, new.queued),
            run: rates.of(old.run, new.run),
            latency: new.latency.clone(),
        }
    };
    now.queues.iter().map(queue).collect()
}
