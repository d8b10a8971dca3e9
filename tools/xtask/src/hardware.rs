//! Whether this host has KVM on real hardware virtualization.

use std::fs::{self, OpenOptions};

/// Why guests cannot run directly on this host, or None when they can.
pub fn obstacle() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_virtualization(&cpuinfo) {
        return Some("no vmx or svm in /proc/cpuinfo".to_owned());
    }
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => None,
        Err(error) => Some(format!("cannot open /dev/kvm: {error}")),
    }
}

fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == "flags");
    flags.flat_map(|(_, flags)| flags.split_whitespace()).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests;
