//! A disk's I/O: requests that wait, lanes that run them and may block, and what they have done.
//!
//! A lane copies through a buffer of its own, so that a request of any length needs no more memory, and a disk that is opened
//! for direct I/O gets aligned memory. Guest memory is touched only under the gate, and only for requests of the
//! driver's present life: when [`Io::forget`] has had the gate, nothing from before it touches guest memory any more. It
//! waits for no I/O, only for a copy of at most [`CHUNK`].
//!
//! Lock order: the device's lock, then the gate, then the state. No lock is held across I/O.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bottom_half::{Process, Tasklet, Work, WorkQueue};
use parking_lot::Mutex;

use super::super::Memory;
use super::super::queue::{Buffer, read, total, write};
use super::request::{Action, Request};
use super::result;
use super::storage::Storage;

/// The most that is copied at once.
pub const CHUNK: usize = 256 << 10;
/// Alignment of a lane's buffer: that of any disk's direct I/O.
const ALIGN: usize = 4096;
/// Requests that a lane runs in one go, so that its worker has time for others.
const IN_A_ROW: usize = 16;

/// A request that has been run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// What the used ring is to say.
    pub head: u16,
    /// Where the status goes.
    pub status: Buffer,
    /// The status.
    pub result: u8,
    /// Bytes of data that were written to guest memory.
    pub written: u32,
}

/// Requests of one life of the driver.
#[derive(Default)]
struct State {
    /// To be tried without waiting, before a lane has them.
    untried: VecDeque<Request>,
    waiting: VecDeque<Request>,
    /// Taken by a lane and not done.
    running: usize,
    done: Vec<Completion>,
    /// Running ones from before the last reset, which nobody waits for.
    stale: usize,
    /// The last of them has ended since this was last asked for.
    drained: bool,
    /// Lanes that will not look for a request before they are queued again.
    idle: Vec<usize>,
}

impl State {
    /// A request from before the last reset has ended.
    fn end_stale(&mut self) {
        self.stale -= 1;
        self.drained |= self.stale == 0;
    }
}

/// What became of a request that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// There was none.
    None,
    /// It is done, and completion is due.
    Done,
    /// A lane is to do it.
    WouldWait,
}

/// What lanes, submission and completion share.
pub struct Io {
    name: String,
    storage: Arc<dyn Storage>,
    /// Counts the driver's lives.
    gate: Mutex<u64>,
    state: Mutex<State>,
    /// The first error of the disk has been logged.
    complained: Mutex<bool>,
}

impl Io {
    /// Nothing to do yet.
    pub fn new(name: String, storage: Arc<dyn Storage>) -> Self {
        Self { name, storage, gate: Mutex::new(0), state: Mutex::default(), complained: Mutex::new(false) }
    }

    /// The disk.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Adds a request; lanes are to be told.
    pub fn add(&self, request: Request) {
        self.state.lock().waiting.push_back(request);
    }

    /// Adds a request that is to be tried first: see [`Io::try_next`].
    pub fn add_untried(&self, request: Request) {
        self.state.lock().untried.push_back(request);
    }

