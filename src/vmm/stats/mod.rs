//! The ledger and the counters of a machine, for who wants to see them: [`Books`] reads them where they are kept, while
//! everybody goes on, into a [`Snapshot`].

mod audit;
mod output;
mod snapshot;
mod socket;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bottom_half::{System, Vector};
use hdrhistogram::Histogram;
use irqchip::line::Wire;
use sys::calls::Call;
use x86::ioapic::RedirectionEntry;

use crate::Irqchip;
use crate::clock::Clock;
use crate::interrupts::Processors;
use crate::monitor::Chips;
use crate::vcpu::ExitKind;
pub use crate::vcpu::VcpuLedger;
pub use audit::Imbalance;
pub use irqchip::ledger::{Account, ApicLedger, Dropped, Pending, Posts, Source};
pub use output::Output;
pub use snapshot::*;
pub use socket::{Server, check, folder};

/// Where a machine's figures are.
#[derive(Clone)]
pub struct Books {
    /// The kernel image's name.
    pub kernel: String,
    /// Which machine of this process it is, from 1.
    pub machine: u32,
    /// Who has the interrupt controllers.
    pub irqchip: Irqchip,
    /// The machine's clock, which started with it.
    pub clock: Clock,
    /// The vCPUs' counters.
    pub processors: Arc<Processors>,
    /// PIC and I/O APIC; `None` if they are KVM's.
    pub chips: Option<Arc<dyn Chips>>,
    /// The lines, by GSI.
    pub wires: Vec<Arc<Wire>>,
    /// The bottom halves.
    pub bottom_halves: System,
}

