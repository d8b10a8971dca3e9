//! What the files of a host say about it: /proc and /sys below a root, which a test makes up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Flavour, Kind};

/// Parameters that matter for the cost of exits and interrupts.
const PARAMETERS: [(&str, &[&str]); 3] = [
    ("kvm", &["halt_poll_ns", "nx_huge_pages", "tdp_mmu"]),
    ("kvm_intel", &["ept", "enable_apicv", "flexpriority", "ple_gap", "preemption_timer", "vmentry_l1d_flush"]),
    ("kvm_amd", &["avic", "npt", "pause_filter_count"]),
];
/// Vulnerabilities whose mitigations are paid for at each exit, entry or system call.
const AT_EXITS: [&str; 11] = [
    "gather_data_sampling",
    "itlb_multihit",
    "l1tf",
    "mds",
    "meltdown",
    "mmio_stale_data",
    "retbleed",
    "spec_rstack_overflow",
    "spectre_v2",
    "tsx_async_abort",
    "vmscape",
];

/// What is known about a host from its files.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// Release of the kernel.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// CPUs that are online.
    pub cpus: usize,
    /// The processor shows VMX.
    pub vmx: bool,
    /// The processor shows SVM.
    pub svm: bool,
    /// A hypervisor is below this host.
    pub virtual_machine: bool,
    /// We run in a container.
    pub container: bool,
    /// CPUs are threads that share cores.
    pub smt: bool,
    /// Frequency governors and how many CPUs use them.
    pub governors: BTreeMap<String, usize>,
    /// The kernel's clocksource.
    pub clocksource: String,
    /// The TSC counts at one rate, asleep or not.
    pub steady_tsc: bool,
    /// Mitigations that cost at exits: vulnerability, and what is done.
    pub mitigations: BTreeMap<String, String>,
    /// Processes that ran or wanted to, on average over a minute.
    pub load: f64,
    /// Part of the time that a hypervisor below has given to others, in percent since the start.
    pub stolen_percent: f64,
    /// Time to leave the deepest enabled idle state, in us.
    pub idle_exit_us: u64,
    #[serde(skip)]
    modules: Vec<String>,
    #[serde(skip)]
    parameters: BTreeMap<String, String>,
}

impl Facts {
    /// Reads the files below `root`. What is not there is left out, as a container or an old kernel leaves it out.
    pub fn read(root: &Path) -> Self {
        let tree = Tree(root);
        let cpuinfo = tree.text("proc/cpuinfo");
        let flags = field(&cpuinfo, "flags");
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        Self {
            kernel: tree.text("proc/sys/kernel/osrelease"),
            processor: field(&cpuinfo, "model name").to_owned(),
            cpus: online(&tree.text("sys/devices/system/cpu/online"))
                .unwrap_or_else(|| cpuinfo.lines().filter(|line| line.starts_with("processor")).count()),
            vmx: has("vmx"),
            svm: has("svm"),
            virtual_machine: has("hypervisor"),
            container: tree.container(),
            smt: tree.text("sys/devices/system/cpu/smt/active") == "1",
            governors: tree.governors(),
            clocksource: tree.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            steady_tsc: has("constant_tsc") && has("nonstop_tsc"),
            mitigations: tree.mitigations(),
            load: tree.text("proc/loadavg").split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
            stolen_percent: stolen(&tree.text("proc/stat")),
            idle_exit_us: tree.idle_exit(),
            modules: tree.names("sys/module").into_iter().filter(|name| name.starts_with("kvm")).collect(),
            parameters: tree.parameters(),
        }
    }

    /// Which KVM this host has.
    pub fn flavour(&self) -> Flavour {
        let loaded = |name: &str| self.modules.iter().any(|module| module == name);
        let (kind, module) = if loaded("kvm_intel") {
            (Kind::Intel, Some("kvm_intel"))
        } else if loaded("kvm_amd") {
            (Kind::Amd, Some("kvm_amd"))
        } else if let Some(other) = self.modules.iter().find(|module| module.starts_with("kvm_")) {
            (Kind::Software, Some(other.as_str()))
        } else {
            (Kind::None, None)
        };
        Flavour {
            kind,
            module: module.map(str::to_owned),
            nested: self.virtual_machine && kind != Kind::None,
            parameters: self.parameters.clone(),
        }
    }
}

/// Files of a host.
struct Tree<'a>(&'a Path);

impl Tree<'_> {
    /// A file's text without space around it; empty when it can't be read.
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// The names in a folder, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn container(&self) -> bool {
        let marks = [".dockerenv", "run/.containerenv", "run/systemd/container"];
        marks.iter().any(|mark| self.0.join(mark).exists())
    }

    /// The folders of the CPUs, `cpu0` and so on.
    fn cpu_folders(&self) -> Vec<PathBuf> {
        let base = "sys/devices/system/cpu";
        let is_cpu = |name: &String| name.strip_prefix("cpu").is_some_and(|rest| rest.parse::<u32>().is_ok());
        self.names(base).into_iter().filter(is_cpu).map(|name| PathBuf::from(base).join(name)).collect()
    }

    fn governors(&self) -> BTreeMap<String, usize> {
        let mut governors = BTreeMap::new();
        for cpu in self.cpu_folders() {
            let governor = self.text(&cpu.join("cpufreq/scaling_governor").to_string_lossy());
            if !governor.is_empty() {
                *governors.entry(governor).or_default() += 1;
            }
        }
        governors
    }

    fn mitigations(&self) -> BTreeMap<String, String> {
        let read = |name: &str| (name.to_owned(), self.text(&format!("sys/devices/system/cpu/vulnerabilities/{name}")));
        // A vulnerability that only KVM's part is spared of reads "Not affected" or "Vulnerable": neither costs time.
        AT_EXITS.iter().map(|name| read(name)).filter(|(_, state)| state.contains("Mitigation")).collect()
    }

    fn idle_exit(&self) -> u64 {
        let states = self.cpu_folders().into_iter().next().map(|cpu| cpu.join("cpuidle"));
        let Some(states) = states.map(|path| path.to_string_lossy().into_owned()) else { return 0 };
        let enabled = |state: &String| self.text(&format!("{states}/{state}/disable")) != "1";
        let latency = |state: String| self.text(&format!("{states}/{state}/latency")).parse().ok();
        self.names(&states).into_iter().filter(enabled).filter_map(latency).max().unwrap_or(0)
    }

    fn parameters(&self) -> BTreeMap<String, String> {
        let all = PARAMETERS.iter().flat_map(|(module, names)| names.iter().map(move |name| (module, name)));
        let read = all.map(|(module, name)| {
            (format!("{module}.{name}"), self.text(&format!("sys/module/{module}/parameters/{name}")))
        });
        read.filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// A field of the first processor in /proc/cpuinfo.
fn field<'a>(cpuinfo: &'a str, name: &str) -> &'a str {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
}

/// The number of CPUs in a list such as `0-3,8`.
fn online(list: &str) -> Option<usize> {
    let mut count = 0;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

/// The stolen part in the first line of /proc/stat, in percent.
fn stolen(stat: &str) -> f64 {
    /// Its place among user, nice, system, idle, iowait, irq, softirq; the guests' times behind it are counted in user.
    const STEAL: usize = 7;
    let line = stat.lines().next().unwrap_or_default();
    let times: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let all: f64 = times.iter().take(STEAL + 1).sum();
    times.get(STEAL).filter(|_| all > 0.0).map_or(0.0, |steal| steal / all * 100.0)
}
