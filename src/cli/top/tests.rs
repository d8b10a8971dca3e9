//! Rates, and how machines are found.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use vmm::stats::{
    Account, FORMAT, Latency, Moment, QueueStats, SoftirqStats, SourceStats, VERSION, VcpuStats, WireStats,
};

use super::*;

/// A machine that has been up for so many seconds, and had as many interrupts.
pub fn snapshot(seconds: u64, interrupts: u64) -> Snapshot {
    let vcpu = VcpuStats {
        interrupts,
        exits: [("halt".to_owned(), 2 * interrupts), ("msr".to_owned(), 0)].into(),
        vectors: [(0x31, interrupts)].into(),
        signal_kicks: interrupts,
        ..VcpuStats::default()
    };
    let idle = SoftirqStats { run: [("TASKLET".to_owned(), 0)].into(), ..SoftirqStats::default() };
    let latency = Latency { count: 10, p50: 1500, p90: 2000, p99: 90_000, max: 100_000 };
    let softirqs =
        SoftirqStats { run: [("TASKLET".to_owned(), interrupts)].into(), latency, ..SoftirqStats::default() };
    Snapshot {
        format: FORMAT.to_owned(),
        version: VERSION,
        pid: 7,
        kernel: "vmlinuz".to_owned(),
        machine: 1,
        moment: Moment::Running,
        uptime_ns: seconds * 1_000_000_000,
        irqchip: "user".to_owned(),
        ends: None,
        wires: vec![WireStats {
            gsi: 4,
            rises: interrupts,
            holders: 1,
            asserting: 0,
            vector: Some(0x31),
            masked: Some(false),
        }],
        sources: vec![SourceStats {
            name: "pin 4".to_owned(),
            account: Account { asserted: interrupts, delivered: interrupts, ..Account::default() },
            pending: 0,
        }],
        pic_cycles: None,
        posts: Default::default(),
        vcpus: vec![vcpu, VcpuStats::default()],
        softirqs: vec![idle.clone(), idle, softirqs],
        queues: vec![QueueStats { name: "events".to_owned(), run: interrupts, ..QueueStats::default() }],
    }
}

pub fn view() -> View {
    View::between(&snapshot(10, 1000), &snapshot(12, 1500))
}

#[test]
fn rates_are_what_happened_in_the_interval_a_second() {
    let view = view();
    assert_eq!(view.seconds, 2.0);
    assert_eq!((view.lines[0].rises, view.sources[0].delivered, view.vcpus[0].interrupts), (250.0, 250.0, 250.0));
    assert_eq!((view.vectors[0].total, &view.vectors[0].vcpus), (250.0, &vec![250.0, 0.0]));
    assert_eq!((view.vcpus[0].exits, view.vcpus[0].exits_by_reason["halt"]), (500.0, 500.0));
    assert_eq!((view.queues[0].run, view.vcpus[0].kicks), (250.0, 250.0));
    assert_eq!(view.cpus[2].latency.p99, 90_000);
    assert!(view.vcpus[1].exits.is_sign_positive(), "no vCPU has -0 exits");
}

#[test]
fn after_a_reset_rates_begin_anew() {
    let after = Snapshot { machine: 2, ..snapshot(2, 100) };
    assert_eq!(View::between(&snapshot(10, 1000), &after).vcpus[0].interrupts, 50.0);
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("ours");
    folder
}

#[test]
fn machines_are_found_and_stale_sockets_cleaned_away() {
    let folder = folder();
    assert_eq!(Finder::new(folder.path().join("none")).look(), Ok(Found::default()));
    let stale = folder.path().join("1-0.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    fs::write(folder.path().join("note"), "no socket").expect("a file");
    let listener = UnixListener::bind(folder.path().join("7-0.sock")).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        client.write_all(&snapshot(1, 2).to_line()).expect("it reads");
    });
    let mut finder = Finder::new(folder.path().to_owned());
    assert_eq!(finder.look(), Ok(Found { machines: vec![snapshot(1, 2)], silent: Vec::new() }));
    server.join().expect("no panic");
    assert!(!stale.exists(), "cleaned away");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    assert!(finder.look().expect_err("others can enter").contains("0700"));
}

/// A machine that is stopped was asked anew at each look, until its socket had no place for a question, and the next look waited for
/// ever.
#[test]
fn a_machine_that_does_not_answer_is_asked_once_and_heard_later() {
    let folder = folder();
    let listener = UnixListener::bind(folder.path().join("7-0.sock")).expect("a socket");
    let mut finder = Finder::new(folder.path().to_owned());
    for _ in 0..3 {
        assert_eq!(finder.look(), Ok(Found { machines: Vec::new(), silent: vec![7] }));
    }
    let (mut client, _) = listener.accept().expect("a client");
    listener.set_nonblocking(true).expect("a listener");
    assert!(listener.accept().is_err(), "a second question");
    let line = snapshot(1, 2).to_line();
    client.write_all(&line[..10]).expect("it reads");
    assert_eq!(finder.look().map(|found| found.silent), Ok(vec![7]), "half an answer");
    client.write_all(&line[10..]).expect("it reads");
    drop(client);
    assert_eq!(finder.look().map(|found| found.machines), Ok(vec![snapshot(1, 2)]));
}
