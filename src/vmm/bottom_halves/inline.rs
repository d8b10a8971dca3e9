//! A slow part that runs in the top half itself, on the thread that asked for it: after the exit, when no device's lock is
//! held and all kicks are sent.

use std::sync::atomic::{AtomicBool, Ordering};

/// Work that waits for the end of the exit that it was asked for in.
pub struct Inline {
    wanted: AtomicBool,
    work: Box<dyn Fn() + Send + Sync>,
}

impl Inline {
    /// Nothing asked for yet. `work` must not block.
    pub fn new(work: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wanted: AtomicBool::new(false), work: Box::new(work) }
    }

    /// Asks for it. With a device's lock held.
    pub fn ask(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Does it if it was asked for: by this thread, or by another that then finds it done. With no lock held.
    pub fn run(&self) {
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel) {
            (self.work)();
        }
    }
}
