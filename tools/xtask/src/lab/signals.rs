//! Signals that end the program: told to the running session, which cleans up, or obeyed at once.

use std::sync::mpsc::Sender;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{process, thread};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::link::Event;

static LISTENER: Mutex<Option<Sender<Event>>> = Mutex::new(None);
static STARTED: OnceLock<()> = OnceLock::new();

/// Sends signals to `events` from now on, until its receiver is gone.
///
/// # Errors
/// When the handlers cannot be set.
pub fn tell(events: Sender<Event>) -> Result<()> {
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    if STARTED.set(()).is_ok() {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
        thread::spawn(move || {
            for signal in signals.forever() {
                let listener = LISTENER.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if listener.is_none_or(|events| events.send(Event::Signal(signal)).is_err()) {
                    process::exit(128 + signal);
                }
            }
        });
    }
    Ok(())
}