    /// Takes what is done; true if a submission may go on that has waited for the end of stale requests.
    pub fn take_done(&self) -> (Vec<Completion>, bool) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.done), std::mem::take(&mut state.drained))
    }

    /// Requests from before the last reset are still running.
    pub fn is_draining(&self) -> bool {
        self.state.lock().stale > 0
    }

    /// Forgets all requests. Guest memory is touched for none of them any more; those that run go on to their ends.
    pub fn forget(&self) {
        // Held to the end: a lane that comes to its own end must find both changed, or neither.
        let mut life = self.gate.lock();
        *life += 1;
        let mut state = self.state.lock();
        state.untried.clear();
        state.waiting.clear();
        state.done.clear();
        state.stale += std::mem::take(&mut state.running);
        state.drained = false;
    }

    /// How many requests wait for a lane.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// A lane that is idle, which is to be queued now. Those that are not will look at what has been added.
    fn claim_idle(&self) -> Option<usize> {
        self.state.lock().idle.pop()
    }

    /// Takes a request, with the life that it belongs to; if there is none, the lane is idle from here on.
    fn take(&self, lane: usize) -> Option<(Request, u64)> {
        let life = self.gate.lock();
        let mut state = self.state.lock();
        let Some(request) = state.waiting.pop_front() else {
            state.idle.push(lane);
            return None;
        };
        state.running += 1;
        Some((request, *life))
    }

    /// Tries the next request without waiting for the disk; if it would have to wait, it is for the lanes. For a softirq, with no
    /// lock held.
    pub fn try_next(&self, memory: &Memory, buffer: &mut [u8]) -> Tried {
        let (request, life) = {
            let life = self.gate.lock();
            let mut state = self.state.lock();
            let Some(request) = state.untried.pop_front() else { return Tried::None };
            state.running += 1;
            (request, *life)
        };
        let written = self.attempt(&request.action, life, memory, buffer);
        let gate = self.gate.lock();
        let mut state = self.state.lock();
        if *gate != life {
            state.end_stale();
            return Tried::Done;
        }
        state.running -= 1;
        let Some(written) = written else {
            state.waiting.push_back(request);
            return Tried::WouldWait;
        };
        let Request { head, status, .. } = request;
        state.done.push(Completion { head, status, result: result::OK, written });
        Tried::Done
    }

    /// Gives the bytes written to guest memory; `None` if it can't be done without waiting, in one piece.
    fn attempt(&self, action: &Action, life: u64, memory: &Memory, buffer: &mut [u8]) -> Option<u32> {
        match action {
            Action::Read { offset, data } => {
                let part = buffer.get_mut(..usize::try_from(total(data)).ok()?)?;
                let len = part.len();
                let read = self.storage.try_read(*offset, part)
                    && self.copy(life, len, || write(memory, data, 0, part)).is_ok();
                read.then_some(len as u32)
            }
            Action::Write { offset, data, durable: false } => {
                let part = buffer.get_mut(..usize::try_from(total(data)).ok()?)?;
                let copied = self.copy(life, part.len(), || read(memory, data, 0, part)).is_ok();
                (copied && self.storage.try_write(*offset, part)).then_some(0)
            }
            // What has to reach the disk waits for it.
            _ => None,
        }
    }

    /// Runs the next request in a lane. False: there is none.
    pub fn run_next(&self, lane: usize, memory: &Memory, buffer: &mut [u8], process: &Process<'_>) -> bool {
        let Some((request, life)) = self.take(lane) else { return false };
        let Request { head, status, action } = request;
        let outcome = self.run(&action, life, memory, buffer, process);
        let (result, written) = match outcome {
            Ok(written) => (result::OK, written),
            Err(e) => {
                self.complain(&action, &e);
                (result::IO_ERROR, 0)
            }
        };
        let gate = self.gate.lock();
        let mut state = self.state.lock();
        if *gate == life {
            state.running -= 1;
            state.done.push(Completion { head, status, result, written });
        } else {
            state.end_stale();
        }
        true
    }

    /// Gives the bytes written to guest memory.
    fn run(
        &self,
        action: &Action,
        life: u64,
        memory: &Memory,
        buffer: &mut [u8],
        process: &Process<'_>,
    ) -> io::Result<u32> {
        let storage = &*self.storage;
        let settle = |durable: &bool| if *durable { process.block(|| storage.flush()) } else { Ok(()) };
        match action {
            Action::Read { offset, data } => {
                for (done, len) in chunks(total(data), buffer.len()) {
                    let part = &mut buffer[..len];
                    process.block(|| storage.read(offset + done, part))?;
                    self.copy(life, len, || write(memory, data, done, part))?;
                }
                // virtio_queue takes no chain of 4 GiB.
                return Ok(total(data) as u32);
            }
            Action::Write { offset, data, durable } => {
                for (done, len) in chunks(total(data), buffer.len()) {
                    let part = &mut buffer[..len];
                    self.copy(life, len, || read(memory, data, done, part))?;
                    process.block(|| storage.write(offset + done, part))?;
                }
                settle(durable)?;
            }
            Action::Flush => process.block(|| storage.flush())?,
            Action::Discard { ranges, durable } => {
                for &(offset, len) in ranges {
                    process.block(|| storage.discard(offset, len))?;
                }
                settle(durable)?;
            }
            Action::WriteZeroes { ranges, durable } => {
                for &(offset, len, unmap) in ranges {
                    process.block(|| storage.write_zeroes(offset, len, unmap))?;
                }
                settle(durable)?;
            }
        }
        Ok(0)
    }

    /// Copies from or to guest memory, if the driver that asked for it still lives.
    fn copy(&self, life: u64, len: usize, copy: impl FnOnce() -> usize) -> io::Result<()> {
        let gate = self.gate.lock();
        if *gate != life {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if copy() == len { Ok(()) } else { Err(io::Error::other("guest memory is gone")) }
    }

    /// Says once that the disk fails; a guest must not flood the log.
    fn complain(&self, action: &Action, e: &io::Error) {
        if e.kind() == io::ErrorKind::Interrupted {
            return;
        }
        let mut complained = self.complained.lock();
        if !std::mem::replace(&mut *complained, true) {
            let what = match action {
                Action::Read { .. } => "read",
                Action::Write { .. } => "write",
                Action::Flush => "flush",
                Action::Discard { .. } => "discard",
                Action::WriteZeroes { .. } => "write of zeroes",
            };
            log::error!(
                "{}: a {what} has failed, the guest gets an I/O error (further ones are not logged): {e}",
                self.name
            );
        }
    }
}

