//! A network between the guest and its host: a tap interface that the test makes, in a network namespace that it makes.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::panic;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use sys::tap::Tap;

use crate::assert_healthy;
use crate::guest::{Guest, Report};

/// MiB each way, and how often the link goes down and up again.
fn amounts(queues: u16) -> (usize, usize) {
    match (queues, std::env::var_os("TOPHALF_FULL").is_some()) {
        (1, false) => (256, 100),
        (1, true) => (1024, 100),
        _ => (8, 10),
    }
}

/// An emulated host on a slow and busy machine moves less than one MiB a second: then what it moves in this time is enough, but not
/// less than [`AT_LEAST`] MiB.
const ENOUGH: Duration = Duration::from_secs(90);
const AT_LEAST: usize = 8;

/// The bytes of one MiB, the `n`-th, another one each.
fn mebibyte(n: usize) -> Vec<u8> {
    let first = (n << 18) as u32;
    (first..first + (1 << 18)).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

/// Sends `count` MiB to the first who asks, or fewer in an emulated host that is too slow, and takes as many from the second; gives how
/// many were sent, and how many of them came back the same.
fn serve(listener: &TcpListener, count: usize) -> io::Result<(usize, usize)> {
    let (mut first, _) = listener.accept()?;
    let emulated = std::env::var_os("TOPHALF_LAB").is_some();
    let started = Instant::now();
    let mut sent = 0;
    while sent < count && !(emulated && sent >= AT_LEAST && started.elapsed() > ENOUGH) {
        first.write_all(&mebibyte(sent))?;
        sent += 1;
    }
    drop(first);
    let (mut second, _) = listener.accept()?;
    let mut back = vec![0; 1 << 20];
    for n in 0..sent {
        second.read_exact(&mut back)?;
        if back != mebibyte(n) {
            return Ok((sent, n));
        }
    }
    let more = second.read(&mut back)?;
    Ok((sent, sent + more.min(1)))
}

/// Runs `test`, and what it starts, in a network namespace of its own: no address or interface of this machine's is in its way, and it is
/// in nobody's. `None` where none can be made.
fn in_own_namespace<T: Send>(test: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    // A namespace belongs to a thread, and goes with the last of its processes.
    let own = || if unshare(CloneFlags::CLONE_NEWNET).is_ok() { test() } else { None };
    let result = thread::scope(|scope| scope.spawn(own).join()).unwrap_or_else(|failed| panic::resume_unwind(failed));
    if result.is_none() {
        println!("SKIPPED: no network namespace or no tap interface can be made here");
    }
    result
}

/// A network between a test and its guest.
struct Network {
    /// The tap interface.
    interface: String,
    /// This end's address; the guest's is the next one.
    host: &'static str,
    port: u16,
    /// An interface for several queues is there as long as this is open.
    made: Option<Tap>,
}

impl Network {
    /// `None` where it can't be made: a host without busybox's programs or the right.
    fn new(host: &'static str, port: u16, queues: u16) -> Option<Self> {
        let interface = format!("tht{}-{queues}", std::process::id() % 100_000);
        let made = if queues > 1 { Some(Tap::make(&interface).ok()?) } else { None };
        let is_there = made.is_some() || run("tunctl", &["-t", &interface]);
        let this = is_there.then_some(Self { interface, host, port, made })?;
        let up = run("ip", &["addr", "add", &format!("{host}/24"), "dev", &this.interface])
            && run("ip", &["link", "set", &this.interface, "up"]);
        up.then_some(this)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.made.is_none() {
            run("tunctl", &["-d", &self.interface]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A flood of pings, each sent when the last one was answered, and how many got lost. Fetches a file and sends it back, with pings
/// between, of which a full queue of the host's may lose some. Link down and up again, a few times.
const SCRIPT: &str = r#"
ip addr add GUEST/24 dev eth0 && ip link set eth0 up || exit 1
ping -A -c 1000 -w 100 -q -s 1400 HOST >/tmp/ping
grep -o '[0-9]* packets transmitted, [0-9]* packets received' /tmp/ping
ping -i 0.05 -s 1400 HOST >/dev/null & pings=$!
nc HOST PORT >/tmp/file || exit 2
nc HOST PORT </tmp/file || exit 3
kill $pings
for round in $(seq ROUNDS); do ip link set eth0 down; ip link set eth0 up; done
ping -c 3 -w 20 HOST >/tmp/ping || exit 4
cat /sys/class/net/eth0/address
"#;

/// Then from each CPU for itself: the driver sends by the pair of queues of that CPU, and the answers come in by the same.
const FROM_EACH_CPU: &str = r#"
for cpu in 1 2; do taskset $cpu ping -c 20 -i 0.05 HOST >/tmp/ping || exit 5; done
ls -1 -d /sys/class/net/eth0/queues/tx-*
"#;

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn packets_go_both_ways_and_none_is_lost() {
    in_own_namespace(|| go_both_ways("10.77.0.1", 5077, 1));
}

/// Red when: the control queue's command is not answered or not obeyed, or pairs of queues share what each should have.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn packets_go_both_ways_over_two_pairs_of_queues() {
    let Some(report) = in_own_namespace(|| go_both_ways("10.78.0.1", 5078, 2)) else { return };
    let queues = ["/sys/class/net/eth0/queues/tx-0", "/sys/class/net/eth0/queues/tx-1"];
    assert_eq!(report.lines("script")[2..4], queues, "{report}");
    for queue in ["input.0", "input.1"] {
        let is_its = |line: &&String| line.trim_end().ends_with(queue);
        let line = report.lines("interrupts").iter().find(is_its);
        let row = line.and_then(|line| line.split(':').next()).map(str::trim);
        let count = row.and_then(|row| report.interrupts(row));
        assert!(count.is_some_and(|count| count >= 20), "{count:?} interrupts of {queue}\n{report}");
    }
}

/// An interface with one queue is no place for two.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn an_interface_with_one_queue_is_refused_for_two() {
    let refused = || {
        let network = Network::new("10.79.0.1", 5079, 1)?;
        let kernel = crate::guest::variable("TOPHALF_KERNEL");
        Some(crate::guest::run(kernel.as_ref(), &["--net", &format!("tap={},queues=2", network.interface)]))
    };
    let Some(output) = in_own_namespace(refused) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("it has one queue only; leave out queues=2, or make it anew") && said.lines().count() == 1,
        "{said}"
    );
}

/// Gives the guest's report; `None` where there can be no network.
fn go_both_ways(host: &'static str, port: u16, queues: u16) -> Option<Report> {
    let network = Network::new(host, port, queues)?;
    let listener = TcpListener::bind((host, network.port)).expect("the interface has this address");
    let (transfer, rounds) = amounts(queues);
    let server = thread::spawn(move || serve(&listener, transfer));
    let script = if queues > 1 { [SCRIPT, FROM_EACH_CPU].concat() } else { SCRIPT.to_owned() };
    let guest = network.host.strip_suffix('1').map(|net| format!("{net}2")).expect("it ends in 1");
    let script = script.replace("HOST", network.host).replace("GUEST", &guest).replace("PORT", &port.to_string());
    let script = script.replace("ROUNDS", &rounds.to_string());
    // The file is in the guest's memory, which gives files half of itself.
    let memory = format!("{}M", 256 + 2 * transfer);
    let queues = if queues > 1 { format!(",queues={queues}") } else { String::new() };
    let net = format!("tap={},mac=02:00:00:00:00:77{queues}", network.interface);
    let guest = Guest::new().cpus(2).word("quiet th.virtio").option("--net", &net).option("--memory", &memory);
    let report = guest.script(&script).boot();
    let lines = report.lines("script");
    assert_eq!(lines.last().map(String::as_str), Some("@@TOPHALF-STATUS 0@@"), "{report}");
    assert_eq!(lines[0], "1000 packets transmitted, 1000 packets received", "{report}");
    assert_eq!(lines[1], "02:00:00:00:00:77", "{report}");
    let (sent, same) = server.join().expect("the server ends").expect("all of it comes");
    assert_eq!(same, sent, "MiB that came back as they were sent\n{report}");
    if sent < transfer {
        println!("only {sent} of {transfer} MiB went each way in {} s: this host is slow", ENOUGH.as_secs());
    }
    assert_healthy(&report, 2);
    Some(report)
}
