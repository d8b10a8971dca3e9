//! Kernel parameters that take a chip or a mode away, and what the guest is left with.
//!
//! Each row: the words, the CPUs that come up of 2, the chip that serves the serial port, and what must and must not be
//! in a section of the report.

use crate::guest::{Guest, Report};
use crate::{assert_chip, assert_healthy};

/// What a section must say.
enum Says {
    /// This is in it.
    Has(&'static str, &'static str),
    /// This is not.
    Lacks(&'static str, &'static str),
    /// This row of /proc/interrupts names this chip.
    Chip(&'static str, &'static str),
    /// This row of /proc/interrupts counts something, or nothing at all.
    Counts(&'static str, bool),
}
use Says::{Chip, Counts, Has, Lacks};

fn check(report: &Report, cpus: u32, chip: &str, says: &[Says]) {
    assert_healthy(report, cpus);
    assert_chip(report, "4", chip);
    for rule in says {
        match *rule {
            Has(section, word) => assert!(report.section(section).contains(word), "no {word} in {section}\n{report}"),
            Lacks(section, word) => assert!(!report.section(section).contains(word), "{word} in {section}\n{report}"),
            Chip(row, chip) => assert_chip(report, row, chip),
            Counts(row, some) => assert_eq!(report.interrupts(row).unwrap_or(0) > 0, some, "row {row}\n{report}"),
        }
    }
}

/// One test a row, so that each can be run by its name.
macro_rules! rows {
    ($($name:ident: $words:literal, $cpus:literal, $chip:literal, [$($says:expr),*];)*) => {$(
        #[test]
        #[ignore = "needs real KVM: run by cargo xtask test"]
        fn $name() {
            let report = Guest::new().cpus(2).word($words).boot();
            check(&report, $cpus, $chip, &[$($says),*]);
        }
    )*};
}

rows! {
    noapic_uses_the_8259a_pair_alone: "noapic", 2, "XT-PIC", [Chip("2", "XT-PIC"), Counts("LOC", true)];
    nolapic_runs_on_virtual_wire_and_the_hpet: "nolapic", 1, "XT-PIC",
        [Chip("0", "XT-PIC"), Has("clockevents", "hpet"), Counts("LOC", false)];
    nolapic_without_hpet_runs_on_the_pit: "nolapic hpet=disable", 1, "XT-PIC",
        [Chip("0", "XT-PIC"), Has("clockevents", "pit"), Counts("LOC", false)];
    nox2apic_uses_the_xapic_page: "nox2apic", 2, "IO-APIC", [Lacks("apic", "x2apic enabled")];
    notscdeadline_uses_the_counting_timer: "lapic=notscdeadline", 2, "IO-APIC",
        [Has("clockevents", "lapic"), Lacks("clockevents", "lapic-deadline")];
    hpet_disable_leaves_the_other_timers: "hpet=disable", 2, "IO-APIC",
        [Lacks("clock", "hpet"), Lacks("clockevents", "hpet")];
    without_high_resolution_timers_there_is_a_periodic_tick: "nohz=off highres=off", 2, "IO-APIC",
        [Counts("LOC", true), Lacks("hrtimers", ".hres_active   : 1")];
    nosmp_leaves_one_cpu_on_the_8259a_pair: "nosmp", 1, "XT-PIC", [];
    pci_off_changes_no_interrupt: "pci=off", 2, "IO-APIC", [Chip("9", "IO-APIC"), Lacks("apic", "PCI: Using")];
    idle_poll_never_halts: "idle=poll", 2, "IO-APIC", [Counts("LOC", true), Has("idle", "using polling idle threads")];
}

/// The cloud kernel is built without MP tables, so without ACPI it knows one CPU and no I/O APIC. Without ACPI there is no
/// power-off either.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn acpi_off_leaves_one_cpu_on_the_8259a_pair() {
    let report = Guest::new().cpus(2).word("acpi=off th.reboot").ends_with(32).boot();
    check(&report, 1, "XT-PIC", &[Chip("0", "XT-PIC"), Chip("2", "XT-PIC")]);
    assert!(report.interrupt_line("9").is_none(), "{report}");
}
