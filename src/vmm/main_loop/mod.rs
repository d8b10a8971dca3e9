//! The main loop: device deadlines, the console, signals, and the end of the machine.
//!
//! Each event is a top half of the main loop's CPU: what it raises runs when it has been read. The user's commands are
//! not, they may wait for a vCPU.

mod doorbell;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use bottom_half::{CpuOwner, Work};
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use sys::signal::SignalFd;

pub use doorbell::{Doorbell, Request};

use crate::bottom_halves::{Deadlines, Drain, Inline};
use crate::console::{Commands, Console, Interest, Place};
use crate::doorbells::GuestDoorbells;
use crate::interrupts::Processors;
use crate::power::PowerButton;
use crate::stats::{Books, Moment, Server};
use crate::stop::{StopReason, Stopper};

const ALARM: u32 = 0;
const DOORBELL: u32 = 1;
const SIGNAL: u32 = 2;
const GUEST: u32 = 3;
const SERVER: u32 = 4;
const CLIENT: u32 = 5;
/// From here on, three a console: input, output, arrival.
const CONSOLES: u32 = 6;

/// A console's place in the loop, and what moves its bytes.
pub struct ConsolePlace {
    /// The place.
    pub drain: Arc<Drain>,
    /// Has them moved: in a top half of the main loop. Never blocks.
    pub run_soon: Box<dyn Fn() + Send>,
}

/// What the loop serves.
pub struct MainLoop<'a> {
    /// The vCPUs: kicks wait until a device's lock is dropped, and no longer.
    pub processors: Arc<Processors>,
    /// The main loop's half of its CPU.
    pub owner: CpuOwner,
    /// The deadlines of all CPUs.
    pub deadlines: Arc<Deadlines>,
    /// Requests of other threads.
    pub doorbell: Arc<Doorbell>,
    /// Those of the guest; `None` without a guest.
    pub guest_doorbells: Option<Arc<GuestDoorbells>>,
    /// The consoles' places, the serial port's first.
    pub consoles: Vec<ConsolePlace>,
    /// What top halves do themselves.
    pub inline: Vec<Arc<Inline>>,
    /// SIGINT, SIGTERM and the like.
    pub signals: &'a mut SignalFd,
    /// Has every vCPU look up: it says where it is, in the log, as the chips do; or ends if the machine has stopped.
    pub report: Box<dyn Fn() + 'a>,
    /// The machine's figures, and who is shown them.
    pub stats: Stats<'a>,
    /// Presses the power button.
    pub power_button: PowerButton,
    /// Executes the monitor's commands.
    pub commands: Box<Commands<'a>>,
    /// After a reset the console goes on with the next machine, which does not wait for a reader of this one's output.
    pub reboots: bool,
    /// Where the end is announced.
    pub stopper: Arc<Stopper>,
}

impl MainLoop<'_> {
    /// Serves until the machine stops, and until its last output is written or the user does not want to wait for that;
    /// after a reset it waits in the consoles. Takes as many consoles as there are places, and gives them back without the
    /// machine's ports.
    pub fn run(self, consoles: Vec<Console>) -> io::Result<Vec<Console>> {
        let (stopper, doorbell) = (Arc::clone(&self.stopper), Arc::clone(&self.doorbell));
        let drains: Vec<_> = self.consoles.iter().map(|place| Arc::clone(&place.drain)).collect();
        let reboots = self.reboots;
        for (drain, console) in drains.iter().zip(consoles) {
            drain.put(console);
        }
        // They may have something left of the machine before.
        doorbell.ring(Request::Serial);
        let mut manager = EventManager::new().map_err(other)?;
        let id = manager.add_subscriber(Serving { parts: self, impatient: false });
        while !stopper.is_stopped() {
            manager.run().map_err(other)?;
        }
        let serving = manager.subscriber_mut(id).map_err(other)?;
        (serving.parts.report)();
        drains.iter().for_each(|drain| drain.with(Console::finish));
        let goes_on = reboots && stopper.is_reset();
        doorbell.ring(Request::Serial);
        while !goes_on && manager.subscriber_mut(id).map_err(other)?.has_output_to_wait_for() {
            manager.run().map_err(other)?;
        }
        let mut serving = manager.remove_subscriber(id).map_err(other)?;
        let impatient = serving.impatient;
        if let Some(server) = &mut serving.parts.stats.server {
            // Their descriptors were watched by this loop.
            server.forget_all();
        }
        let mut consoles: Vec<_> = drains.iter().filter_map(|drain| drain.take()).collect();
        for console in &mut consoles {
            if !impatient && !goes_on {
                console.wait_until_read();
            }
            console.detach();
        }
        Ok(consoles)
    }
}

