//! What will make latencies on a host longer, or less steady, than they could be.

use super::facts::Facts;
use super::{Finding, Flavour, Kind};

/// Below this many CPUs, vCPUs, the main loop and the rest of the host get into each other's way.
const FEW_CPUS: usize = 4;
/// Load per CPU from which others' work is felt.
const BUSY: f64 = 0.5;
/// Stolen time from which it is felt, in percent.
const STOLEN: f64 = 1.0;
/// Idle states that take longer to leave are felt, in us.
const DEEP_IDLE: u64 = 50;
/// Clocksources that are read without leaving the program, and count like the TSC.
const GOOD_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "tsc-early"];

/// All that is found, the weightiest first.
pub fn find(host: &Facts, kvm: &Flavour) -> Vec<Finding> {
    let all = [
        software(kvm),
        nested(kvm),
        shadow_paging(kvm),
        few_cpus(host),
        load(host),
        stolen(host),
        governor(host),
        idle(host),
        smt(host),
        tsc(host),
        mitigations(host),
    ];
    all.into_iter().flatten().collect()
}

fn software(kvm: &Flavour) -> Option<Finding> {
    (kvm.kind == Kind::Software).then(|| {
        let module = kvm.module.as_deref().unwrap_or("kvm");
        let cause = format!(
            "KVM without hardware virtualization ({module}): the guest's kernel is interpreted, and all exits cost about the same"
        );
        Finding::new(cause, "measure on hardware with VT-x or AMD-V; here, compare counts and order only")
    })
}

fn nested(kvm: &Flavour) -> Option<Finding> {
    (kvm.nested && kvm.kind != Kind::Software).then(|| {
        Finding::new(
            "nested virtualization: this host is a virtual machine, and each exit of a guest becomes several below it",
            "measure on the machine itself",
        )
    })
}

fn shadow_paging(kvm: &Flavour) -> Option<Finding> {
    let off = |name: &&str| kvm.parameters.get(*name).is_some_and(|value| ["N", "0"].contains(&value.as_str()));
    ["kvm_intel.ept", "kvm_amd.npt"].into_iter().find(off).map(|name| {
        Finding::new(
            format!("nested paging is off ({name}): the guest's page-table changes become exits"),
            format!("load the module with {}=1", name.split('.').next_back().unwrap_or(name)),
        )
    })
}

fn few_cpus(host: &Facts) -> Option<Finding> {
    (1..FEW_CPUS).contains(&host.cpus).then(|| {
        let cpus = if host.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", host.cpus) };
        Finding::new(
            format!("{cpus}: vCPUs, the main loop and everything else share them"),
            "give the guest fewer vCPUs than there are CPUs, or use a larger host",
        )
    })
}

fn load(host: &Facts) -> Option<Finding> {
    (host.load > BUSY * host.cpus.max(1) as f64).then(|| {
        Finding::new(
            format!("the CPUs are busy: load {:.2} on {}; vCPUs wait for their turn", host.load, host.cpus),
            "measure when nothing else runs",
        )
    })
}

fn stolen(host: &Facts) -> Option<Finding> {
    (host.stolen_percent > STOLEN).then(|| {
        Finding::new(
            format!("the hypervisor below gave {:.1}% of this host's time to others", host.stolen_percent),
            "measure on the machine itself, or on one that is not shared",
        )
    })
}

fn governor(host: &Facts) -> Option<Finding> {
    let slow: Vec<_> = host.governors.iter().filter(|(name, _)| *name != "performance").collect();
    let count: usize = slow.iter().map(|(_, count)| *count).sum();
    let names = slow.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    (count > 0).then(|| {
        Finding::new(
            format!("frequency governor {names} on {count} of {} CPUs: wake-ups find a slow clock", host.cpus),
            "`sudo cpupower frequency-set -g performance`",
        )
    })
}

fn idle(host: &Facts) -> Option<Finding> {
    (host.idle_exit_us > DEEP_IDLE).then(|| {
        Finding::new(
            format!("the deepest idle state takes {} us to leave, which is added to wake-ups", host.idle_exit_us),
            format!("`sudo cpupower idle-set -D {DEEP_IDLE}`"),
        )
    })
}

fn smt(host: &Facts) -> Option<Finding> {
    host.smt.then(|| {
        Finding::new(
            "hyper-threading (SMT) is on: what runs on the other thread of a core slows a vCPU down",
            "keep vCPUs on cores of their own (`taskset`), or `echo off | sudo tee /sys/devices/system/cpu/smt/control`",
        )
    })
}

fn tsc(host: &Facts) -> Option<Finding> {
    // An old or made-up kernel may say nothing about its clock.
    let odd_clock = !host.clocksource.is_empty() && !GOOD_CLOCKS.contains(&host.clocksource.as_str());
    let cause = if odd_clock {
        format!("the kernel's clocksource is {}, not the TSC: reading the time is slow", host.clocksource)
    } else if !host.steady_tsc {
        "the TSC is not steady (no constant_tsc and nonstop_tsc): the guest can't trust its clock".to_owned()
    } else {
        return None;
    };
    Some(Finding::new(cause, "see the kernel's log (`dmesg | grep -i tsc`) for what it holds against the TSC"))
}

fn mitigations(host: &Facts) -> Option<Finding> {
    let names = host.mitigations.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        Finding::new(
            format!("mitigations that are paid for at exits and system calls: {names}"),
            "compare results only with those of hosts that have the same",
        )
    })
}
