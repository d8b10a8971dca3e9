//! Stock Debian kernels on real KVM: boots, chip names, power-off, and a log without trouble.
//!
//! Needs a host with hardware virtualization, or the emulated one: `cargo xtask test` runs it there. The paths of the
//! program, the kernels (the cloud kernel also as the ELF file in it), the initramfs and a disk image come in `TOPHALF_BIN`,
//! `TOPHALF_KERNEL`, `TOPHALF_VMLINUX`, `TOPHALF_GENERIC_KERNEL`, `TOPHALF_INITRD`,
//! `TOPHALF_GENERIC_INITRD` and `TOPHALF_DISK`. The initramfs prints a
//! report in sections and powers the guest off.
//!
//! What makes these red: any lost interrupt (the boot hangs, or the log says so), a wrong EOI (the line goes dead), a
//! start-up that does not arrive (CPUs missing), a wrong table (chip names), a power-off that is none (exit code).

#[path = "boots/clock.rs"]
mod clock;
#[path = "boots/console.rs"]
mod console;
#[path = "boots/crash.rs"]
mod crash;
#[path = "boots/disks.rs"]
mod disks;
#[path = "boots/elf.rs"]
mod elf;
#[path = "boots/exec.rs"]
mod exec;
#[path = "boots/guest.rs"]
mod guest;
#[path = "boots/hotplug.rs"]
mod hotplug;
#[path = "boots/kvms_chips.rs"]
mod kvms_chips;
#[path = "boots/net.rs"]
mod net;
#[path = "boots/parameters.rs"]
mod parameters;
#[path = "boots/rng.rs"]
mod rng;
#[path = "boots/root_disk.rs"]
mod root_disk;
#[path = "boots/session.rs"]
mod session;
#[path = "boots/watchdog.rs"]
mod watchdog;

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
    assert_boots(Guest::new(), cpus);
}

fn assert_boots(guest: Guest, cpus: u32) -> Report {
    let report = guest.cpus(cpus).boot();
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
    report
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_1_vcpu() {
    // With all that the kernel has to say: the serial line is busy while everything else starts.
    assert_boots(Guest::new().word("loglevel=7"), 1);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_2_vcpus_time_after_time() {
    let rounds = if std::env::var_os("TOPHALF_FULL").is_some() { 20 } else { 3 };
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

/// The kernel finds all of them, starts them, and routes interrupts by 15 bits of destination.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_apic_ids_far_apart() {
    assert_boots(Guest::new().option("--apic-ids", "0,255,256,300,32766"), 5);
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
fn the_hpet_is_clocksource_and_clockevent_when_asked_to() {
    // The local APICs' timers are off (the kernel would use TSC deadlines all the same): one CPU has the HPET, through the I/O
    // APIC, and broadcasts to the other. Its clock is chosen through sysfs.
    let report = Guest::new().cpus(2).word("nolapic_timer lapic=notscdeadline th.clocksource=hpet").boot();
    assert_healthy(&report, 2);
    assert_eq!(report.lines("clock")[0], "hpet", "{report}");
    assert!(report.section("clockevents").contains("hpet"), "{report}");
    assert_chip(&report, "0", "IO-APIC");
    assert!(report.interrupts("0").unwrap_or(0) > 100, "the HPET doesn't tick\n{report}");
}

/// The generic kernel reads the MP table: all CPUs, the I/O APIC, and the wiring of its pins.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn acpi_off_finds_all_cpus_by_the_mp_table() {
    let report = Guest::new().cpus(4).generic().word("acpi=off th.reboot").ends_with(32).boot();
    assert_healthy(&report, 4);
    assert_chip(&report, "4", "IO-APIC");
    assert_chip(&report, "8", "IO-APIC");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn a_panic_ends_with_34() {
    Guest::new().cpus(2).word("th.panic").ends_with(34).boot();
}
