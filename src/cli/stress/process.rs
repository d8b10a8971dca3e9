//! A machine with the guest kernel in it, as a child process: whatever happens to one leaves this program alone. What the guest
//! reports to the test agent comes back over the child's standard output.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;
use vmm::protocol::words;
use vmm::{Error, exit_code};

use super::image::Image;
use super::plan::Mode;
use super::watch::Watch;

/// How much of what the guest and the machine say is kept for the story of a failure.
pub const LINES: usize = 400;

/// What is to be run.
pub struct Launch {
    /// Where the interrupt controllers are.
    pub mode: Mode,
    /// vCPUs.
    pub cpus: u32,
    /// Words for the guest kernel's command line, besides those that say what machine it is in.
    pub words: Vec<String>,
    /// The guest sees only those features that it sees in all modes.
    pub same_cpuid: bool,
    /// Its life-cycle trace is written, to a temporary file that nobody reads.
    pub traced: bool,
}

/// How it ended.
pub struct Ended {
    /// The child's status.
    pub status: ExitStatus,
    /// The limit that was exceeded.
    pub exceeded: Option<String>,
    /// What the machine said last: the state of the vCPUs and chips, when something went wrong.
    pub machine: VecDeque<String>,
}

enum Line {
    Event(String),
    Stderr(String),
}

/// Runs a machine to its end. Each line that the agent writes goes to `event`, which tells the watch when a test begins; from then
/// on it may use `limit` of CPU time.
///
/// # Errors
///
/// When no machine can be had: a fault of this host, not of the test.
pub fn run(
    image: &Image,
    launch: &Launch,
    limit: Duration,
    event: impl FnMut(&str, &mut Watch),
) -> Result<Ended, Error> {
    let program = std::env::current_exe().map_err(|e| Error::host("this program can't be found", e))?;
    let mut cmdline = launch.words.clone();
    cmdline.push(format!("{}={}", words::IRQCHIP, launch.mode.name()));
    if vmm::doctor::interprets_ring_0() {
        cmdline.push(format!("{}={}", words::HOST, words::SOFTWARE));
    }
    // In `user` mode this program sees to it.
    if launch.mode != Mode::User && vmm::doctor::forgets_sti_shadow() {
        cmdline.push(format!("{}={}", words::SHADOW, words::LOST));
    }
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(image.path())
        .args(["--agent", "-", "--serial", "null", "--memory", "128M", "--no-reboot", "--irqchip", launch.mode.name()])
        .args(["--cpus", &launch.cpus.to_string(), "-v", "--cmdline", &cmdline.join(" ")]);
    if launch.same_cpuid {
        command.arg("--same-cpuid");
    }
    let trace = launch.traced.then(NamedTempFile::new).transpose();
    let trace = trace.map_err(|e| Error::host("no temporary file for a trace", e))?;
    if let Some(trace) = &trace {
        command.arg("--trace").arg(trace.path());
    }
    command.env_remove("RUST_LOG");
    let ended = attend(command, |pid| Watch::new(pid, limit), event)?;
    if let Some(code) = ended.status.code().filter(|&code| super::is_trouble(code)) {
        let said = ended.machine.back().map_or("", String::as_str);
        let said = said.strip_prefix("tophalf: ").unwrap_or(said).to_owned();
        return Err(if code == i32::from(exit_code::USAGE) {
            Error::Usage(said)
        } else {
            Error::host("a machine can't be had", std::io::Error::other(said))
        });
    }
    Ok(ended)
}

/// Runs `command` to its end, within the limits of the watch that is made for its process. Each line of its standard output goes to
/// `event`.
///
/// # Errors
///
/// When there is no such process.
pub fn attend(
    mut command: Command,
    watch: impl FnOnce(u32) -> Watch,
    mut event: impl FnMut(&str, &mut Watch),
) -> Result<Ended, Error> {
    // A QEMU would not notice that nobody listens any more.
    vmm::dies_with_its_parent(&mut command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::host("no process for a machine", e))?;
    let (sender, lines) = channel();
    let pumps = [
        child.stdout.take().map(|stdout| pump(stdout, sender.clone(), Line::Event)),
        child.stderr.take().map(|stderr| pump(stderr, sender, Line::Stderr)),
    ];

    let mut machine = VecDeque::new();
    let mut watch = watch(child.id());
    loop {
        match lines.recv_timeout(watch.pause()) {
            Ok(Line::Event(line)) => event(&line, &mut watch),
            Ok(Line::Stderr(line)) => keep(&mut machine, line),
            Err(RecvTimeoutError::Timeout) => watch.look(&mut child),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(|e| Error::host("a machine's process is lost", e))?;
    for pump in pumps.into_iter().flatten() {
        // It has closed its end of the channel.
        let _ = pump.join();
    }
    Ok(Ended { status, exceeded: watch.exceeded(), machine })
}

fn pump(stream: impl Read + Send + 'static, to: Sender<Line>, make: fn(String) -> Line) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if to.send(make(line)).is_err() {
                return;
            }
            bytes.clear();
        }
    })
}

/// Keeps the line with the last ones.
pub fn keep(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}
