//! Guests with KVM's own controllers, and what is compared with them. In the emulated host these tests run with one CPU: with two,
//! its processors deliver an injected interrupt twice now and then, and a guest hangs whose local APIC is KVM's.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::guest::Guest;
use crate::session::Session;
use crate::{assert_boots, assert_healthy, disks};

const SECONDS: u64 = 10;
/// Seconds before and after that.
const SETTLE: u64 = 4;
/// `user` mode may wake this much more often than `kernel` mode.
const GOAL: f64 = 1.3;
/// A handful more or less is chance, however short the row.
const CHANCE: u64 = 20;

/// Voluntary context switches of a process's threads, by their names.
fn wake_ups(pid: u32) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there").flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        *counts.entry(read("comm").trim().to_owned()).or_default() +=
            line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    counts
}

fn wake_ups_of_an_idle_guest(mode: &str) -> BTreeMap<String, u64> {
    let mut session = Session::start(&["--cpus", "4", "--irqchip", mode], "");
    // What the boot left to do, and the answer itself, is done with in the first of these.
    assert_eq!(session.ask(&format!("quiet {}", 2 * SETTLE + SECONDS)), "quiet");
    session.is_silent_for(Duration::from_secs(SETTLE));
    let before = wake_ups(session.pid());
    session.is_silent_for(Duration::from_secs(SECONDS));
    let mut counts = wake_ups(session.pid());
    session.answer_is("awake");
    session.end();
    counts.iter_mut().for_each(|(name, count)| *count -= before.get(name).unwrap_or(&0));
    counts
}

/// Red when, besides: EOIs of level interrupts don't come back from KVM's local APICs, or the timer's line ends at another
/// pin of KVM's I/O APIC.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_with_kvms_own_controllers() {
    for (mode, cpus) in [("split", 1), ("split", 2), ("kernel", 1), ("kernel", 2)] {
        println!("{mode}, {cpus} vCPUs");
        assert_boots(Guest::new().option("--irqchip", mode), cpus);
    }
}

/// KVM's own local APICs have IDs below 4096.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn boots_split_with_apic_ids_far_apart() {
    assert_boots(Guest::new().option("--irqchip", "split").option("--apic-ids", "0,255,256,300"), 4);
}

/// Messages go to KVM.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn disks_interrupt_through_kvms_own_controllers() {
    for mode in ["split", "kernel"] {
        println!("{mode}");
        let report = disks::copies(Guest::new().cpus(2).option("--irqchip", mode));
        assert_healthy(&report, 2);
        disks::assert_messages(&report);
    }
}

/// An idle guest costs next to nothing: no thread of the program polls.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn an_idle_guest_wakes_about_as_rarely_as_with_kvms_chips() {
    let kernel = wake_ups_of_an_idle_guest("kernel");
    let user = wake_ups_of_an_idle_guest("user");
    let (of_user, of_kernel) = (user.values().sum::<u64>(), kernel.values().sum::<u64>());
    println!("{of_user} wake-ups in {SECONDS} s in user mode, {of_kernel} in kernel mode");
    assert!(of_user <= (of_kernel as f64 * GOAL) as u64 + CHANCE, "user {user:?}, kernel {kernel:?}");
}
