//! The life-cycle trace: what happens to each interrupt and deferred item, and when.
//!
//! **Writing.** Whoever takes part in an interrupt's way has a [`Trace`], which is a handle on a [`Recorder`] or nothing: then
//! a hook is one branch. A record goes into a ring of its thread, without a lock; a work item of the machine's bottom halves
//! writes the rings to the file when one fills up. A thread never waits for it: what finds no room is counted, and the trace
//! says so in its place. An interrupt has no number on its way, and the mailbox does not know of the trace.
//!
//! **Reading.** [`Recording`] reads a file back; [`Story`] joins the records: what was posted to a vCPU with a vector is what
//! comes into its IRR with that vector, and so on. [`explain`] tells it in words, [`export`] makes files for trace viewers.

pub mod event;
pub mod explain;
pub mod export;
mod file;
mod hooks;
mod join;
mod reader;
mod recorder;
mod ring;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use event::Event;
pub use hooks::{MarkPort, Pins};
pub use join::{Activator, Deferred, End, Interrupt, Source, Stay, Step, Story};
pub use reader::Recording;
pub use recorder::Recorder;
pub use watch::Watch;

use crate::vcpu::ExitKind;

/// A place to record events, or none. Clones are of the same.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<Recorder>>);

impl Trace {
    /// Records in `recorder`.
    pub fn to(recorder: Arc<Recorder>) -> Self {
        Self(Some(recorder))
    }

    /// The recorder. Built with `--cfg untraced` there is none, and no hook: to see what hooks cost that nobody uses.
    #[inline]
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        if cfg!(untraced) { None } else { self.0.as_ref() }
    }

    /// Somebody records.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.recorder().is_some()
    }

    /// Records what `event` gives, which is asked only if somebody records. Any thread, with any lock held; never blocks.
    #[inline]
    pub fn record(&self, event: impl FnOnce() -> Event) {
        if let Some(recorder) = self.recorder() {
            recorder.record(event());
        }
    }

    /// The vCPU of this thread is about to enter the guest: when, for [`Trace::left`].
    #[inline]
    pub fn entering(&self) -> u64 {
        self.recorder().map_or(0, |recorder| recorder.stamp())
    }

    /// It has left the guest, `exit` says why. One record for the whole stay: most exits have no other.
    #[inline]
    pub fn left(&self, vcpu: usize, entered: u64, exit: impl FnOnce() -> ExitKind) {
        self.record(|| Event::Stayed { vcpu: vcpu as u32, exit: exit(), entered });
    }
}
