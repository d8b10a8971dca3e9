//! Where the test agent's reports go.
//!
//! A thread of its own writes them, since whoever reads them may stop doing so. The vCPU's thread that reports waits until its line
//! is written: nothing that a test said is lost, and a reader that does not read holds up the guest, not our memory. It waits
//! only as long as its machine is not stopped, so that the program can end whatever the reader does.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use devices::agent::Event;
use parking_lot::{Condvar, Mutex};

use crate::Error;

#[cfg(test)]
mod tests;

/// Lines that may wait at once: one for each vCPU, or what machines that are gone have left.
const WAITING_MAX: usize = crate::MAX_CPUS as usize;

/// Where reports go; kept over resets of the guest. Until [`Reports::start`] nothing is written, and who reports waits.
pub struct Reports {
    lines: Arc<Lines>,
    /// Until the writer has it.
    output: Mutex<Option<Box<dyn Write + Send>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Reports {
    /// Writes to the file at `path`, made anew; to standard output if it is `-`. Waits for the reader of a FIFO.
    ///
    /// # Errors
    ///
    /// A usage error if the file can't be made.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        if path == Path::new("-") {
            return Ok(Self::to(Box::new(io::stdout())));
        }
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            log::info!("waiting for somebody who reads the FIFO {}", path.display());
        }
        let file = File::create(path).map_err(|e| {
            Error::Usage(format!("the agent's file {} can't be written: {e}; give another one", path.display()))
        })?;
        Ok(Self::to(Box::new(file)))
    }

    fn to(output: Box<dyn Write + Send>) -> Arc<Self> {
        Arc::new(Self { lines: Arc::default(), output: Mutex::new(Some(output)), writer: Mutex::default() })
    }

    /// Starts the thread that writes; it inherits the blocked signals of the calling one. Once is enough.
    ///
    /// # Errors
    ///
    /// The host gives no thread.
    pub fn start(&self) -> Result<(), Error> {
        let Some(output) = self.output.lock().take() else { return Ok(()) };
        let lines = Arc::clone(&self.lines);
        let writer = thread::Builder::new().name("reports".to_owned()).spawn(move || lines.write_to(output));
        *self.writer.lock() = Some(writer.map_err(|e| Error::host("no thread for the agent's reports", e))?);
        Ok(())
    }

    /// Writes `event` as a line; returns when it is written, or can't be, or the machine `is_stopped`.
    pub fn write(&self, event: &Event, is_stopped: impl Fn() -> bool) {
        match serde_json::to_vec(event) {
            Ok(mut line) => {
                line.push(b'\n');
                self.lines.put(line, is_stopped);
            }
            Err(e) => log::error!("a report of the test agent can't be written: {e}"),
        }
    }

    /// A machine is stopped: who waits for a line to be written looks again whether to.
    pub fn look_again(&self) {
        // Under the lock, so that nobody is between the look and the wait.
        let _held = self.lines.held.lock();
        self.lines.changed.notify_all();
    }

    /// Waits until all lines are written.
    pub fn finish(&self) {
        self.lines.close();
        if let Some(writer) = self.writer.lock().take() {
            // Its panic has been reported on stderr; there is nothing more to write.
            let _ = writer.join();
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.lines.close();
    }
}

/// What was reported and is not written yet.
#[derive(Default)]
struct Lines {
    /// Leaf lock.
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    waiting: VecDeque<Vec<u8>>,
    /// How many lines were ever put.
    put: u64,
    /// How many of them are written, or given up.
    done: u64,
    /// How many found no place.
    lost: u64,
    closed: bool,
}

impl Lines {
    fn put(&self, line: Vec<u8>, is_stopped: impl Fn() -> bool) {
        let mut held = self.held.lock();
        while held.waiting.len() >= WAITING_MAX && !is_stopped() {
            self.changed.wait(&mut held);
        }
        if held.waiting.len() >= WAITING_MAX {
            held.lost += 1;
            let first = held.lost == 1;
            drop(held);
            if first {
                log::warn!("nobody reads the test agent's reports: those of machines that are stopped are lost");
            }
            return;
        }
        held.waiting.push_back(line);
        held.put += 1;
        let mine = held.put;
        self.changed.notify_all();
        while held.done < mine && !is_stopped() {
            self.changed.wait(&mut held);
        }
    }

    /// Waits for a line; `None` at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let mut held = self.held.lock();
        loop {
            if let Some(line) = held.waiting.pop_front() {
                return Some(line);
            }
            if held.closed {
                return None;
            }
            self.changed.wait(&mut held);
        }
    }

    /// Writes until the end. Once it can't, lines are only taken, so that the guest goes on.
    fn write_to(&self, output: Box<dyn Write + Send>) {
        let mut output = Some(output);
        while let Some(line) = self.take() {
            let written =
                output.as_mut().map_or(Ok(()), |output| output.write_all(&line).and_then(|()| output.flush()));
            if let Err(e) = written {
                log::error!("the test agent's reports can't be written any more: {e}");
                output = None;
            }
            self.held.lock().done += 1;
            self.changed.notify_all();
        }
    }

    fn close(&self) {
        self.held.lock().closed = true;
        self.changed.notify_all();
    }
}
