//! What `--stats` writes: one JSON object a line, of this form. docs/ledger.md describes it; what changes its meaning changes
//! [`VERSION`].

use std::collections::BTreeMap;

use irqchip::ledger::{Account, Posts};
use irqchip::pic::Cycles;
use serde::{Deserialize, Serialize};

use crate::vcpu::VcpuLedger;

/// What the field `format` says.
pub const FORMAT: &str = "tophalf-stats";
/// The version that this program writes and reads.
pub const VERSION: u32 = 1;

/// When it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// While the machine ran: each chip's accounts are of one moment, two chips' are not of the same.
    Running,
    /// When every thread of the machine had ended.
    End,
}

/// A machine's ledger and counters since it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The process that runs the machine.
    pub pid: u32,
    /// Its kernel image, to tell machines apart.
    pub kernel: String,
    /// Which machine of the process this is: 1, and one more after each reset.
    pub machine: u32,
    /// When it was taken.
    pub moment: Moment,
    /// Nanoseconds since the machine was made.
    pub uptime_ns: u64,
    /// Who has the interrupt controllers: user, split or kernel.
    pub irqchip: String,
    /// Where the ledger ends, and KVM goes on: "in KVM" behind the lines, or behind PIC, I/O APIC and MSIs; absent if nowhere.
    pub ends: Option<String>,
    /// Wires that a device holds.
    pub wires: Vec<WireStats>,
    /// Accounts of the 8259A pair's inputs, the I/O APIC's pins, and MSIs.
    pub sources: Vec<SourceStats>,
    /// Acknowledge cycles of the 8259A pair.
    pub pic_cycles: Option<Cycles>,
    /// What was put into mailboxes, by the I/O APIC, MSIs, and the user's NMIs; the vCPUs' own have theirs.
    pub posts: BTreeMap<String, Posts>,
    /// By number.
    pub vcpus: Vec<VcpuStats>,
    /// Bottom halves; CPU i is vCPU i's, the last the main loop's.
    pub softirqs: Vec<SoftirqStats>,
    /// Work queues.
    pub queues: Vec<QueueStats>,
}

/// A wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireStats {
    /// Its number.
    pub gsi: u8,
    /// How often it has risen.
    pub rises: u64,
    /// Devices that hold it.
    pub holders: u32,
    /// Of them, those that assert it.
    pub asserting: u32,
    /// The vector in the redirection entry; absent if KVM has the I/O APIC.
    pub vector: Option<u8>,
    /// The entry is masked.
    pub masked: Option<bool>,
}

/// A source and its account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStats {
    /// "IRQ 4" (an input of the 8259A pair), "pin 4" (of the I/O APIC), "MSI".
    pub name: String,
    /// Its account.
    #[serde(flatten)]
    pub account: Account,
    /// On their way.
    pub pending: u64,
}

/// One vCPU's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VcpuStats {
    /// Exits by kind.
    pub exits: BTreeMap<String, u64>,
    /// System calls of its thread by kind.
    pub calls: BTreeMap<String, u64>,
    /// Interrupts given to the guest, without NMIs.
    pub interrupts: u64,
    /// Among them, those of the 8259A pair.
    pub extints: u64,
    /// NMIs given to KVM.
    pub nmis: u64,
    /// EOIs that the guest wrote to the register.
    pub eois: u64,
    /// EOIs that cost no exit.
    pub spared_eois: u64,
    /// Kicks by signal.
    pub signal_kicks: u64,
    /// Kicks by futex.
    pub futex_kicks: u64,
    /// Interrupts given to the guest by vector, those that came.
    pub vectors: BTreeMap<u8, u64>,
    /// Exits for each interrupt; 0 without interrupts.
    pub exits_per_interrupt: f64,
    /// ioctls for each interrupt, KVM_RUN among them.
    pub ioctls_per_interrupt: f64,
    /// Fixed interrupts in its mailbox.
    pub mailbox_requests: u64,
    /// NMIs in its mailbox.
    pub mailbox_nmis: u64,
    /// Its local APIC's ledger; absent if KVM has the local APIC.
    pub ledger: Option<VcpuLedger>,
}

/// A latency's distribution, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// A CPU of the bottom halves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftirqStats {
    /// How often each vector was raised.
    pub raised: BTreeMap<String, u64>,
    /// How often each vector has run.
    pub run: BTreeMap<String, u64>,
    /// Rounds over the pending vectors.
    pub rounds: u64,
    /// How often the rest was left to the softirq thread.
    pub handed_over: u64,
    /// Tasklets put on a list.
    pub tasklets: u64,
    /// Raises and schedules that merged into a pending one.
    pub merged: u64,
    /// From activation to run.
    pub latency: Latency,
}

/// A work queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Activations that made an item pending.
    pub queued: u64,
    /// Activations that merged.
    pub merged: u64,
    /// Runs.
    pub run: u64,
    /// Items cancelled before they ran.
    pub cancelled: u64,
    /// From activation to run.
    pub latency: Latency,
}
