//! What a benchmark run leaves behind: the file of `--json`, which `merge`, `compare` and the report read.
//!
//! A file holds one entry per host, keyed by the host's fingerprint, and each entry the runs made there; so files of many hosts
//! join without loss. Distributions are HDR histograms (V2, deflated, base64), one for each round, and every other figure of a row
//! follows from them: what is written beside them is for readers that have no HDR library.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The first field of a file of ours.
pub const FORMAT: &str = "tophalf-bench";
/// The version written; another one is refused.
pub const VERSION: u32 = 1;

/// A file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Each fingerprint once.
    pub hosts: Vec<Host>,
}

/// What was measured on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Which host.
    pub fingerprint: Fingerprint,
    /// In the order they were made.
    pub runs: Vec<Run>,
}

/// What a latency depends on, besides the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The processor's name.
    pub cpu: String,
    /// Processors that the program may use.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Which KVM: "Intel", "AMD", "software".
    pub kvm: String,
    /// The host is itself a guest.
    pub nested: bool,
    /// KVM's module parameters.
    pub kvm_parameters: BTreeMap<String, String>,
    /// The frequency governor, where there is one.
    pub governor: Option<String>,
}

/// One call of `tophalf bench`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The program's version.
    pub tophalf: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// The command line.
    pub command: Vec<String>,
    /// Where the open-loop times are drawn from.
    pub seed: u64,
    /// vCPUs of the guest.
    pub cpus: u32,
    /// The version of the QEMU behind the modes `qemu-...`; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// What `doctor` says will distort latencies, a line each.
    pub warnings: Vec<String>,
    /// What reading the clocks costs in every sample, in nanoseconds.
    pub overhead_ns: f64,
    /// One for each kind, mode and table that was measured.
    pub rows: Vec<Row>,
}

/// The mode that most ratios refer to.
pub const REFERENCE: &str = "kernel";

/// Under which conditions the modes were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// Each mode at its best.
    Best,
    /// The same CPUID for all modes.
    SameCpuid,
    /// Each mode as in [`Table::Best`], with its life-cycle trace written.
    Traced,
}

impl Table {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Best, Self::SameCpuid, Self::Traced];

    /// Where the reference of `mode`'s ratios is: table and mode. `None` for what is the reference itself.
    pub fn reference(self, mode: &str) -> Option<(Self, &str)> {
        match self {
            Self::Traced => Some((Self::Best, mode)),
            Self::Best | Self::SameCpuid => (mode != REFERENCE).then_some((self, REFERENCE)),
        }
    }

    /// What its ratios refer to, in words.
    pub fn reference_name(self) -> &'static str {
        match self {
            Self::Traced => "the same mode untraced",
            Self::Best | Self::SameCpuid => REFERENCE,
        }
    }
}

/// One kind of interrupt in one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which table it belongs to.
    pub table: Table,
    /// The kind's name, such as `ipi_running`.
    pub kind: String,
    /// From where to where is measured, in words.
    pub what: String,
    /// `user`, `split`, `kernel`, or `qemu-on`, `qemu-split`, `qemu-off`.
    pub mode: String,
    /// The histogram of each round.
    pub rounds: Vec<Round>,
    /// All rounds together, in nanoseconds.
    pub summary: Summary,
    /// The parts of the latency, in order; empty where they happen inside KVM.
    pub stages: Vec<Stage>,
    /// Counted, not timed; absent where nobody can count.
    pub per_interrupt: Option<PerInterrupt>,
    /// The slowest samples, to be looked at one by one.
    pub outliers: Vec<Outlier>,
    /// Against `kernel` mode in the same run; absent for `kernel` itself and where it was not measured.
    pub ratio: Option<Ratio>,
    /// Why there are no samples, where there are none.
    pub missing: Option<String>,
}

/// A round of one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which round of the run, from 0: rounds of the same number in other modes were neighbours in time.
    pub number: u32,
    /// Latencies in nanoseconds.
    pub histogram: String,
}

/// Figures of a distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Samples.
    pub count: u64,
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// A part of a latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Such as "raised to posted".
    pub name: String,
    /// Its distribution.
    pub summary: Summary,
}

/// What an interrupt costs in counts, on average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerInterrupt {
    /// Exits from the guest to the program.
    pub exits: f64,
    /// Kicks of a vCPU's thread.
    pub kicks: f64,
    /// Calls of KVM_RUN and other ioctls on the vCPUs' threads.
    pub ioctls: f64,
    /// All system calls on the vCPUs' threads that the program makes.
    pub system_calls: f64,
}

/// One slow sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// Nanoseconds since the run began.
    pub at_ns: u64,
    /// Which round.
    pub round: u32,
    /// How long it took.
    pub latency_ns: u64,
}

/// How many times as long as in `kernel` mode, with 95% confidence intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub p50: Interval,
    pub p99: Interval,
}

/// An estimate and where the true value lies, with 95% confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}
