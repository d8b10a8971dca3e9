//! The virtio console: `hvc0`, a port between a program of the guest and one of the host, and the size of a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::assert_healthy;
use crate::guest::{Guest, Running, base64, command, variable};

/// Bytes each way: more than all the buffers in between hold.
const BYTES: usize = 2 << 20;

/// Takes what comes by the port, and sends it back; says something on the console.
const SCRIPT: &str = r#"
until name=$(grep -lx echo /sys/class/virtio-ports/*/name 2>/dev/null); do usleep 1000; done
port=/dev/$(basename $(dirname $name))
echo "a line of the guest" >/dev/hvc0
head -c 2097152 <$port >/tmp/file
wc -c </tmp/file
cat /tmp/file >$port
ls /sys/class/tty | grep hvc
"#;

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tophalf-{}-{name}", std::process::id()))
}

/// A client of the port, as soon as it is there; `None` when the guest has ended without.
fn connect(path: &PathBuf, ended: &std::sync::mpsc::Receiver<()>) -> Option<UnixStream> {
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return Some(stream);
        }
        if !matches!(ended.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            return None;
        }
        thread::yield_now();
    }
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn a_console_and_a_port_lose_nothing_to_a_slow_reader() {
    let (log, socket) = (temporary("hvc0"), temporary("port"));
    let data: Vec<u8> = (0..BYTES / 4).flat_map(|n| (n as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let (sent, path) = (data.clone(), socket.clone());
    let (running, ended) = std::sync::mpsc::channel();
    let client = thread::spawn(move || {
        let mut stream = connect(&path, &ended)?;
        // All of it before a byte is read: what comes back waits in the guest.
        stream.write_all(&sent).expect("the guest takes it");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("all of it comes");
        Some(back)
    });
    let report = Guest::new()
        .cpus(2)
        .word("quiet th.virtio")
        .script(SCRIPT)
        .option("--console", &format!("file:{}", log.display()))
        .option("--console", &format!("socket:{},name=echo", socket.display()))
        .boot();
    drop(running);
    let back = client.join().expect("the client ends").unwrap_or_else(|| panic!("no socket\n{report}"));
    let said = std::fs::read_to_string(&log).expect("the console's file");
    let _ = std::fs::remove_file(&log);
    assert_healthy(&report, 2);
    let lines = report.lines("script");
    assert_eq!(lines.last().map(String::as_str), Some("@@TOPHALF-STATUS 0@@"), "{report}");
    assert_eq!(lines[0], BYTES.to_string(), "{report}");
    assert!(lines[1] == "hvc0", "{report}");
    assert!(said.contains("a line of the guest"), "{said}\n{report}");
    assert!(back == data, "{} bytes came back\n{report}", back.len());
}

/// Nothing that is waited for takes longer; what does has hung.
const LIMIT: Duration = Duration::from_secs(300);
/// O_NOCTTY of open(2).
const NO_CONTROLLING_TERMINAL: i32 = 0o400;

/// Says each size of the console's terminal, which it has open all the time.
const SIZES: &str = r#"
exec 3<>/dev/hvc0
last=
while :; do
    size=$(stty size <&3)
    if [ "$size" != "$last" ]; then echo "@@ $size"; last=$size; fi
    if [ "$size" = "50 100" ]; then break; fi
    usleep 20000
done
"#;

/// A terminal gets this size: by its path, as a user does who has something else at its other side.
fn stty(path: &str, size: &str) {
    let terminal = File::options().read(true).write(true).custom_flags(NO_CONTROLLING_TERMINAL).open(path);
    let terminal = terminal.expect("the other side of the pseudo-terminal");
    let (rows, columns) = size.split_once(' ').expect("rows and columns");
    let status = Command::new("stty").args(["rows", rows, "columns", columns]).stdin(terminal).status();
    assert!(status.expect("stty is there").success());
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        BufReader::new(stream).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok());
    });
    lines
}

/// Waits for a line with `mark`, and gives what is behind it.
fn wait_for(lines: &Receiver<String>, mark: &str, seen: &mut String) -> String {
    loop {
        let line = lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("no {mark:?} ({e})\n{seen}"));
        *seen += &format!("{}\n", line.trim_end());
        if let Some((_, rest)) = line.trim_end().split_once(mark) {
            return rest.to_owned();
        }
    }
}

/// A guest with these consoles, the first on a pseudo-terminal, sees the size that this has, and the one that it gets.
fn sees_sizes(consoles: &[&str]) {
    let cmdline = format!("console=ttyS0 quiet th.virtio th.sh={}", base64(SIZES.as_bytes()));
    let consoles = ["pty"].iter().chain(consoles).flat_map(|target| ["--console", target]);
    let child = command(variable("TOPHALF_KERNEL").as_ref())
        .args(["--initrd", &variable("TOPHALF_INITRD"), "--no-reboot"])
        .args(consoles)
        .args(["--cmdline", &cmdline])
        .spawn()
        .expect("tophalf starts");
    let Running(child) = &mut Running(child);
    let said = lines(child.stderr.take().expect("stderr is a pipe"));
    let console = lines(child.stdout.take().expect("stdout is a pipe"));
    let mut seen = String::new();
    let path = wait_for(&said, "console port 0 is at ", &mut seen);
    // Long before the guest has a driver.
    stty(&path, "43 132");
    // An open terminal's size changes a moment after the driver knows of the console.
    let mut size = wait_for(&console, "@@ ", &mut seen);
    if size == "0 0" {
        size = wait_for(&console, "@@ ", &mut seen);
    }
    assert_eq!(size, "43 132", "{seen}");
    stty(&path, "50 100");
    // Rows and columns are set one after the other.
    while size != "50 100" {
        size = wait_for(&console, "@@ ", &mut seen);
        assert!(["50 132", "43 100", "50 100"].contains(&size.as_str()), "{seen}");
    }
    let status = child.wait().expect("tophalf can be waited for");
    assert_eq!(status.code(), Some(0), "{status}\n{seen}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn a_console_alone_has_the_size_of_its_terminal() {
    sees_sizes(&[]);
}

/// Its size comes by another way: by a message.
#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn a_console_of_several_has_the_size_of_its_terminal() {
    sees_sizes(&["null"]);
}
