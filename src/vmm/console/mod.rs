//! A console: between a port of the guest, serial or virtio, and whatever the user has connected it to.
//!
//! Belongs to the main loop, which is the only one to watch descriptors; bottom halves that drain the port have it for that
//! time ([`crate::bottom_halves::Drain`]). Output is taken from the port only once it is written, input is read only while there is
//! room for it, and neither ever waits: the descriptors are our own non-blocking ones, watched while there is something
//! to do. When the other end closes, the guest goes on: its output is thrown away if nobody can come again; else the
//! latest of it waits for who comes next. While the monitor is open, output waits until it is closed.
//!
//! The port is told the size of a terminal: that of the standard output at the start and on SIGWINCH; that of a pseudo-terminal of ours
//! when somebody opens or closes it (as `stty -F` does), and with what is typed, since nothing tells its controlling side of a change.

mod keys;
mod port;
mod side;
mod target;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use sys::poll::{Ready, ready};
use sys::terminal::{RawMode, Size, size};

use crate::Error;
use keys::{Edit, Escape, Key, Line};
pub use port::Port;
pub use side::{Interest, Place, Watch};
use side::{Side, Watched};
pub use target::SerialTarget;
use target::{Arrival, Opened};

const HELP: &str = "\nCtrl-A x: quit; Ctrl-A c: monitor, and back; Ctrl-A Ctrl-A: send Ctrl-A; Ctrl-A h: this help\n";
const GREETING: &str = "\nMonitor of tophalf; the guest runs on. 'help' lists the commands, 'cont' goes back.\n";
const PROMPT: &str = "(tophalf) ";
/// Input held for a guest that does not read it yet; beyond this we stop reading.
const INPUT_HELD: usize = 64 << 10;
/// The same where the Ctrl-A keys are ours: we go on reading, to hear of them, and throw the rest away.
const TYPED_HELD: usize = 1 << 20;
/// The same of a client who has sent it and gone.
const LEFT_HELD: usize = 1 << 20;
/// Output held for somebody to come, for a reader who is slower than a reset, or for the monitor to be closed.
const OUTPUT_HELD: usize = 1 << 20;
/// What is said to the user and not yet on the screen.
const SPOKEN_HELD: usize = 64 << 10;
/// Written in one turn of the main loop, so that a flood leaves time for the other events.
const TURN: usize = 64 << 10;
/// One read or write.
const CHUNK: usize = 4096;
/// How long to wait at the end for somebody to read what is in a pseudo-terminal.
const LAST_READ: Duration = Duration::from_secs(2);

/// What the monitor answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Lines to show, each with its newline.
    pub text: String,
    /// What happens next.
    pub then: Then,
}

/// What happens after a command of the monitor.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It takes the next one.
    #[default]
    Stay,
    /// It closes: what is typed is the guest's again.
    Close,
    /// The program ends.
    Quit,
}

/// Executes the monitor's commands.
pub type Commands<'a> = dyn FnMut(&str) -> Reply + 'a;

/// The console.
pub struct Console {
    port: Port,
    arrival: Arrival,
    /// Whether [`Arrival`]'s descriptor is watched.
    arrivals: Watched,
    input: Option<Side>,
    output: Option<Side>,
    /// No longer used; closed only when the main loop watches them no more, so that their numbers can't come to mean
    /// other files before.
    retired: Vec<(Place, Side)>,
    /// Read, not yet taken by the port.
    held: VecDeque<u8>,
    /// Taken from the port, not yet written.
    waiting: VecDeque<u8>,
    /// What we say to the user; goes before the guest's output.
    spoken: VecDeque<u8>,
    /// The output would have blocked.
    blocked: bool,
    /// The Ctrl-A keys are ours.
    escape: Option<Escape>,
    /// The user sees the output.
    screen: bool,
    /// What the port was told of the terminal's size.
    size: Size,
    /// The line that is typed while the monitor is open.
    monitor: Option<Line>,
    /// The machine has stopped.
    finishing: bool,
    /// Keeps the terminal raw; restores it when dropped.
    _raw: Option<RawMode>,
}

