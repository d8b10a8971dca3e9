//! The threads of a system, joined at its end: when that is over, none of them is left in the process.

use crate::sync::{Mutex, thread};

/// Handles of threads, which say themselves when they have nothing to do any more.
#[derive(Default)]
pub(crate) struct Handles(Mutex<Vec<thread::JoinHandle<()>>>);

impl Handles {
    /// Keeps one, and lets go of those that have ended by themselves.
    pub(crate) fn keep(&self, handle: thread::JoinHandle<()>) {
        let mut handles = self.0.lock();
        // A model's threads can't be asked; it has few.
        #[cfg(not(shuttle))]
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
    }

    /// Waits for the last instructions of all; the caller's own thread is not waited for.
    pub(crate) fn join(&self) {
        let handles = std::mem::take(&mut *self.0.lock());
        let me = thread::current().id();
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != me) {
            // A panic has had its say in the thread that it was in.
            let _ = handle.join();
        }
    }
}