/// The machine's figures, and who is shown them.
pub struct Stats<'a> {
    /// Where they are.
    pub books: Books,
    /// Writes them to the file of `--stats`.
    pub write: Option<Arc<Work>>,
    /// The socket at which anybody may ask for them; kept over resets.
    pub server: Option<&'a mut Server>,
}

/// The loop while it runs.
struct Serving<'a> {
    parts: MainLoop<'a>,
    /// The user has asked for the end: what can't be written at once is lost.
    impatient: bool,
}

impl Serving<'_> {
    fn has_output_to_wait_for(&mut self) -> bool {
        let impatient = self.impatient;
        let has_output = |console: &mut Console| {
            if impatient {
                while console.serve() {}
                return false;
            }
            console.has_output()
        };
        // Each is asked: who is impatient writes what can be written of all.
        self.parts.consoles.iter().filter(|place| place.drain.with(has_output)).count() > 0
    }

    /// Has all consoles' bytes moved: in a top half.
    fn run_consoles(&self) {
        self.parts.consoles.iter().for_each(|place| (place.run_soon)());
    }

    /// The timer has gone off: the main loop's own timers run when this is over, a vCPU is told of its own.
    fn expire_due(&self) {
        let due = self.parts.deadlines.take_due(sys::clock::monotonic_ns());
        let owner = &self.parts.owner;
        let own = owner.cpu().index();
        owner.top_half(|top| {
            for vcpu in (0..own).filter(|vcpu| due & 1 << vcpu != 0) {
                self.parts.processors.deferred(vcpu);
            }
            if due & 1 << own != 0 {
                owner.expire(top);
            }
        });
        self.parts.deadlines.settle();
    }

    fn answer_doorbell(&mut self) {
        let requests = self.parts.owner.top_half(|_top| {
            let requests = self.parts.doorbell.take();
            if requests.contains(Request::Serial) {
                self.run_consoles();
            }
            requests
        });
        if requests.contains(Request::Dump) {
            for line in (self.parts.commands)("vcpu").text.lines() {
                log::warn!("{line}");
            }
        }
    }

    /// The user asks for the end.
    fn end(&mut self, reason: StopReason) {
        self.impatient = true;
        self.parts.stopper.stop(reason);
    }

    fn ring_guest_doorbells(&self) {
        self.parts.owner.top_half(|top| self.parts.guest_doorbells.iter().for_each(|doorbells| doorbells.serve(top)));
    }

    fn take_signals(&mut self) {
        // The power button's device.
        let held = self.parts.processors.hold_kicks();
        let mut resized = false;
        loop {
            match self.parts.signals.read() {
                Ok(Some(sys::signal::Signal::User1)) => {
                    (self.parts.report)();
                    self.write_stats();
                }
                Ok(Some(sys::signal::Signal::Power)) => self.parts.power_button.press(),
                Ok(Some(sys::signal::Signal::Window)) => resized = true,
                Ok(Some(signal)) => self.end(StopReason::Signal(signal)),
                Ok(None) => break,
                Err(e) => {
                    log::error!("signals can't be read: {e}");
                    break;
                }
            }
        }
        drop(held);
        if resized {
            // May wait for who has a console: with no kick owed.
            self.parts.consoles.iter().for_each(|place| place.drain.with(Console::tell_size));
        }
    }

    /// Has the statistics written, where that may block.
    fn write_stats(&self) {
        if let Some(work) = &self.parts.stats.write {
            // One that is still queued does for both; at the end nothing is queued any more.
            let _ = work.queue();
        }
    }

    /// Somebody wants to see the machine's figures.
    fn answer_clients(&mut self, ops: &mut EventOps<'_>) {
        let Stats { server, books, .. } = &mut self.parts.stats;
        let Some(server) = server else { return };
        for fd in server.accept(|| books.snapshot(Moment::Running).to_line()) {
            if let Err(e) = ops.add(Events::with_data_raw(fd, CLIENT, EventSet::OUT)) {
                log::debug!("a client of the statistics: {e}");
                server.forget(fd);
            }
        }
    }

    fn answer_slow_client(&mut self, events: &Events, ops: &mut EventOps<'_>) {
        let Some(server) = &mut self.parts.stats.server else { return };
        let fd = events.fd();
        if server.send_more(fd) {
            if let Err(e) = ops.remove(Events::empty_raw(fd)) {
                log::debug!("a client of the statistics: {e}");
            }
            server.forget(fd);
        }
    }

    /// What a console does when one of its descriptors is ready. Not in a top half: a command of the monitor may wait for
    /// a vCPU, with the console held.
    fn take_console_event(&mut self, event: u32) {
        let Self { parts: MainLoop { consoles, commands, .. }, .. } = self;
        let (index, place) = console_event(event);
        let Some(ConsolePlace { drain, .. }) = consoles.get(index) else { return };
        let quit = drain.with(|console| match place {
            Place::Input => console.read_input(commands),
            Place::Arrival => {
                console.arrive();
                false
            }
            Place::Output => false,
        });
        if quit {
            self.end(StopReason::Quit);
        }
        self.parts.owner.top_half(|_top| (self.parts.consoles[index].run_soon)());
    }

    /// Watches the consoles' descriptors just while they want something of them.
    fn watch(&mut self, ops: &mut EventOps<'_>) {
        for (index, ConsolePlace { drain, .. }) in self.parts.consoles.iter().enumerate() {
            Self::watch_console(index, drain, ops);
        }
    }

    fn watch_console(index: usize, drain: &Drain, ops: &mut EventOps<'_>) {
        for change in drain.with(Console::watch_changes) {
            let set = match change.to {
                Some(Interest::Read) => EventSet::IN,
                Some(Interest::Write) => EventSet::OUT,
                // Always told.
                Some(Interest::HangUp) | None => EventSet::empty(),
            };
            let events = Events::with_data_raw(change.fd, event_of_console(index, change.place), set);
            let result = match (change.from, change.to) {
                (None, _) => ops.add(events),
                (Some(_), Some(_)) => ops.modify(events),
                (Some(_), None) => ops.remove(events),
            };
            if let Err(e) = result {
                log::debug!("console descriptor {}: {e}", change.fd);
                if change.to.is_some() {
                    drain.with(|console| console.cannot_watch(change.place));
                }
            }
        }
    }
}

