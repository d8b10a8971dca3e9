//! Why a machine stopped, and how everybody learns of it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use devices::{MachineControl, MachineEvent};
use parking_lot::Mutex;

use crate::Error;
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
    /// The guest panicked.
    GuestPanic,
    /// The guest wrote this value to the debug exit port.
    DebugExit(u8),
    /// The command of `--exec` has ended with this status.
    CommandEnded(u8),
    /// A vCPU shut down after a triple fault; the text is its state.
    TripleFault(String),
    /// KVM could not go on with a vCPU; the text says what it was and the vCPU's state.
    InternalError(String),
    /// All vCPUs have halted for good.
    Halted,
    /// The host failed.
    Host(crate::Error),
    /// A thread of this program panicked: a bug of ours.
    Panic,
    /// The user quit at the console.
    Quit,
    /// A signal told the program to end.
    Signal(sys::signal::Signal),
}

/// What to do when the guest has not fed its watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchdogAction {
    /// Reset the machine.
    Reset,
    /// Turn it off.
    PowerOff,
    /// Say in the log where its vCPUs are; the guest goes on.
    Dump,
    /// Nothing; the guest goes on.
    #[default]
    Nothing,
}

impl FromStr for WatchdogAction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "reset" => Ok(Self::Reset),
            "poweroff" => Ok(Self::PowerOff),
            "dump" => Ok(Self::Dump),
            "none" => Ok(Self::Nothing),
            _ => Err(Error::Usage(format!(
                "{text:?} is nothing to do for a watchdog; give --watchdog reset, poweroff, dump or none"
            ))),
        }
    }
}

/// How often a machine's expired watchdog is worth a line, or a dump, in the log.
const WATCHDOG_NOTES: u32 = 8;

/// Takes the first reason to stop, and wakes the main loop.
pub struct Stopper {
    stopped: AtomicBool,
    /// The log has one line of it, however often the guest says so.
    crash_noted: AtomicBool,
    watchdog: WatchdogAction,
    /// Times that it has expired.
    watchdog_expiries: AtomicU32,
    /// Leaf lock.
    reason: Mutex<Option<StopReason>>,
    doorbell: Arc<Doorbell>,
}

impl Stopper {
    /// A machine that runs, and whose watchdog does nothing.
    pub fn new(doorbell: Arc<Doorbell>) -> Arc<Self> {
        Self::with_watchdog(doorbell, WatchdogAction::default())
    }

    /// A machine that runs, with this to do when its watchdog expires.
    pub fn with_watchdog(doorbell: Arc<Doorbell>, watchdog: WatchdogAction) -> Arc<Self> {
        Arc::new(Self {
            stopped: AtomicBool::new(false),
            crash_noted: AtomicBool::new(false),
            watchdog,
            watchdog_expiries: AtomicU32::new(0),
            reason: Mutex::new(None),
            doorbell,
        })
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

    /// Whether it has stopped for a reset.
    pub fn is_reset(&self) -> bool {
        matches!(*self.reason.lock(), Some(StopReason::Reset))
    }

    /// Whether the guest has ended it to say that something failed: then it is worth knowing how it was left.
    pub fn has_failed(&self) -> bool {
        matches!(*self.reason.lock(), Some(StopReason::DebugExit(1..) | StopReason::GuestPanic))
    }

    /// The watchdog's action, as a reason to stop or carried out already.
    fn watchdog_expired(&self) -> Option<StopReason> {
        if self.watchdog_expiries.fetch_add(1, Ordering::Relaxed) < WATCHDOG_NOTES {
            log::warn!("the guest has not fed its watchdog");
            if self.watchdog == WatchdogAction::Dump {
                self.doorbell.ring(Request::Dump);
            }
        }
        match self.watchdog {
            WatchdogAction::Reset => Some(StopReason::Reset),
            WatchdogAction::PowerOff => Some(StopReason::PowerOff),
            WatchdogAction::Dump | WatchdogAction::Nothing => None,
        }
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
            MachineEvent::Panicked => StopReason::GuestPanic,
            MachineEvent::DebugExit(value) => StopReason::DebugExit(value),
            MachineEvent::CommandEnded(status) => StopReason::CommandEnded(status),
            MachineEvent::WatchdogExpired => match self.watchdog_expired() {
                Some(reason) => reason,
                None => return,
            },
            MachineEvent::CrashLoaded => {
                if !self.crash_noted.swap(true, Ordering::Relaxed) {
                    log::warn!("the guest has panicked and goes on in its crash kernel");
                }
                return;
            }
        });
    }
}