impl Console {
    /// Opens `target` for the port that the user knows by `name`. On the standard streams: raw mode and the Ctrl-A keys if the
    /// input is a terminal. `announce` is called with a line that the user has to know, if there is one.
    pub fn open(target: &SerialTarget, name: &str, port: Port, announce: impl FnOnce(&str)) -> Result<Self, Error> {
        let opened = target.open()?;
        if let Arrival::Pty(pty) = &opened.arrival {
            announce(&format!("{name} is at {}", pty.path().display()));
        }
        let mut console = Self::new(port, opened);
        console.tell_size();
        Ok(console)
    }

    fn new(port: Port, opened: Opened) -> Self {
        Self {
            port,
            arrival: opened.arrival,
            arrivals: Watched::default(),
            input: opened.input,
            output: opened.output,
            retired: Vec::new(),
            held: VecDeque::new(),
            waiting: VecDeque::new(),
            spoken: VecDeque::new(),
            blocked: false,
            escape: opened.keys.then(Escape::default),
            screen: opened.screen,
            size: Size::default(),
            monitor: None,
            finishing: false,
            _raw: opened.raw,
        }
    }

    /// A console on these files, which had better not block, with the Ctrl-A keys.
    #[cfg(test)]
    pub fn on_files(port: Port, input: File, output: File) -> Self {
        let (input, output) = (Some(Side::new(input)), Some(Side::new(output)));
        Self::new(port, Opened { input, output, keys: true, screen: true, ..Opened::nothing() })
    }

    /// Goes on with the port of a rebooted machine, on a main loop that watches nothing yet.
    pub fn attach(&mut self, port: Port) {
        self.port = port;
        self.size = Size::default();
        self.tell_size();
        self.blocked = false;
        self.finishing = false;
        self.arrivals.forget();
        self.retired.clear();
        for side in self.input.iter_mut().chain(&mut self.output) {
            side.watched.forget();
        }
    }

    /// Gives up the port of a machine that has ended: behind its lines are the controllers, and behind those all of the
    /// machine, memory too, which must be gone when the next one is made. What
    /// it has sent waits here, the latest of it at least.
    pub fn detach(&mut self) {
        for _ in 0..TURN / CHUNK {
            self.keep(CHUNK);
        }
        self.hold_the_latest();
        self.port = Port::default();
    }

    /// Tells the port the size of the terminal that it is connected to, if there is one and it has another size now.
    pub fn tell_size(&mut self) {
        let now = match (&self.arrival, &self.output) {
            (Arrival::Pty(pty), _) => size(pty.master()),
            (Arrival::Never, Some(output)) if self.screen => size(&output.file),
            _ => None,
        };
        if let Some(now) = now.filter(|&now| now != self.size) {
            self.size = now;
            self.port.with(|port| port.resize(now));
        }
    }

    /// Moves what can be moved, both ways. True: there is more output, and it would not block: call again soon.
    #[must_use]
    pub fn serve(&mut self) -> bool {
        if self.input.as_ref().is_some_and(|input| input.watched.never) {
            // A file is always readable: read it as fast as the guest takes it. It has no Ctrl-A keys.
            let _ = self.read_input(&mut |_| Reply::default());
        }
        self.look_for_the_end();
        self.feed();
        self.write_output(TURN)
    }

    /// Reads input once (a read that may block is not tried twice: the descriptor told of one); [`Console::serve`] gives
    /// it to the guest. True: the user asks to quit.
    #[must_use]
    pub fn read_input(&mut self, commands: &mut Commands) -> bool {
        if !self.wants_input() {
            return false;
        }
        let Some(input) = &mut self.input else { return false };
        let mut buffer = [0; CHUNK];
        let mut quit = false;
        match input.file.read(&mut buffer) {
            Ok(0) => self.end_input(),
            Ok(count) => {
                if matches!(self.arrival, Arrival::Pty(_)) {
                    self.tell_size();
                }
                quit = self.take_keys(&buffer[..count], commands);
            }
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => {
                if matches!(self.arrival, Arrival::Never) {
                    log::warn!("console input ends: {e}");
                }
                self.end_input();
            }
        }
        quit
    }

