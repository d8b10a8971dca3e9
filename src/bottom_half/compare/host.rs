//! What this was measured on.

use std::fs;

/// Processor, kernel, load: without these the figures mean nothing.
pub(crate) fn fingerprint() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let hypervisor = if cpuinfo.contains(" hypervisor") { ", under a hypervisor" } else { "" };
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    format!(
        "host: {}, {cpus} CPUs{hypervisor}, Linux {}, clock source {}, load {}",
        model.trim(),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim(),
        read("/proc/loadavg").trim()
    )
}
