//! The channels between us and the emulated host: virtio ports that end in Unix sockets of ours.
//!
//! `ctl` carries lines and files from `init.sh`; `in`, `out` and `err` are the command's streams, untouched by
//! any terminal; `tty` replaces these three when the command is to have a terminal. An output stream ends with a
//! marker, since a port has no end of file that waits for what is still under way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// How long an emulated host with one CPU may sleep through an interrupt, see [`keep_awake`].
const AWAKE: Duration = Duration::from_millis(20);
/// The same with several CPUs, which wake each other most of the time; and each interruption may have one deliver an injected interrupt
/// twice, see [`super::CPUS`].
const AWAKE_WITH_SEVERAL: Duration = Duration::from_millis(100);

/// What happens to a run, told to the one thread that waits for it.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// The emulated host is up and starts the command.
    Ready,
    /// Its process 1 still gets its turn.
    Alive,
    /// The emulated host cannot run the command, for this reason.
    Fail(String),
    /// The command ended with this exit code.
    Exit(u8),
    /// The contents of the n-th file to be copied out, or nothing if there is no such file.
    File(usize, Option<Vec<u8>>),
    /// Nothing more follows.
    End,
    /// An output stream has been passed on to its end.
    Drained,
    /// The other end went away.
    Closed,
    /// Nobody reads our output any more.
    Unread,
    /// This process got a signal.
    Signal(i32),
}

/// Listening ends, before QEMU connects to them.
pub struct Link {
    directory: TempDir,
    ports: Vec<(&'static str, UnixListener)>,
}

impl Link {
    /// Makes the sockets; with a terminal they are `tty` and `ctl`, else `in`, `out`, `err` and `ctl`.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn new(terminal: bool) -> Result<Self> {
        // Not below target/: a socket's path may have 107 bytes only.
        let directory = tempfile::Builder::new().prefix("tophalf-lab-").tempdir().context("no temporary directory")?;
        // ctl last: init takes its appearance as a sign that the others are connected.
        let names: &[&'static str] = if terminal { &["tty", "ctl"] } else { &["in", "out", "err", "ctl"] };
        let listen = |&name: &&'static str| {
            let listener = UnixListener::bind(directory.path().join(name)).context("cannot make a socket")?;
            listener.set_nonblocking(true).context("cannot set up a socket")?;
            Ok((name, listener))
        };
        let ports = names.iter().map(listen).collect::<Result<_>>()?;
        Ok(Self { directory, ports })
    }

    /// QEMU's arguments for these ports.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-device".to_owned(), "virtio-serial-pci".to_owned()];
        for (name, _) in &self.ports {
            let path = self.directory.path().join(name).display().to_string().replace(',', ",,");
            let device = if *name == "tty" { "virtconsole" } else { "virtserialport" };
            arguments.push("-chardev".to_owned());
            arguments.push(format!("socket,id={name},path={path}"));
            arguments.push("-device".to_owned());
            arguments.push(format!("{device},chardev={name},name={name}"));
        }
        arguments
    }

    /// Waits for `qemu` to connect; the streams come in the order of [`Link::new`].
    /// None when QEMU ended instead.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn accept(&self, qemu: &mut Child) -> Result<Option<Vec<UnixStream>>> {
        let mut streams = Vec::new();
        while let Some((_, listener)) = self.ports.get(streams.len()) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).context("cannot set up a socket")?;
                    streams.push(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if qemu.try_wait().context("cannot wait for QEMU")?.is_some() {
                        return Ok(None);
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error).context("cannot accept QEMU's connection"),
            }
        }
        Ok(Some(streams))
    }
}