    /// Somebody has come, or gone.
    pub fn arrive(&mut self) {
        let found = match &mut self.arrival {
            Arrival::Never => return,
            Arrival::Socket(_) if self.input.is_some() || self.output.is_some() => return,
            Arrival::Socket(socket) => socket.listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                let file = File::from(OwnedFd::from(stream));
                Ok((Some(file.try_clone()?), Some(file)))
            }),
            Arrival::Pty(pty) => {
                pty.take_news();
                // Who has gone already may have left something to read.
                let input = self.input.is_none().then(|| pty.master().try_clone()).transpose();
                let output = (self.output.is_none() && pty.has_client()).then(|| pty.master().try_clone()).transpose();
                input.and_then(|input| Ok((input, output?)))
            }
        };
        match found {
            Ok((input, output)) => {
                self.input = input.map(Side::new).or(self.input.take());
                self.output = output.map(Side::new).or(self.output.take());
                self.tell_size();
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
            Err(e) => {
                // It would be tried again at once, for ever.
                log::error!("nobody can come to the console any more: {e}");
                self.arrivals.never = true;
            }
        }
    }

    /// What changed since the last call in what is to be watched.
    pub fn watch_changes(&mut self) -> Vec<Watch> {
        let mut changes = Vec::new();
        self.retired.retain_mut(|(place, side)| {
            let change = side.want(*place, None);
            changes.extend(change);
            // Closed at the next call: by then nobody watches it.
            change.is_some()
        });
        let wanted = self.wanted();
        changes.extend(self.input.as_mut().and_then(|side| side.want(Place::Input, wanted.input)));
        changes.extend(self.output.as_mut().and_then(|side| side.want(Place::Output, wanted.output)));
        if let Some(fd) = self.arrival.fd() {
            changes.extend(self.arrivals.change(fd, Place::Arrival, wanted.arrival));
        }
        changes
    }

    /// Nothing has changed in what is to be watched.
    pub fn is_watched_right(&self) -> bool {
        let wanted = self.wanted();
        self.retired.is_empty()
            && self.input.as_ref().is_none_or(|side| side.watched.is(wanted.input))
            && self.output.as_ref().is_none_or(|side| side.watched.is(wanted.output))
            && self.arrivals.is(wanted.arrival)
    }

    fn wanted(&self) -> Wanted {
        let socket = matches!(self.arrival, Arrival::Socket(_));
        let input = match self.wants_input() {
            true => Some(Interest::Read),
            // Who has gone must make room for the next, though the guest does not take what they sent.
            false => socket.then_some(Interest::HangUp),
        };
        let half_closed = socket && self.input.is_none();
        let output = match self.blocked {
            true => Some(Interest::Write),
            false => half_closed.then_some(Interest::HangUp),
        };
        let arrival = match &self.arrival {
            Arrival::Never => false,
            Arrival::Socket(_) => self.input.is_none() && self.output.is_none(),
            Arrival::Pty(_) => true,
        };
        Wanted { input, output, arrival: arrival.then_some(Interest::Read) }
    }

    /// The descriptor can't be watched (a regular file): it never blocks, either.
    pub fn cannot_watch(&mut self, place: Place) {
        let watched = match place {
            Place::Input => self.input.as_mut().map(|side| &mut side.watched),
            Place::Output => self.output.as_mut().map(|side| &mut side.watched),
            Place::Arrival => Some(&mut self.arrivals),
        };
        if let Some(watched) = watched {
            watched.forget();
            watched.never = true;
        }
    }

    /// There is output that is not written yet, and somebody to write it to.
    pub fn has_output(&self) -> bool {
        let some =
            !self.spoken.is_empty() || !self.waiting.is_empty() || self.port.with(|serial| serial.output_len()) > 0;
        some && self.output.is_some()
    }

    /// The machine has stopped: the monitor is closed, so that what waits for that can be written.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.monitor = None;
    }

    /// The machine has stopped, and somebody waits for the last output.
    pub fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Everything is written: waits, if that is needed and for a short time, until it is read.
    pub fn wait_until_read(&self) {
        if let Arrival::Pty(pty) = &self.arrival {
            pty.drain(LAST_READ);
        }
    }

    fn wants_input(&self) -> bool {
        self.input.is_some() && (self.escape.is_some() || self.held.len() < INPUT_HELD)
    }

    fn take_keys(&mut self, bytes: &[u8], commands: &mut Commands) -> bool {
        let Some(mut escape) = self.escape.take() else {
            self.held.extend(bytes);
            return false;
        };
        let mut quit = false;
        for &byte in bytes {
            match escape.press(byte) {
                Key::Byte(byte) => quit |= self.take_byte(byte, commands),
                Key::Quit => quit = true,
                Key::Help => self.help(),
                Key::Monitor => self.toggle_monitor(),
                Key::None => {}
            }
        }
        self.escape = Some(escape);
        quit
    }

    /// A byte for the monitor, if that is open, or else for the guest. True: the user asks to quit.
    fn take_byte(&mut self, byte: u8, commands: &mut Commands) -> bool {
        let Some(line) = &mut self.monitor else {
            if self.held.len() < TYPED_HELD {
                self.held.push_back(byte);
            }
            return false;
        };
        match line.press(byte) {
            Edit::Show(text) => self.say(&text),
            Edit::Leave => self.toggle_monitor(),
            Edit::Line(line) => {
                self.say("\n");
                let reply = commands(&line);
                self.say(&reply.text);
                match reply.then {
                    Then::Stay => self.say(PROMPT),
                    Then::Close => self.monitor = None,
                    Then::Quit => return true,
                }
            }
        }
        false
    }

    fn help(&mut self) {
        self.say(HELP);
        if self.monitor.is_some() {
            self.say(PROMPT);
        }
    }

    fn toggle_monitor(&mut self) {
        if self.monitor.take().is_some() {
            self.say("\n");
        } else if !self.finishing {
            self.monitor = Some(Line::default());
            self.say(GREETING);
            self.say(PROMPT);
        }
    }

    /// Says something to the user, between the guest's output where that is on the user's screen. The terminal's output
    /// processing is on, in raw mode too: a newline is enough.
    fn say(&mut self, text: &str) {
        if !self.screen || self.output.is_none() {
            // Nobody to read it is no reason to fail.
            let _ = io::stderr().write_all(text.as_bytes());
        } else if self.spoken.len() + text.len() <= SPOKEN_HELD {
            self.spoken.extend(text.as_bytes());
        }
    }

    /// Gives the port as much of the held input as it takes.
    fn feed(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let input = self.held.make_contiguous();
        let taken = self.port.with(|serial| serial.push_input(input));
        self.held.drain(..taken);
    }

    /// The user sends no more.
    fn end_input(&mut self) {
        let gone = match (&self.arrival, &self.output) {
            (Arrival::Never, _) => false,
            // Who has only stopped writing may still read.
            (Arrival::Socket(_), Some(output)) => ready(&output.file).contains(Ready::HANG_UP),
            _ => true,
        };
        self.retire(Place::Input);
        if gone {
            self.retire(Place::Output);
        }
    }

    /// Notices who has gone without our reading or writing.
    fn look_for_the_end(&mut self) {
        let Some(output) = &self.output else { return };
        let gone = match &self.arrival {
            Arrival::Never => false,
            // Else a read comes to the end, after all that was sent.
            Arrival::Socket(_) => !self.wants_input() && ready(&output.file).contains(Ready::HANG_UP),
            Arrival::Pty(pty) => !pty.has_client(),
        };
        if gone {
            self.hang_up();
        }
    }

    /// The other end of the output is gone. The two sides of a socket go together, or nobody could come any more; first, as
    /// much of what was sent is read as we can hold.
    fn hang_up(&mut self) {
        self.retire(Place::Output);
        if !matches!(self.arrival, Arrival::Socket(_)) {
            return;
        }
        if let Some(input) = &mut self.input {
            let mut buffer = [0; CHUNK];
            while self.held.len() < LEFT_HELD
                && let Ok(count @ 1..) = input.file.read(&mut buffer)
            {
                self.held.extend(&buffer[..count]);
            }
        }
        self.retire(Place::Input);
    }

    fn retire(&mut self, place: Place) {
        let side = match place {
            Place::Input => self.input.take(),
            Place::Output => {
                self.spoken.clear();
                self.output.take()
            }
            Place::Arrival => None,
        };
        self.retired.extend(side.map(|side| (place, side)));
    }

    /// Moves up to `limit` bytes. True: there is more, and it would not block.
    fn write_output(&mut self, limit: usize) -> bool {
        self.blocked = false;
        let mut moved = 0;
        while moved < limit {
            match self.move_output() {
                Moved::Bytes(count) => moved += count,
                Moved::Nothing => return false,
                Moved::Blocked => {
                    self.blocked = true;
                    return false;
                }
            }
        }
        true
    }

    /// One step of the output.
    fn move_output(&mut self) -> Moved {
        let listening = self.output.is_some();
        if listening && !self.spoken.is_empty() {
            let (moved, count) = write(&mut self.output, self.spoken.make_contiguous());
            self.spoken.drain(..count);
            return self.after_write(moved);
        }
        if self.monitor.is_some() {
            return self.keep(OUTPUT_HELD - self.waiting.len());
        }
        if !listening && !matches!(self.arrival, Arrival::Never) {
            let moved = self.keep(CHUNK);
            self.hold_the_latest();
            return moved;
        }
        if !self.waiting.is_empty() {
            let (moved, count) = write(&mut self.output, self.waiting.make_contiguous());
            self.waiting.drain(..count);
            return self.after_write(moved);
        }
        let mut buffer = [0; CHUNK];
        let count = self.port.with(|serial| serial.peek_output(&mut buffer));
        if count == 0 {
            return Moved::Nothing;
        }
        let (moved, count) = write(&mut self.output, &buffer[..count]);
        self.port.with(|serial| serial.consume_output(count));
        self.after_write(moved)
    }

    /// Takes up to `room` bytes from the port into what waits.
    fn keep(&mut self, room: usize) -> Moved {
        let mut buffer = [0; CHUNK];
        let room = room.min(CHUNK);
        let count = self.port.with(|serial| {
            let count = serial.peek_output(&mut buffer[..room]);
            serial.consume_output(count);
            count
        });
        self.waiting.extend(&buffer[..count]);
        if count == 0 { Moved::Nothing } else { Moved::Bytes(count) }
    }

    fn hold_the_latest(&mut self) {
        let too_many = self.waiting.len().saturating_sub(OUTPUT_HELD);
        self.waiting.drain(..too_many);
    }

    fn after_write(&mut self, moved: Result<Moved, io::Error>) -> Moved {
        moved.unwrap_or_else(|e| {
            if matches!(self.arrival, Arrival::Never) {
                log::warn!("console output ends, the guest goes on: {e}");
            }
            self.hang_up();
            Moved::Bytes(0)
        })
    }
}

/// What is to be watched.
struct Wanted {
    input: Option<Interest>,
    output: Option<Interest>,
    arrival: Option<Interest>,
}

/// What became of a step of the output.
enum Moved {
    Bytes(usize),
    Nothing,
    Blocked,
}

/// Writes, or throws away where there is nobody; and how many bytes are gone.
fn write(output: &mut Option<Side>, bytes: &[u8]) -> (Result<Moved, io::Error>, usize) {
    let Some(output) = output else { return (Ok(Moved::Bytes(bytes.len())), bytes.len()) };
    match output.file.write(bytes) {
        Ok(count) => (Ok(Moved::Bytes(count)), count),
        Err(e) if e.kind() == ErrorKind::Interrupted => (Ok(Moved::Bytes(0)), 0),
        Err(e) if e.kind() == ErrorKind::WouldBlock => (Ok(Moved::Blocked), 0),
        Err(e) => (Err(e), 0),
    }
}
