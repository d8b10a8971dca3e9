//! Signals that end the program: whatever runs is told or killed first.

use std::process::{self, Child};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Is given the signal's number; false when it is no longer interested.
type Listener = Box<dyn Fn(i32) -> bool + Send>;

struct State {
    listeners: Vec<Listener>,
    groups: Vec<Pid>,
}

static STATE: Mutex<State> = Mutex::new(State { listeners: Vec::new(), groups: Vec::new() });
static STARTED: OnceLock<()> = OnceLock::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets `listener` deal with signals from now on, as long as it is interested; so do those that came before it.
///
/// # Errors
/// When the handlers cannot be set.
pub fn tell(listener: impl Fn(i32) -> bool + Send + 'static) -> Result<()> {
    state().listeners.push(Box::new(listener));
    start()
}

fn start() -> Result<()> {
    if STARTED.set(()).is_err() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let mut state = state();
            state.listeners.retain(|listener| listener(signal));
            if state.listeners.is_empty() {
                drop(state);
                end(128 + signal);
            }
        }
    });
    Ok(())
}

/// Kills whatever runs and ends the program.
pub fn end(code: i32) -> ! {
    for group in &state().groups {
        // It may have ended in the meantime.
        let _ = kill_process_group(*group, Signal::KILL);
    }
    process::exit(code);
}

/// The process group of a child that leads one; it dies with us.
pub struct Group {
    leader: Pid,
}

impl Group {
    /// Takes `child`, started with `process_group(0)`, under our wing.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn new(child: &Child) -> Result<Self> {
        let leader = Pid::from_child(child);
        state().groups.push(leader);
        start()?;
        Ok(Self { leader })
    }

    /// Kills all processes of the group.
    pub fn kill(&self) {
        // It may have ended in the meantime.
        let _ = kill_process_group(self.leader, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        state().groups.retain(|leader| *leader != self.leader);
    }
}
