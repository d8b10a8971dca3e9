//! One run of the emulated host, from QEMU's start to the command's exit code.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::link::{self, Event, Link};
use super::qemu::{self, Machine, Qemu};
use super::terminal::Raw;
use super::{Copy, Job, Outcome};
use crate::failure::{self, Failure};
use crate::signals;

/// How long the emulated host may take to come up; it takes 3 s on two idle cores.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long it may be silent then. It says every 10 s of its own time that it is there; that long it is not kept from everything by
/// load, but by a guest: a program in it whose guest hangs can still see to that itself.
const SILENCE_LIMIT: Duration = Duration::from_secs(240);

/// A running emulated host. Dropping it kills QEMU and restores the terminal.
pub struct Session {
    // Dropped in this order: QEMU first, so that the threads see the end of their streams.
    _qemu: Qemu,
    _raw: Option<Raw>,
    events: Receiver<Event>,
    outputs: usize,
    copy_out: Vec<Copy>,
    timeout: Option<Duration>,
    started: Instant,
    log: PathBuf,
    kept_log: PathBuf,
    messages: PathBuf,
}

impl Session {
    /// Starts QEMU and the threads that carry the streams.
    ///
    /// # Errors
    /// Exit code 4 when QEMU does not start.
    pub fn start(job: Job, machine: &Machine, link: &Link, marker: String) -> Result<Self> {
        let started = Instant::now();
        let mut qemu = Qemu::start(machine)?;
        let Some(streams) = link.accept(&mut qemu.child)? else {
            return Err(died(machine.messages, machine.log, machine.kept_log));
        };
        let (sender, events) = channel();
        let interrupted = sender.clone();
        signals::tell(move |signal| interrupted.send(Event::Signal(signal)).is_ok())?;

        let mut streams = streams.into_iter();
        let mut next = || streams.next().context("a port is missing");
        let mut outputs = 0;
        let mut raw = None;
        let mut output = |stream, to| {
            outputs += 1;
            link::pump_output(stream, to, marker.clone(), sender.clone());
        };
        if job.terminal {
            let terminal = next()?;
            raw = Some(Raw::new()?);
            link::pump_input(duplicate(&terminal)?);
            output(terminal, job.stdout);
        } else {
            let input = next()?;
            if job.input {
                link::pump_input(input);
            }
            output(next()?, job.stdout);
            output(next()?, job.stderr);
        }
        let control = next()?;
        // init waits for a line: it says that both ends are connected.
        (&control).write_all(b"hello\n").context("cannot talk to the emulated host")?;
        link::keep_awake(duplicate(&control)?, machine.cpus);
        link::read_control(control, sender);
        Ok(Self {
            _qemu: qemu,
            _raw: raw,
            events,
            outputs,
            copy_out: job.copy_out,
            timeout: job.timeout,
            started,
            log: machine.log.to_path_buf(),
            kept_log: machine.kept_log.to_path_buf(),
            messages: machine.messages.to_path_buf(),
        })
    }

    /// Waits for the command's end and brings the files back.
    ///
    /// # Errors
    /// As [`super::run`].
    pub fn wait(mut self) -> Result<Outcome> {
        let mut outcome = Outcome { code: 0, missing: Vec::new(), boot: Duration::ZERO };
        let mut heard = None;
        let mut ended = false;
        while !ended || self.outputs > 0 {
            let event = self.next(heard)?;
            if event == Event::Ready || heard.is_some() {
                heard = Some(Instant::now());
            }
            match event {
                Event::Ready => outcome.boot = self.started.elapsed(),
                Event::Alive => {}
                Event::Fail(reason) => return Err(failure::host(reason)),
                Event::Exit(code) => outcome.code = code,
                Event::File(number, contents) => {
                    let Some(copy) = self.copy_out.get(number) else { continue };
                    match contents {
                        Some(contents) => fs::write(&copy.host, contents)
                            .with_context(|| format!("cannot write {}", copy.host.display()))?,
                        None => outcome.missing.push(copy.guest.clone()),
                    }
                }
                Event::End => ended = true,
                Event::Drained => self.outputs = self.outputs.saturating_sub(1),
                Event::Closed => return Err(died(&self.messages, &self.log, &self.kept_log)),
                Event::Unread => return Err(Failure::silent(128 + 13).into()),
                Event::Signal(signal) => {
                    return Err(Failure::silent(128u8.saturating_add(u8::try_from(signal).unwrap_or(0))).into());
                }
            }
        }
        Ok(outcome)
    }

    /// The next event, `heard` being when the host last said that it is there.
    fn next(&self, heard: Option<Instant>) -> Result<Event> {
        let overall = self.timeout.map(|limit| self.started + limit);
        let quiet = heard.map_or(self.started + BOOT_LIMIT, |heard| heard + SILENCE_LIMIT);
        let deadline = overall.map_or(quiet, |overall| overall.min(quiet));
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Ok(event),
            Err(RecvTimeoutError::Disconnected) => Ok(Event::Closed),
            Err(RecvTimeoutError::Timeout) if Some(deadline) == overall => {
                let limit = self.timeout.unwrap_or_default().as_secs();
                let message = format!("the command did not end within {limit} s: emulated host killed");
                Err(Failure::new(failure::TIMEOUT, message).into())
            }
            Err(RecvTimeoutError::Timeout) => {
                let (what, limit) = match heard {
                    None => ("did not come up within", BOOT_LIMIT),
                    Some(_) => ("stood still for", SILENCE_LIMIT),
                };
                let (limit, log) = (limit.as_secs(), self.kept_log.display());
                Err(failure::host(format!("the emulated host {what} {limit} s; its kernel's log is in {log}")))
            }
        }
    }
}

fn duplicate(stream: &UnixStream) -> Result<UnixStream> {
    stream.try_clone().context("cannot duplicate a socket")
}

fn died(messages: &Path, log: &Path, kept_log: &Path) -> anyhow::Error {
    failure::host(format!(
        "the emulated host died ({}); its kernel's log is in {}",
        qemu::epitaph(messages, log),
        kept_log.display()
    ))
}
