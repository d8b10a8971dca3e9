//! `--stats` and `tophalf audit`: the ledger of a machine that has really run balances.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Finished, Program, Scratch, run, tophalf};
use crate::guest::{Guest, asm};
use crate::program::can_run;

static IMAGE: &[u8] = include_bytes!(env!("TOPHALF_GUEST"));

/// What the kernel writes to the debug exit when nothing has failed, as an exit code.
const PASSED: Option<i32> = Some(1);

fn audit(file: &Path) -> Finished {
    let mut command = tophalf();
    command.arg("audit").arg(file);
    run(command, b"")
}

/// Runs the guest kernel's tests that match, and gives what `--stats` wrote, which is one line that balances.
#[track_caller]
fn run_tests(tests: &str, options: &[&str]) -> serde_json::Value {
    let (image, stats, reports) = (Scratch::file(IMAGE), Scratch::name(), Scratch::name());
    let software = if Path::new("/sys/module/kvm_pvm").exists() { "host=software" } else { "" };
    let mut command = tophalf();
    command.args(["run", "--memory", "128M", "--cmdline", &format!("{software} test={tests}")]).args(options);
    command.arg("--stats").arg(stats.path()).arg("--agent").arg(reports.path()).arg(image.path());
    let finished = run(command, b"");
    assert_eq!(finished.code, PASSED, "{}\n{}", String::from_utf8_lossy(&finished.stdout), finished.stderr);
    let audited = audit(stats.path());
    let said = String::from_utf8_lossy(&audited.stdout);
    assert_eq!((audited.code, audited.stderr.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("1 of 1 lines, 1 at the end"), "{said}");
    let text = fs::read_to_string(stats.path()).expect("it was written");
    serde_json::from_str(text.trim_end()).expect("one object")
}

fn total(stats: &serde_json::Value, field: &str) -> u64 {
    let vcpus = stats["vcpus"].as_array().expect("vCPUs");
    vcpus.iter().map(|vcpu| vcpu[field].as_u64().expect("a number")).sum()
}

/// Lines, MSIs, IPIs, NMIs, timers and the 8259A pair, on many processors, with INIT at the start.
///
/// Red when: any increment of the ledger is left out, or made twice; a fault loses an interrupt.
#[test]
fn the_ledger_balances_after_the_conservation_tests() {
    if !can_run() {
        return;
    }
    let stats = run_tests("conservation.*", &["--cpus", "4"]);
    assert_eq!((&stats["moment"], &stats["irqchip"], &stats["ends"]), (&"end".into(), &"user".into(), &().into()));
    assert!(total(&stats, "interrupts") > 1000 && total(&stats, "nmis") > 10, "{stats}");
    let names: Vec<_> = stats["sources"].as_array().expect("sources").iter().map(|s| s["name"].to_string()).collect();
    for name in ["\"MSI\"", "\"pin 2\""] {
        assert!(names.iter().any(|found| found == name), "no {name} in {names:?}");
    }
}

/// The same after the tests of the controllers, which do with them what no sane guest does.
#[test]
fn the_ledger_balances_after_the_tests_of_each_controller() {
    if !can_run() {
        return;
    }
    for tests in ["pic.*", "ioapic.*", "apic.*", "nmi.*", "ipi.*"] {
        let stats = run_tests(tests, &["--cpus", "2"]);
        assert!(total(&stats, "interrupts") > 0, "{tests}");
    }
}

/// In the other modes the ledger ends where KVM takes over, and says so; what is before balances.
#[test]
fn the_ledger_ends_where_kvm_takes_over() {
    if !can_run() {
        return;
    }
    for (mode, sources) in [("split", true), ("kernel", false)] {
        let (image, stats) = (Scratch::file(&halts()), Scratch::name());
        let mut command = tophalf();
        command.args(["run", "--memory", "64M", "--irqchip", mode, "--stats"]).arg(stats.path()).arg(image.path());
        let finished = run(command, b"");
        if finished.code == Some(4) {
            println!("SKIPPED: {}", finished.stderr);
            return;
        }
        let audited = audit(stats.path());
        assert_eq!(audited.code, Some(0), "{mode}: {}", String::from_utf8_lossy(&audited.stdout));
        assert!(String::from_utf8_lossy(&audited.stdout).contains("in KVM"));
        let text = fs::read_to_string(stats.path()).expect("it was written");
        let written: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one object");
        assert!(written["ends"].as_str().is_some_and(|ends| ends.contains("in KVM")));
        assert_eq!(written["vcpus"][0]["ledger"], serde_json::Value::Null);
        assert_eq!(written["pic_cycles"].is_object(), sources, "{mode}");
    }
}

/// A guest that ends at once.
fn halts() -> Vec<u8> {
    Guest::image(|g| {
        asm!(g; nop;);
    })
}

/// Every reset ends a machine, and its line; the interval's lines come between.
#[test]
fn lines_come_at_intervals_and_at_the_end() {
    if !can_run() {
        return;
    }
    let (image, stats) = (Scratch::file(IMAGE), Scratch::name());
    let mut command = tophalf();
    command.args([
        "run",
        "--memory",
        "128M",
        "--cmdline",
        "test=conservation.ipis_to_oneself",
        "--stats-interval",
        "0.001",
    ]);
    command.arg("--stats").arg(stats.path()).arg(image.path());
    assert_eq!(run(command, b"").code, PASSED);
    let text = fs::read_to_string(stats.path()).expect("it was written");
    let moments: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object a line")["moment"].to_string())
        .collect();
    let (last, before) = moments.split_last().expect("at least the end");
    assert_eq!(last, "\"end\"");
    assert!(!before.is_empty() && before.iter().all(|moment| moment == "\"running\""), "{moments:?}");
    let audited = audit(stats.path());
    assert_eq!(audited.code, Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
}

/// A machine that waits, with its sockets in a folder of the test's: SIGUSR1 has a line written while it runs, `top` finds it,
/// and its socket goes with it.
#[test]
fn a_running_machine_is_seen_and_leaves_nothing_behind() {
    if !can_run() {
        return;
    }
    let runtime = Scratch::name();
    fs::create_dir(runtime.path()).expect("a folder");
    let image = Guest::image(|g| {
        g.report_rax("ready");
        asm!(g; sti;);
        let top = g.here();
        asm!(g; hlt; jmp top;);
    });
    let (image, stats) = (Scratch::file(&image), Scratch::name());
    let mut command = tophalf();
    command.env("XDG_RUNTIME_DIR", runtime.path());
    command.args(["run", "--memory", "64M", "--stats"]).arg(stats.path()).arg(image.path());
    let mut machine = Program::start(command);
    while !String::from_utf8_lossy(&machine.stdout).contains("ready") {
        assert!(machine.take_output(), "it ended: {}", String::from_utf8_lossy(&machine.stderr));
    }
    let top = || {
        let mut command = tophalf();
        command.env("XDG_RUNTIME_DIR", runtime.path()).args(["top", "--once", "--json", "--interval", "0.05"]);
        run(command, b"")
    };
    let seen = top();
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).expect("JSON");
    let pid = machine.child.id();
    assert_eq!(seen["machines"].as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!((&seen["machines"][0]["pid"], &seen["machines"][0]["irqchip"]), (&pid.into(), &"user".into()));

    sys::signal::send(pid, sys::signal::Signal::User1).expect("it runs");
    let written = || fs::read_to_string(stats.path()).expect("a file").lines().count();
    // Each look takes a while.
    let looks = (0..400).take_while(|_| written() == 0 && top().code == Some(0)).count();
    assert_eq!(written(), 1, "after {looks} looks");
    sys::signal::send(pid, sys::signal::Signal::Terminate).expect("it runs");
    machine.finish();
    assert_eq!(written(), 2, "and one at the end");
    assert_eq!(audit(stats.path()).code, Some(0));

    let nobody = top();
    assert_eq!(nobody.code, Some(2));
    assert_eq!(nobody.stderr, "tophalf: no machine of yours is running; start one with 'tophalf run'\n");
    let left: Vec<_> = fs::read_dir(runtime.path().join("tophalf")).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
    fs::remove_dir_all(runtime.path()).expect("ours");
}

#[test]
fn audit_names_the_source_that_does_not_balance() {
    if !can_run() {
        return;
    }
    let stats = run_tests("conservation.ipis_to_oneself", &[]);
    let mut text = stats.to_string();
    // serde_json sorts the fields; only the file's own order is known when it is cut.
    text.push('\n');
    let own = stats["vcpus"][0]["ledger"]["apic"]["requests"]["delivered"].as_u64().expect("a number");
    let broken = text.replace(&format!("\"delivered\":{own},"), &format!("\"delivered\":{},", own - 1));
    assert_ne!(broken, text);
    let file = Scratch::file(broken.as_bytes());
    let audited = audit(file.path());
    let said = String::from_utf8_lossy(&audited.stdout);
    assert_eq!(audited.code, Some(1), "{said}");
    assert!(said.contains("vCPU 0"), "{said}");
}

fn refused(arguments: &[&str], words: &[&str]) {
    let mut command: Command = tophalf();
    command.args(arguments);
    let finished = run(command, b"");
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(words.iter().all(|word| finished.stderr.contains(word)), "{}", finished.stderr);
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let scratch = Scratch::file(b"hello\n");
    let other = scratch.path().to_str().expect("a name");
    refused(&["audit", "/nowhere"], &["/nowhere", "name a file"]);
    refused(&["audit", other], &["no file of 'tophalf run --stats'"]);
    refused(&["run", "--stats-interval", "1", other], &["--stats FILE"]);
    refused(&["run", "--stats", other, "--stats-interval", "0", other], &["0.001 to 86400"]);
    refused(&["run", "--stats", other, "--stats-interval", "NaN", other], &["0.001 to 86400"]);
    refused(&["run", "--stats", "-", other], &["serial port", "--serial null"]);
}