/// Copies `from` to `to` up to the marker, on a thread of its own.
/// Keeps reading when `to` fails, so that the emulated host does not stall, and says so once.
pub fn pump_output(mut from: UnixStream, mut to: Box<dyn Write + Send>, marker: String, events: Sender<Event>) {
    thread::spawn(move || {
        let mut until = UntilMarker::new(marker);
        let mut buffer = [0; 1 << 16];
        let mut broken = false;
        while !until.ended {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let bytes = until.take(&buffer[..count]);
            if !broken && to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                broken = true;
                // The run may be over already; then nobody cares.
                let _ = events.send(Event::Unread);
            }
        }
        if !broken {
            // Bytes that looked like the marker's beginning until the stream broke off.
            let _ = to.write_all(&until.held).and_then(|()| to.flush());
        }
        let _ = events.send(Event::Drained);
    });
}

/// Copies our stdin to `to` on a thread of its own, end of file included. The thread may outlive the run.
pub fn pump_input(mut to: UnixStream) {
    thread::spawn(move || {
        // A command that does not read its input is no error.
        let _ = io::copy(&mut io::stdin().lock(), &mut to);
        let _ = to.shutdown(Shutdown::Write);
        // Closed now, QEMU would see a hang-up and drop what it has not read yet.
        let _ = to.read(&mut [0]);
    });
}

/// Reads `ctl` on a thread of its own.
pub fn read_control(ctl: UnixStream, events: Sender<Event>) {
    thread::spawn(move || {
        let mut ctl = BufReader::new(ctl);
        loop {
            let event = next_event(&mut ctl).unwrap_or(Event::Closed);
            let last = event == Event::Closed;
            if events.send(event).is_err() || last {
                return;
            }
        }
    });
}

/// Interrupts the emulated host from outside every so often, on a thread of its own, until it is gone.
///
/// QEMU's SVM sets and clears a bit of the CPU's pending interrupts at VMRUN and VMEXIT without its big lock. When a timer's thread sets
/// another bit of that word at the same moment, one of the two is lost; if it is that of the local APIC's request, the CPU sleeps in
/// HLT with the vector in IRR. A one-shot timer's interrupt is then the last one, for host and guests. The next interrupt
/// of any kind has the local APIC look at its IRR again, and all goes on.
pub fn keep_awake(mut ctl: UnixStream, cpus: u32) {
    let pause = if cpus == 1 { AWAKE } else { AWAKE_WITH_SEVERAL };
    thread::spawn(move || {
        // Init throws away what comes after its first line.
        while ctl.write_all(b"\n").is_ok() {
            thread::sleep(pause);
        }
    });
}

/// Reads one message; None at the end or when it makes no sense.
fn next_event(ctl: &mut impl BufRead) -> Option<Event> {
    let mut line = String::new();
    ctl.read_line(&mut line).ok()?;
    let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
    match word {
        "ready" => Some(Event::Ready),
        "alive" => Some(Event::Alive),
        "fail" => Some(Event::Fail(rest.to_owned())),
        "exit" => rest.parse().ok().map(Event::Exit),
        "nofile" => rest.parse().ok().map(|number| Event::File(number, None)),
        "file" => {
            let (number, size) = rest.split_once(' ')?;
            let size: u64 = size.parse().ok()?;
            let mut contents = Vec::new();
            ctl.take(size).read_to_end(&mut contents).ok()?;
            let whole = contents.len() as u64 == size;
            whole.then_some(Event::File(number.parse().ok()?, Some(contents)))
        }
        "end" => Some(Event::End),
        _ => None,
    }
}

/// Passes bytes on until a marker comes, however it is cut into pieces.
struct UntilMarker {
    marker: Vec<u8>,
    held: Vec<u8>,
    ended: bool,
}

impl UntilMarker {
    fn new(marker: String) -> Self {
        Self { marker: marker.into_bytes(), held: Vec::new(), ended: false }
    }

    /// Takes what came and gives what may go on: all but a tail that may be the marker's beginning.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let size = self.marker.len();
        let keep = if let Some(at) = self.held.windows(size).position(|window| window == self.marker) {
            self.ended = true;
            self.held.truncate(at);
            0
        } else {
            (1..size).rev().find(|&n| self.held.ends_with(&self.marker[..n])).unwrap_or(0)
        };
        let held = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, held)
    }
}

#[cfg(test)]
mod tests;
