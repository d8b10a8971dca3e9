//! The kinds of interrupts: from where to where each is measured, in the order in which they are shown.
//!
//! The guest kernel has a measurement of each name (`guest/suite/measure`); docs/benchmarks.md says more.

/// What reading the clock costs; belongs to no row.
pub const CLOCK: &str = "clock";

/// Kinds, and what is measured.
const KINDS: [(&str, &str); 20] = [
    ("self_ipi", "IPI to the CPU itself: from before the ICR is written to the handler's gate"),
    ("ipi_running", "IPI to another CPU, which spins: from before the ICR is written to the gate there"),
    ("ipi_halted", "IPI to another CPU, which is in HLT: from before the ICR is written to the gate there"),
    ("ipi_all", "IPI to all CPUs: from before the ICR is written to the last CPU's gate"),
    ("device_edge", "edge on an I/O APIC pin: from the time it was due in the host to the gate of a spinning CPU"),
    ("device_level", "level on an I/O APIC pin: from the time it was due in the host to after acknowledge and EOI"),
    ("pic_extint", "edge on an 8259A input: from the time it was due in the host to the gate (ExtINT)"),
    ("msi", "message-signalled interrupt: from the time it was due in the host to the gate of a spinning CPU"),
    ("nmi", "NMI: from the time it was due in the host to the gate of a spinning CPU"),
    ("timer_oneshot", "local APIC timer, one-shot: lateness at the gate of a spinning CPU"),
    ("timer_periodic", "local APIC timer, periodic: lateness of each expiry at the gate of a spinning CPU"),
    ("timer_deadline", "local APIC timer, TSC deadline: lateness at the gate of a spinning CPU"),
    ("hlt_wakeup", "local APIC timer, one-shot: lateness at the gate of a CPU in HLT"),
    ("round_trip", "request to a device and its answer: from before the write, by top and bottom half, to the gate"),
    ("eoi", "the EOI of an edge-triggered interrupt"),
    ("tpr_write", "a write of the TPR register, to what it is"),
    ("exit_pio", "OUT to a port of this program"),
    ("exit_mmio", "a read of a device's register in memory, in this program"),
    ("exit_msr", "RDMSR of an x2APIC register"),
    ("exit_cpuid", "CPUID, which KVM answers in every mode"),
];

/// From where to where this kind is measured.
pub fn what(kind: &str) -> &'static str {
    KINDS.iter().find(|(name, _)| *name == kind).map_or("", |(_, what)| what)
}

/// Its place among the rows; those that are not known here come last.
pub fn place(kind: &str) -> usize {
    KINDS.iter().position(|(name, _)| *name == kind).unwrap_or(KINDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stress::image::Image;

    /// Red when: a measurement has no description, or a description no measurement.
    #[test]
    fn every_measurement_of_the_guest_is_described() {
        let image = Image::open(None).unwrap();
        let mut measured: Vec<&str> = image.measurements().iter().map(|record| record.name()).collect();
        measured.retain(|name| *name != CLOCK);
        let mut described: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        measured.sort_unstable();
        described.sort_unstable();
        assert_eq!(measured, described);
    }
}
