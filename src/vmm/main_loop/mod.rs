//! The main loop: device deadlines, the console, signals, and the end of the machine. The only thread besides the vCPUs'.

mod alarms;
mod doorbell;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use sys::signal::SignalFd;
use x86::Nanos;

pub use alarms::Alarms;
pub use doorbell::{Doorbell, Request, SerialLater};

use crate::clock::Clock;
use crate::console::Console;
use crate::stop::{StopReason, Stopper};

const ALARM: u32 = 0;
const DOORBELL: u32 = 1;
const SIGNAL: u32 = 2;
const INPUT: u32 = 3;
const OUTPUT: u32 = 4;

/// Something with a deadline: called on the main loop's thread when it has come.
pub type Expire = Box<dyn Fn(Nanos)>;

/// What the loop serves.
pub struct MainLoop<'a> {
    /// The machine's clock.
    pub clock: Clock,
    /// The deadlines, and what to call for each slot.
    pub alarms: Arc<Alarms>,
    /// One for each slot of `alarms`, in order.
    pub expire: Vec<Expire>,
    /// Requests of other threads.
    pub doorbell: Arc<Doorbell>,
    /// The serial console.
    pub console: Console,
    /// SIGINT, SIGTERM and the like.
    pub signals: &'a mut SignalFd,
    /// Has every vCPU look up: it says where it is, in the log, or ends if the machine has stopped.
    pub report: Box<dyn Fn() + 'a>,
    /// Where the end is announced.
    pub stopper: Arc<Stopper>,
}

impl MainLoop<'_> {
    /// Serves until the machine stops, and until its last output is written or the user does not want to wait for that.
    pub fn run(self) -> io::Result<Console> {
        let (stopper, doorbell) = (Arc::clone(&self.stopper), Arc::clone(&self.doorbell));
        let mut manager = EventManager::new().map_err(other)?;
        let id = manager.add_subscriber(Serving { parts: self, impatient: false });
        while !stopper.is_stopped() {
            manager.run().map_err(other)?;
        }
        (manager.subscriber_mut(id).map_err(other)?.parts.report)();
        doorbell.ring(Request::Serial);
        while manager.subscriber_mut(id).map_err(other)?.has_output_to_wait_for() {
            manager.run().map_err(other)?;
        }
        Ok(manager.remove_subscriber(id).map_err(other)?.parts.console)
    }
}

/// The loop while it runs.
struct Serving<'a> {
    parts: MainLoop<'a>,
    /// The user has asked for the end: what can't be written at once is lost.
    impatient: bool,
}

impl Serving<'_> {
    fn has_output_to_wait_for(&mut self) -> bool {
        if self.impatient {
            while self.parts.console.serve() {}
            return false;
        }
        self.parts.console.has_output()
    }

    fn expire_due(&self) {
        let now = self.parts.clock.now();
        let due = self.parts.alarms.take_due(now);
        for (slot, expire) in self.parts.expire.iter().enumerate() {
            if due & 1 << slot != 0 {
                expire(now);
            }
        }
    }

    /// The user asks for the end.
    fn end(&mut self, reason: StopReason) {
        self.impatient = true;
        self.parts.stopper.stop(reason);
    }

    fn take_signals(&mut self) {
        loop {
            match self.parts.signals.read() {
                Ok(Some(sys::signal::Signal::User1)) => (self.parts.report)(),
                Ok(Some(signal)) => self.end(StopReason::Signal(signal)),
                Ok(None) => return,
                Err(e) => return log::error!("signals can't be read: {e}"),
            }
        }
    }

    fn serve_console(&mut self) {
        if self.parts.console.serve() {
            self.parts.doorbell.ring(Request::Serial);
        }
    }

    /// Watches the console's descriptors just while it wants something of them.
    fn watch(&mut self, ops: &mut EventOps<'_>) {
        for change in self.parts.console.watch_changes() {
            let set = if change.output { EventSet::OUT } else { EventSet::IN };
            let data = if change.output { OUTPUT } else { INPUT };
            let events = Events::with_data_raw(change.fd, data, set);
            let result = if change.watch { ops.add(events) } else { ops.remove(events) };
            if let Err(e) = result {
                log::debug!("console descriptor {}: {e}", change.fd);
                self.parts.console.cannot_watch(change.output);
            }
        }
    }
}

impl MutEventSubscriber for Serving<'_> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let fixed = [
            (self.parts.alarms.as_raw_fd(), ALARM),
            (self.parts.doorbell.as_raw_fd(), DOORBELL),
            (self.parts.signals.as_raw_fd(), SIGNAL),
        ];
        for (fd, data) in fixed {
            if let Err(e) = ops.add(Events::with_data_raw(fd, data, EventSet::IN)) {
                self.parts
                    .stopper
                    .stop(StopReason::Host(crate::Error::host("the main loop can't watch its events", e)));
            }
        }
        self.watch(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            ALARM => self.expire_due(),
            DOORBELL => {
                if self.parts.doorbell.take().contains(Request::Serial) {
                    self.serve_console();
                }
            }
            SIGNAL => self.take_signals(),
            INPUT => {
                if self.parts.console.read_input() {
                    self.end(StopReason::Quit);
                }
            }
            _ => self.serve_console(),
        }
        self.watch(ops);
    }
}

fn other(e: event_manager::Error) -> io::Error {
    io::Error::other(e.to_string())
}
