//! The watchdog as a stock kernel drives it (`i6300esb`, which the generic kernel has): a program opens it, feeds it once and never again.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use crate::guest::{Running, base64, command, lines, variable};

/// Nothing here takes longer; what does has hung.
const LIMIT: Duration = Duration::from_secs(300);

/// One second is the shortest that the driver takes. Then the guest waits for a line, which it gets when the watchdog has
/// bitten: who comes to read it lives.
const SCRIPT: &str = r#"
# The driver, after what it needs, which takes no parameter and ignores it.
for module in /generic/*; do insmod $module heartbeat=1 || exit 1; done
dog=/sys/class/watchdog/watchdog0
[ -c /dev/watchdog ] && exec 3>/dev/watchdog || exit 1
echo "@@DOG $(cat $dog/identity), $(cat $dog/timeout) s, $(cat $dog/state)@@"
echo >&3
read -r line
echo "@@ALIVE@@"
"#;

/// How a guest ended that did not feed its watchdog.
struct Ended {
    code: Option<i32>,
    console: String,
}

impl Ended {
    fn is_alive(&self) -> bool {
        self.console.contains("@@ALIVE@@")
    }
}

fn starve(action: &str) -> Ended {
    let cmdline = format!("console=ttyS0 quiet th.sh={}", base64(SCRIPT.as_bytes()));
    let child = command(variable("TOPHALF_GENERIC_KERNEL").as_ref())
        .args(["--initrd", &variable("TOPHALF_GENERIC_INITRD"), "--no-reboot", "--watchdog", action])
        .args(["--cmdline", &cmdline])
        .stdin(Stdio::piped())
        .spawn()
        .expect("tophalf starts");
    let mut child = Running(child);
    let mut input = child.0.stdin.take().expect("a pipe");
    let said = lines(child.0.stderr.take().expect("a pipe"));
    let output = lines(child.0.stdout.take().expect("a pipe"));
    let mut console = String::new();
    loop {
        match said.recv_timeout(LIMIT) {
            Ok(line) if line.contains("has not fed its watchdog") => break,
            Ok(_) => {}
            Err(error) => {
                let console: Vec<_> = output.try_iter().collect();
                panic!("{action}: the watchdog did not bite ({error}):\n{}", console.join("\n"));
            }
        }
    }
    // To a machine that has ended nobody can say anything.
    let _ = input.write_all(b"\n");
    while let Ok(line) = output.recv_timeout(LIMIT) {
        console += line.trim_end();
        console.push('\n');
    }
    let code = child.0.try_wait().expect("it can be asked").and_then(|status| status.code());
    assert!(console.contains("@@DOG i6300ESB timer, 1 s, active@@"), "{action}:\n{console}");
    Ended { code: code.or_else(|| child.0.wait().expect("it can be waited for").code()), console }
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn an_unfed_watchdog_resets_the_machine() {
    let ended = starve("reset");
    assert!(ended.code == Some(32) && !ended.is_alive(), "{:?}\n{}", ended.code, ended.console);
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn an_unfed_watchdog_powers_the_machine_off() {
    let ended = starve("poweroff");
    assert!(ended.code == Some(0) && !ended.is_alive(), "{:?}\n{}", ended.code, ended.console);
}

/// What where the vCPUs are looks like, says `tests/tiny_guests/watchdog.rs`.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn after_a_dump_the_guest_goes_on() {
    let ended = starve("dump");
    assert!(ended.code == Some(0) && ended.is_alive(), "{:?}\n{}", ended.code, ended.console);
}
