//! The console as bottom halves reach it: whoever drains the serial port's output holds it meanwhile.
//!
//! The main loop waits for it; a softirq and a top half must not, and leave it to the main loop if somebody has it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::console::Console;
use crate::main_loop::{Doorbell, Request};

/// The place of the console while a machine runs.
pub struct Drain {
    console: Mutex<Option<Console>>,
    doorbell: Arc<Doorbell>,
}

impl Drain {
    /// No console yet.
    pub fn new(doorbell: &Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self { console: Mutex::new(None), doorbell: Arc::clone(doorbell) })
    }

    /// Puts the console in its place.
    pub fn put(&self, console: Console) {
        *self.console.lock() = Some(console);
    }

    /// Takes it out again: nobody drains any more.
    pub fn take(&self) -> Option<Console> {
        self.console.lock().take()
    }

    /// Does `what` with the console, if it is there; waits for whoever has it.
    pub fn with<R: Default>(&self, what: impl FnOnce(&mut Console) -> R) -> R {
        self.console.lock().as_mut().map_or_else(R::default, what)
    }

    /// Moves what can be moved both ways, if nobody else has the console: from a top half or a softirq.
    pub fn run(&self) {
        match self.console.try_lock() {
            Some(console) => self.serve(console),
            None => self.doorbell.ring(Request::Serial),
        }
    }

    /// The same, and waits for whoever has the console: from a thread that may.
    pub fn run_and_wait(&self) {
        self.serve(self.console.lock());
    }

    fn serve(&self, mut console: MutexGuard<'_, Option<Console>>) {
        let Some(console) = console.as_mut() else { return };
        // A turn is limited: the rest waits for the loop's next one, so that others have theirs.
        if console.serve() {
            self.doorbell.ring(Request::Serial);
        }
        // Only the main loop can watch descriptors; and at the end it waits for what is written here.
        if !console.is_watched_right() || console.is_finishing() {
            self.doorbell.ring(Request::Watch);
        }
    }
}
