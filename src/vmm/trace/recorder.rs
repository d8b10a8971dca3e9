//! The recorder: the threads' rings, and the drain that writes them to the file.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bottom_half::{QueueKind, System, Work};
use parking_lot::Mutex;

use super::event::{Event, Slot};
use super::export::{self, Format};
use super::file::Output;
use super::ring::{self, Reader, Writer};
use crate::Error;

thread_local! {
    /// This thread's ring, and which recorder's.
    static RING: RefCell<Option<(usize, Writer)>> = const { RefCell::new(None) };
}

/// Where events go. One for all machines of a program's life.
pub struct Recorder {
    path: PathBuf,
    format: Format,
    capacity: usize,
    threads: AtomicU16,
    /// Rings that the drain has not met. Leaf lock, held for moments.
    incoming: Mutex<Vec<Reader>>,
    /// Held while the file is written: by a drain, and at the end.
    drain: Mutex<Drain>,
    /// What empties the rings. Leaf lock, which is only tried where a thread must not wait.
    work: Mutex<Option<Work>>,
}

struct Drain {
    output: Output,
    rings: Vec<Reader>,
}

impl Recorder {
    /// Writes to the file at `path`, made anew, in the format that its name says ([`Format::of`]).
    ///
    /// # Errors
    ///
    /// A usage error if it can't be written.
    pub fn create(path: &Path) -> Result<Arc<Self>, Error> {
        Self::with_capacity(path, ring::CAPACITY)
    }

    /// The same, with rings of so many slots.
    pub fn with_capacity(path: &Path, capacity: usize) -> Result<Arc<Self>, Error> {
        let refused =
            |e| Error::Usage(format!("the trace {} can't be written: {e}; give --trace another file", path.display()));
        sys::signal::ignore_sigxfsz();
        let format = Format::of(path);
        let native = native_path(path, format);
        if format != Format::Native {
            // It is made at the end: better to know now that it can't be.
            File::create(path).map_err(refused)?;
        }
        let file = File::create(&native).map_err(refused)?;
        let output = Output::new(file, sys::clock::monotonic_ns()).map_err(refused)?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            format,
            capacity,
            threads: AtomicU16::new(0),
            incoming: Mutex::new(Vec::new()),
            drain: Mutex::new(Drain { output, rings: Vec::new() }),
            work: Mutex::new(None),
        }))
    }

    /// Records an event of now. Any thread, with any lock held; never blocks.
    pub fn record(&self, event: Event) {
        self.with_ring(|ring| {
            let stamp = ring.stamp(sys::clock::monotonic_ns());
            ring.push(stamp, &event);
        });
    }

    /// The time, for events that are known only later ([`Recorder::record_at`]): to be used on the same thread.
    pub fn stamp(&self) -> u64 {
        let mut stamp = 0;
        self.with_ring(|ring| stamp = ring.stamp(sys::clock::monotonic_ns()));
        stamp
    }

    /// Records an event of an earlier time of this thread.
    pub fn record_at(&self, stamp: u64, event: Event) {
        self.with_ring(|ring| ring.push(stamp, &event));
    }

    /// Has a work item of `system` empty the rings.
    pub fn attach(self: &Arc<Self>, system: &System) {
        let recorder = Arc::clone(self);
        let work = system.queue("trace", QueueKind::Ordered).work(move |process| {
            process.block(|| recorder.drain());
        });
        *self.work.lock() = Some(work);
    }

    /// That system ends.
    pub fn detach(&self) {
        let work = self.work.lock().take();
        drop(work);
    }

    /// Writes what is in the rings.
    pub fn drain(&self) {
        let mut drain = self.drain.lock();
        let Drain { output, rings } = &mut *drain;
        rings.append(&mut self.incoming.lock());
        for ring in rings.iter_mut() {
            ring.drain(|slots| self.write(output, slots));
        }
        rings.retain(|ring| !ring.is_over());
    }

    /// Writes the rest, ends the file, and makes of it what the user wants to have.
    ///
    /// # Errors
    ///
    /// The host can't write the end, or the export.
    pub fn finish(&self) -> Result<(), Error> {
        self.drain();
        let mut drain = self.drain.lock();
        let Drain { output, rings } = &mut *drain;
        let mut lost = 0;
        for ring in rings.iter().filter(|ring| ring.untold() > 0) {
            let event = Event::Dropped { records: ring.untold() };
            let stamp = sys::clock::monotonic_ns();
            self.write(output, &[event.head(stamp, ring.thread)]);
            lost += ring.untold();
        }
        let failed = |e| Error::host(&format!("the trace {} can't be ended", self.path.display()), e);
        output.finish(lost).map_err(failed)?;
        if self.format != Format::Native {
            let native = native_path(&self.path, self.format);
            export::convert(&native, &self.path, self.format)?;
            // It has done its duty; one that stays does no harm.
            let _ = fs::remove_file(native);
        }
        Ok(())
    }

    fn write(&self, output: &mut Output, slots: &[Slot]) {
        if let Err(e) = output.write(slots) {
            log::error!("the trace {} ends here: {e}; the machine goes on", self.path.display());
        }
    }

    /// Calls `f` with this thread's ring, and has the rings emptied when that is due.
    fn with_ring(&self, f: impl FnOnce(&mut Writer)) {
        let key = std::ptr::from_ref(self).addr();
        let use_ring = |slot: &RefCell<Option<(usize, Writer)>>| {
            // Borrowed only by a record in a record, which there is none.
            let Ok(mut slot) = slot.try_borrow_mut() else { return false };
            // In its place: a ring's end is not moved for each record.
            if slot.as_ref().is_none_or(|(owner, _)| *owner != key) {
                *slot = Some((key, self.new_ring()));
            }
            let Some((_, ring)) = &mut *slot else { return false };
            f(ring);
            ring.takes_turn()
        };
        // A thread that ends has said all.
        if RING.try_with(use_ring).unwrap_or(false)
            && let Some(work) = self.work.try_lock()
            && let Some(work) = &*work
        {
            // Pending already is as good. That it is queued is recorded, too; the turn is taken by then.
            let _ = work.queue();
        }
    }

    fn new_ring(&self) -> Writer {
        let thread = self.threads.fetch_add(1, Ordering::Relaxed);
        let (mut writer, reader) = ring::ring(thread, self.capacity);
        self.incoming.lock().push(reader);
        let name = if std::thread::current().name() == Some("main") { "main loop".into() } else { sys::thread::name() };
        let stamp = writer.stamp(sys::clock::monotonic_ns());
        writer.push(stamp, &Event::Thread { name: cut(&name) });
        writer
    }
}

/// The first `N` bytes, with zeros behind if there are less.
pub fn cut<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    out
}

/// Where the native trace is while `path` is not yet made of it.
fn native_path(path: &Path, format: Format) -> PathBuf {
    if format == Format::Native {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
