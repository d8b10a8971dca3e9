//! `tophalf doctor`: whether machines run on this host, on which KVM, and what will distort their latencies.
//!
//! Two shells look at the real host, `HostTree` at files and `kvm` at the device; all that is concluded from them is pure and
//! tested against made-up hosts.

mod access;
mod distortions;
mod facts;
mod kvm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use ::kvm::probe::HostFeatures;
use serde::Serialize;

pub use access::Device;
pub use facts::Facts;

/// What was found out about a host.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether `tophalf run` will work here.
    pub usable: bool,
    /// What keeps it from working.
    pub problem: Option<Finding>,
    /// Which KVM this is.
    pub kvm: Flavour,
    /// The interrupt-controller modes, and why those that don't work don't.
    pub modes: Vec<Mode>,
    /// What the probe found; nothing when it could not run.
    pub features: Option<HostFeatures>,
    /// The host itself.
    pub host: Facts,
    /// What will distort latencies.
    pub distortions: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is, and what it does.
    pub cause: String,
    /// What can be done about it.
    pub remedy: String,
}

impl Finding {
    fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

/// Which KVM a host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flavour {
    /// Whose hardware it uses.
    pub kind: Kind,
    /// The kernel module that drives it, when one is loaded.
    pub module: Option<String>,
    /// The host is itself a virtual machine.
    pub nested: bool,
    /// The module's parameters that matter for exits and interrupts, as `module.name`.
    pub parameters: BTreeMap<String, String>,
}

/// Whose hardware a KVM uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// VMX.
    Intel,
    /// SVM.
    Amd,
    /// None: the guest's kernel is interpreted or deprivileged.
    Software,
    /// No KVM is loaded.
    None,
}

/// An interrupt-controller mode that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mode {
    /// As `--irqchip` has it.
    pub name: &'static str,
    /// Why it does not work; nothing when it does.
    pub obstacle: Option<String>,
}

/// Looks at this host. Makes throw-away virtual machines; takes a fraction of a second.
pub fn examine() -> Report {
    let facts = Facts::read(Path::new("/"));
    let trial = kvm::try_out();
    conclude(facts, trial)
}

/// Ring 0 of guests is interpreted here: a software KVM. Guests under test need to know.
pub fn interprets_ring_0() -> bool {
    Facts::read(Path::new("/")).flavour().kind == Kind::Software
}

/// Interrupts may come between STI and the instruction after it where KVM has the local APICs. Guests under test need to know. Probes
/// once, in a throw-away machine; without a KVM that can be used it is false.
pub fn forgets_sti_shadow() -> bool {
    static FORGETS: OnceLock<bool> = OnceLock::new();
    *FORGETS.get_or_init(|| kvm::try_out().features.is_some_and(|features| !features.shadow_outlives_exit))
}

/// What the trial of /dev/kvm gave.
struct Trial {
    device: Device,
    features: Option<HostFeatures>,
    modes: Vec<Mode>,
}

fn conclude(facts: Facts, trial: Trial) -> Report {
    let kvm = facts.flavour();
    let problem = access::problem(&trial.device, &facts, &kvm).or_else(|| {
        let default = trial.modes.first()?;
        let obstacle = default.obstacle.clone()?;
        Some(Finding::new(
            format!("virtual machines don't run in mode {}: {obstacle}", default.name),
            "see the kernel's log (`dmesg`) and use Linux 5.10 or newer",
        ))
    });
    Report {
        usable: problem.is_none(),
        problem,
        distortions: distortions::find(&facts, &kvm),
        kvm,
        modes: trial.modes,
        features: trial.features,
        host: facts,
    }
}
