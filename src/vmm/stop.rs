//! Why a machine stopped, and how everybody learns of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devices::{MachineControl, MachineEvent};
use parking_lot::Mutex;

use crate::main_loop::{Doorbell, Request};

#[cfg(test)]
mod tests;

/// Why a machine stopped.
#[derive(Debug)]
pub enum StopReason {
    /// The guest turned it off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest wrote this value to the debug exit port.
    DebugExit(u8),
    /// A vCPU shut down after a triple fault; the text is its state.
    TripleFault(String),
    /// KVM could not go on with a vCPU; the text says what it was and the vCPU's state.
    InternalError(String),
    /// The host failed.
    Host(crate::Error),
    /// A vCPU's thread panicked: a bug of ours.
    Panic,
    /// The user quit at the console.
    Quit,
    /// A signal told the program to end.
    Signal(sys::signal::Signal),
}

/// Takes the first reason to stop, and wakes the main loop.
pub struct Stopper {
    stopped: AtomicBool,
    /// Leaf lock.
    reason: Mutex<Option<StopReason>>,
    doorbell: Arc<Doorbell>,
}

impl Stopper {
    /// A machine that runs.
    pub fn new(doorbell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self { stopped: AtomicBool::new(false), reason: Mutex::new(None), doorbell })
    }

    /// Stops the machine for `reason`; later reasons are consequences of the first and are dropped.
    pub fn stop(&self, reason: StopReason) {
        let mut first = self.reason.lock();
        if !self.is_stopped() {
            *first = Some(reason);
            self.stopped.store(true, Ordering::Release);
            drop(first);
            self.doorbell.ring(Request::Stop);
        }
    }

    /// Whether it has stopped; vCPU threads look whenever they are given a sign.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The reason, once, after the machine has stopped.
    pub fn take_reason(&self) -> StopReason {
        // A machine that is asked twice has at least stopped.
        self.reason.lock().take().unwrap_or(StopReason::Quit)
    }
}

impl MachineControl for Stopper {
    fn request(&self, event: MachineEvent) {
        self.stop(match event {
            MachineEvent::PowerOff => StopReason::PowerOff,
            MachineEvent::Reset => StopReason::Reset,
            MachineEvent::DebugExit(value) => StopReason::DebugExit(value),
        });
    }
}