impl MutEventSubscriber for Serving<'_> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let fixed = [
            (self.parts.deadlines.as_raw_fd(), ALARM),
            (self.parts.doorbell.as_raw_fd(), DOORBELL),
            (self.parts.signals.as_raw_fd(), SIGNAL),
        ];
        let guest = self.parts.guest_doorbells.as_ref().map(|doorbells| (doorbells.as_raw_fd(), GUEST));
        let server = self.parts.stats.server.as_ref().map(|server| (server.as_raw_fd(), SERVER));
        for (fd, data) in fixed.into_iter().chain(guest).chain(server) {
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
            DOORBELL => self.answer_doorbell(),
            SIGNAL => self.take_signals(),
            GUEST => self.ring_guest_doorbells(),
            SERVER => self.answer_clients(ops),
            CLIENT => self.answer_slow_client(&events, ops),
            event => self.take_console_event(event),
        }
        self.parts.inline.iter().for_each(|inline| inline.run());
        self.watch(ops);
    }
}

/// The places of a console in the order of their events.
const PLACES: [Place; 3] = [Place::Input, Place::Output, Place::Arrival];

fn event_of_console(index: usize, place: Place) -> u32 {
    CONSOLES + index as u32 * PLACES.len() as u32 + place as u32
}

/// Which console, and which of its descriptors.
fn console_event(event: u32) -> (usize, Place) {
    let event = event.saturating_sub(CONSOLES) as usize;
    (event / PLACES.len(), PLACES[event % PLACES.len()])
}

fn other(e: event_manager::Error) -> io::Error {
    io::Error::other(e.to_string())
}
