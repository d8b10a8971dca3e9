//! The command's output on its way from the command port to our standard streams.
//!
//! A thread of its own writes it, since a stream may block; the port's room tells the guest to wait.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use devices::command_port::{CommandSink, CommandStream};
use parking_lot::{Condvar, Mutex};

/// Bytes of each stream held for the writer.
const CAPACITY: usize = 64 << 10;

/// What was said and is not written yet.
#[derive(Default)]
pub struct Streams {
    /// Leaf lock.
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    out: VecDeque<u8>,
    err: VecDeque<u8>,
    closed: bool,
}

impl Held {
    fn of(&mut self, stream: CommandStream) -> &mut VecDeque<u8> {
        match stream {
            CommandStream::Out => &mut self.out,
            CommandStream::Err => &mut self.err,
        }
    }
}

impl CommandSink for Streams {
    fn room(&self, stream: CommandStream) -> usize {
        CAPACITY - self.held.lock().of(stream).len()
    }

    fn put(&self, stream: CommandStream, byte: u8) {
        let mut held = self.held.lock();
        let queue = held.of(stream);
        if queue.len() < CAPACITY {
            queue.push_back(byte);
            self.changed.notify_one();
        }
    }
}

impl Streams {
    /// Nothing more will come: the writer ends when all is written.
    pub fn close(&self) {
        self.held.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for output, and takes all there is of it; `None` at the end.
    fn take(&self) -> Option<(VecDeque<u8>, VecDeque<u8>)> {
        let mut held = self.held.lock();
        while held.out.is_empty() && held.err.is_empty() {
            if held.closed {
                return None;
            }
            self.changed.wait(&mut held);
        }
        Some((std::mem::take(&mut held.out), std::mem::take(&mut held.err)))
    }

    /// Writes until the end. A stream that fails is read on, so that the command goes on.
    pub(super) fn write_to(&self, out: impl Write, err: impl Write) {
        let (mut out, mut err) = (Target::new("stdout", out), Target::new("stderr", err));
        while let Some((to_out, to_err)) = self.take() {
            out.write(to_out);
            err.write(to_err);
        }
    }
}

/// A stream of ours, and whether anybody still reads it.
struct Target<W> {
    name: &'static str,
    to: W,
    broken: bool,
}

impl<W: Write> Target<W> {
    fn new(name: &'static str, to: W) -> Self {
        Self { name, to, broken: false }
    }

    fn write(&mut self, bytes: VecDeque<u8>) {
        if self.broken || bytes.is_empty() {
            return;
        }
        let (first, second) = bytes.as_slices();
        let written = self.to.write_all(first).and_then(|()| self.to.write_all(second)).and_then(|()| self.to.flush());
        if let Err(e) = written {
            log::warn!("the command's {} can't be written, it goes on: {e}", self.name);
            self.broken = true;
        }
    }
}

/// The thread that writes.
pub(super) struct Writer(JoinHandle<()>);

impl Writer {
    pub(super) fn start(streams: &Arc<Streams>) -> io::Result<Self> {
        let streams = Arc::clone(streams);
        let writer = thread::Builder::new().name("output".to_owned());
        writer.spawn(move || streams.write_to(io::stdout(), io::stderr())).map(Self)
    }

    pub(super) fn wait(self) {
        // Its panic has been reported on stderr; there is nothing more to write.
        let _ = self.0.join();
    }
}