/// Offsets and lengths of the pieces of `total` bytes.
fn chunks(total: u64, chunk: usize) -> impl Iterator<Item = (u64, usize)> {
    (0..total).step_by(chunk.max(1)).map(move |done| (done, (total - done).min(chunk as u64) as usize))
}

/// Work items that run a disk's requests, each one at a time.
pub struct Lanes {
    io: Arc<Io>,
    lanes: Vec<Work>,
}

impl Lanes {
    /// `count` lanes on `queue`, for a guest with `memory`; each schedules `complete` when it has done something.
    pub fn new(io: &Arc<Io>, memory: Memory, queue: &WorkQueue, count: usize, complete: &Arc<Tasklet>) -> Arc<Self> {
        let count = count.max(1);
        io.state.lock().idle.extend(0..count);
        let lane = |lane| {
            let (io, memory, complete) = (Arc::clone(io), memory.clone(), Arc::clone(complete));
            let buffer = Mutex::new(AlignedBuffer::default());
            queue.work(move |process| {
                // An item never runs twice at once: nobody waits here.
                let mut buffer = buffer.lock();
                for _ in 0..IN_A_ROW {
                    if !io.run_next(lane, &memory, buffer.get(), process) {
                        return;
                    }
                    let _ = complete.schedule();
                }
                let _ = process.requeue();
            })
        };
        Arc::new(Self { io: Arc::clone(io), lanes: (0..count).map(lane).collect() })
    }

    /// Has `count` requests more run: each idle lane takes one, those at work look for the rest themselves.
    pub fn queue(&self, count: usize) {
        for lane in (0..count).map_while(|_| self.io.claim_idle()) {
            let _ = self.lanes[lane].queue();
        }
    }
}

/// A lane's memory, made when it is first needed.
#[derive(Default)]
pub struct AlignedBuffer(Vec<u8>);

impl AlignedBuffer {
    /// All of it, [`CHUNK`] bytes.
    pub fn get(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; CHUNK + ALIGN];
        }
        let start = self.0.as_ptr().align_offset(ALIGN).min(ALIGN);
        &mut self.0[start..start + CHUNK]
    }
}