impl Snapshot {
    /// As a line of JSON, its end included.
    pub fn to_line(&self) -> Vec<u8> {
        // Numbers, names and maps by names can always be written.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl Books {
    /// Reads them all. Takes the chips' locks one after the other, and holds up nobody else.
    pub fn snapshot(&self, moment: Moment) -> Snapshot {
        let (irqchip, ends) = match self.irqchip {
            Irqchip::User => ("user", None),
            Irqchip::Split => ("split", Some("behind PIC, I/O APIC and MSIs: in KVM")),
            Irqchip::Kernel => ("kernel", Some("behind the lines: in KVM")),
        };
        let mut posts = BTreeMap::from([("nmi".to_owned(), self.processors.posts())]);
        let (mut sources, mut pic_cycles) = (Vec::new(), None);
        // Before the vCPUs: a chip's message is counted by the chip first.
        if let Some(ledger) = self.chips.as_ref().map(|chips| chips.ledger()) {
            sources.extend(ledger.inputs.iter().map(|(input, account)| source(format!("IRQ {input}"), *account)));
            sources.extend(ledger.pins.iter().map(|(pin, account)| source(format!("pin {pin}"), *account)));
            sources.push(source("MSI".to_owned(), (ledger.msi, false)));
            pic_cycles = Some(ledger.cycles);
            if self.irqchip == Irqchip::User {
                posts.extend([("ioapic".to_owned(), ledger.ioapic_posts), ("msi".to_owned(), ledger.msi_posts)]);
            }
        }
        posts.retain(|_, posts| *posts != Posts::default());
        sources.retain(|source| !source.account.is_unused());
        Snapshot {
            format: FORMAT.to_owned(),
            version: VERSION,
            pid: std::process::id(),
            kernel: self.kernel.clone(),
            machine: self.machine,
            moment,
            uptime_ns: self.clock.now(),
            irqchip: irqchip.to_owned(),
            ends: ends.map(str::to_owned),
            wires: self.wires(),
            sources,
            pic_cycles,
            posts,
            vcpus: (0..self.processors.count()).map(|index| self.vcpu(index)).collect(),
            softirqs: self.bottom_halves.cpu_stats().iter().map(softirqs).collect(),
            queues: self.bottom_halves.queue_stats().iter().map(queue).collect(),
        }
    }

    fn wires(&self) -> Vec<WireStats> {
        let ioapic = self.chips.as_ref().map(|chips| chips.ioapic());
        let stats = |wire: &Arc<Wire>| {
            let state = wire.state();
            let pin = ioapic.as_ref().and_then(|ioapic| ioapic.pins.get(usize::from(wire.gsi())));
            let entry = pin.map(|pin| RedirectionEntry::from_bits(pin.entry));
            WireStats {
                gsi: wire.gsi(),
                rises: state.rises,
                holders: state.holders,
                asserting: state.asserting,
                vector: entry.map(|entry| entry.vector()),
                masked: entry.map(|entry| entry.masked()),
            }
        };
        self.wires.iter().map(stats).filter(|wire| wire.holders > 0).collect()
    }

    fn vcpu(&self, index: usize) -> VcpuStats {
        let counts = self.processors.counts(index);
        let exits: BTreeMap<_, _> =
            ExitKind::ALL.iter().map(|&kind| (kind.name().to_owned(), counts.exits(kind))).collect();
        let calls = Call::ALL.iter().map(|&call| (call.name().to_owned(), counts.calls.get(call))).collect();
        let interrupts = counts.interrupts.get();
        let per_interrupt = |n: u64| if interrupts == 0 { 0.0 } else { n as f64 / interrupts as f64 };
        let ioctls = [Call::Run, Call::Inject, Call::VcpuIoctl, Call::VmIoctl].map(|call| counts.calls.get(call));
        let (signal_kicks, futex_kicks) = self.processors.kicks(index);
        let (mailbox_requests, mailbox_nmis) = self.processors.mailbox(index).waiting();
        let by_vector = (0..=u8::MAX).map(|vector| (vector, counts.vectors.of(vector).get()));
        VcpuStats {
            exits_per_interrupt: per_interrupt(exits.values().sum()),
            ioctls_per_interrupt: per_interrupt(ioctls.iter().sum()),
            exits,
            calls,
            interrupts,
            extints: counts.extints.get(),
            nmis: counts.nmis.get(),
            eois: counts.eois.get(),
            spared_eois: counts.spared_eois.get(),
            signal_kicks,
            futex_kicks,
            vectors: by_vector.filter(|(_, count)| *count > 0).collect(),
            mailbox_requests,
            mailbox_nmis,
            ledger: (self.irqchip == Irqchip::User).then(|| counts.ledger()),
        }
    }
}

#[cfg(test)]
impl Books {
    /// Of a machine that has these and nothing else.
    pub fn of_parts(processors: &Arc<Processors>, chips: Option<Arc<dyn Chips>>, bottom_halves: &System) -> Self {
        Self {
            kernel: "test".to_owned(),
            machine: 1,
            irqchip: Irqchip::User,
            clock: Clock::start(),
            processors: Arc::clone(processors),
            chips,
            wires: Vec::new(),
            bottom_halves: bottom_halves.clone(),
        }
    }
}

fn source(name: String, (account, pending): (Account, bool)) -> SourceStats {
    SourceStats { name, account, pending: pending.into() }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        count: histogram.len(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    }
}

fn softirqs(cpu: &bottom_half::CpuStats) -> SoftirqStats {
    let by_vector = |counts: &[u64]| {
        Vector::ALL.iter().zip(counts).map(|(vector, count)| (vector.name().to_owned(), *count)).collect()
    };
    SoftirqStats {
        raised: by_vector(&cpu.raised),
        run: by_vector(&cpu.run),
        rounds: cpu.rounds,
        handed_over: cpu.handed_over,
        tasklets: cpu.queued,
        merged: cpu.merged,
        latency: latency(&cpu.latency),
    }
}

fn queue(queue: &bottom_half::QueueStats) -> QueueStats {
    QueueStats {
        name: queue.name.clone(),
        queued: queue.queued,
        merged: queue.merged,
        run: queue.run,
        cancelled: queue.cancelled,
        latency: latency(&queue.latency),
    }
}
