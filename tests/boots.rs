//! Stock Debian kernels on real KVM: boots, chip names, power-off, and a log without trouble.
//!
//! Needs a host with hardware virtualization, or the emulated one: `cargo xtask test` runs it there. The paths of the
//! program, the kernel and the initramfs come in `TOPHALF_BIN`, `TOPHALF_KERNEL` and `TOPHALF_INITRD`. The initramfs
//! prints a report in sections and powers the guest off.
//!
//! What makes these red: any lost interrupt (the boot hangs, or the log says so), a wrong EOI (the line goes dead), a
//! start-up that does not arrive (CPUs missing), a wrong table (chip names), a power-off that is none (exit code).

#[path = "boots/guest.rs"]
mod guest;

use guest::{Guest, Report};

/// What every healthy boot shows.
fn assert_healthy(report: &Report, cpus: u32) {
    assert_eq!(report.lines("cpus")[0], cpus.to_string(), "CPUs brought up\n{report}");
    assert_eq!(report.section("trouble"), "", "the guest's log tells of trouble\n{report}");
    for row in ["SPU", "ERR", "MIS"] {
        assert_eq!(report.interrupts(row).unwrap_or(0), 0, "{row} in /proc/interrupts\n{report}");
    }
    assert!(report.interrupts("4").unwrap_or(0) > 0, "no serial interrupt\n{report}");
}

/// The chip that `row` of /proc/interrupts names is `chip`.
fn assert_chip(report: &Report, row: &str, chip: &str) {
    let line = report.interrupt_line(row).unwrap_or_else(|| panic!("no row {row}\n{report}"));
    assert!(line.contains(chip), "row {row} is not {chip}: {line}\n{report}");
}

fn boots_on(cpus: u32) {
    let report = Guest::new().cpus(cpus).boot();
    assert_healthy(&report, cpus);
    assert_chip(&report, "4", "IO-APIC");
    assert_chip(&report, "9", "IO-APIC");
    for cpu in 0..cpus {
        assert!(report.interrupts_on("LOC", cpu).unwrap_or(0) > 0, "no timer interrupt on CPU {cpu}\n{report}");
    }
    if cpus > 1 {
        let ipis = report.interrupts("RES").unwrap_or(0) + report.interrupts("CAL").unwrap_or(0);
        assert!(ipis > 0, "no IPI\n{report}");
    }
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_1_vcpu() {
    boots_on(1);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_2_vcpus_time_after_time() {
    let rounds = if std::env::var_os("TOPHALF_FULL").is_some() { 20 } else { 5 };
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        boots_on(2);
    }
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_4_vcpus() {
    boots_on(4);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_8_vcpus() {
    boots_on(8);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn x2apic_and_tsc_deadline_are_used_where_the_host_lets_them_through() {
    let report = Guest::new().cpus(2).boot();
    assert!(report.section("apic").contains("x2apic enabled"), "{report}");
    assert!(report.section("clockevents").contains("lapic-deadline"), "{report}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn noapic_uses_the_8259a_pair_alone() {
    let report = Guest::new().cpus(2).word("noapic").boot();
    assert_healthy(&report, 2);
    assert_chip(&report, "4", "XT-PIC");
    assert_chip(&report, "2", "XT-PIC");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn nolapic_runs_on_virtual_wire_and_the_pit() {
    let report = Guest::new().cpus(2).word("nolapic").boot();
    assert_healthy(&report, 1);
    assert_chip(&report, "4", "XT-PIC");
    assert_chip(&report, "0", "XT-PIC");
    assert!(report.section("clockevents").contains("pit"), "{report}");
    assert_eq!(report.interrupts("LOC").unwrap_or(0), 0, "{report}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn nox2apic_uses_the_xapic_page() {
    let report = Guest::new().cpus(2).word("nox2apic").boot();
    assert_healthy(&report, 2);
    assert_chip(&report, "4", "IO-APIC");
    assert!(!report.section("apic").contains("x2apic enabled"), "{report}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn notscdeadline_uses_the_counting_timer() {
    let report = Guest::new().cpus(2).word("lapic=notscdeadline").boot();
    assert_healthy(&report, 2);
    let clockevents = report.section("clockevents");
    assert!(clockevents.contains("lapic") && !clockevents.contains("lapic-deadline"), "{report}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn nosmp_leaves_one_cpu_on_the_8259a_pair() {
    let report = Guest::new().cpus(2).word("nosmp").boot();
    assert_healthy(&report, 1);
    assert_chip(&report, "4", "XT-PIC");
}
