//! The terminal while the screen is on it: its mode, its other screen, its keys and the signals.
//!
//! What is drawn goes to a buffer first, and from there to the terminal as far as it takes it, so that a terminal that nobody reads
//! does not keep the signals waiting. A frame that it has not taken is finished before the next is drawn.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::panic;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, window_size};
use ratatui::crossterm::{execute, queue};
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use vmm::poll::{self, Ready};
use vmm::terminal::{self, Direction, RawMode, Stream};
use vmm::{Error, Signal, SignalFd, StopReason};

use super::draw;
use super::find::{Finder, Found};
use super::keys::Keys;
use super::model::{Model, Reaction};

/// The size of a terminal that does not say it.
const SIZE: (u16, u16) = (80, 24);
/// How long the terminal gets at the end to take what puts it back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the standard streams are a terminal, for a screen and for keys.
///
/// # Errors
///
/// A usage error if not.
pub fn check() -> Result<(), Error> {
    for (is_terminal, name) in [(io::stdout().is_terminal(), "output"), (io::stdin().is_terminal(), "input")] {
        if !is_terminal {
            return Err(not_ours(&format!("standard {name} is not a terminal")));
        }
    }
    Ok(())
}

fn not_ours(what: &str) -> Error {
    Error::Usage(format!("{what}; start 'tophalf top' in the foreground of one, or give --once --json"))
}

/// Shows what `finder` finds every `interval`, `first` at once, until the user or a signal ends it.
///
/// # Errors
///
/// When this is not the foreground process of its terminal, or machines can't be looked for.
pub fn show(finder: &mut Finder, first: Found, interval: Duration) -> Result<StopReason, Error> {
    let mut signals = SignalFd::of(&Signal::OF_A_SCREEN).map_err(|e| Error::host("signals can't be taken over", e))?;
    let input = terminal::reopen(&io::stdin(), Direction::Input).map_err(failed)?;
    let mut screen = Screen::enter()?;
    let (mut model, mut keys) = (Model::default(), Keys::default());
    model.take(first);
    let mut next = Instant::now() + interval;
    let mut reaction = Some(Reaction::Draw);
    loop {
        if let Some(how) = reaction.filter(|_| screen.is_written()) {
            screen.draw(&model, how)?;
            reaction = None;
        }
        if screen.write().is_err() {
            return Ok(gone());
        }
        let output = if screen.is_written() { Ready::default() } else { Ready::OUTPUT };
        let of = [
            (signals.as_fd(), Ready::INPUT),
            (input.file().as_fd(), Ready::INPUT),
            (screen.output.file().as_fd(), output),
        ];
        let ready = poll::wait(&of, next.saturating_duration_since(Instant::now())).map_err(failed)?;
        while let Some(signal) = signals.read().map_err(failed)? {
            match signal {
                Signal::Window => reaction = Some(reaction.unwrap_or(Reaction::Draw)),
                signal => return Ok(StopReason::Signal(signal)),
            }
        }
        if ready[1].is_any() {
            let Some(bytes) = read(&input) else { return Ok(gone()) };
            for key in keys.take(&bytes) {
                log::debug!("key {key:?}");
                match (model.press(key), reaction) {
                    (Reaction::Quit, _) => return Ok(StopReason::Quit),
                    (Reaction::Draw, Some(Reaction::Repaint)) => {}
                    (pressed, _) => reaction = Some(pressed),
                }
            }
        }
        if Instant::now() >= next {
            model.take(finder.look().map_err(Error::Usage)?);
            next = Instant::now() + interval;
            reaction = Some(reaction.unwrap_or(Reaction::Draw));
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::host("the terminal fails", error)
}

/// The terminal has gone; the signal that tells of it may be meant for others only.
fn gone() -> StopReason {
    StopReason::Signal(Signal::HangUp)
}

/// What has been typed, nothing included; `None` at the end.
fn read(input: &Stream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 256];
    match input.file().read(&mut bytes) {
        Ok(0) => None,
        Ok(count) => {
            bytes.truncate(count);
            Some(bytes)
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Some(Vec::new()),
        Err(_) => None,
    }
}

/// What is to be written; shared with the back end, which gives no way to what it writes to.
#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal is in raw mode and shows its other screen for as long as this lives.
struct Screen {
    terminal: Terminal<CrosstermBackend<Buffer>>,
    buffer: Buffer,
    output: Stream,
    size: Rect,
    _raw: RawMode,
}

impl Screen {
    fn enter() -> Result<Self, Error> {
        let output = terminal::reopen(&io::stdout(), Direction::Output).map_err(failed)?;
        terminal::restore_on_panic();
        let raw = RawMode::enter(&io::stdin()).map_err(failed)?;
        let raw = raw.ok_or_else(|| not_ours("this is not the foreground process of its terminal"))?;
        let mut buffer = Buffer::default();
        let size = size();
        let options = TerminalOptions { viewport: Viewport::Fixed(size) };
        let terminal = Terminal::with_options(CrosstermBackend::new(buffer.clone()), options).map_err(failed)?;
        queue!(buffer, EnterAlternateScreen).map_err(failed)?;
        leave_on_panic();
        let mut screen = Self { terminal, buffer, output, size, _raw: raw };
        screen.terminal.hide_cursor().map_err(failed)?;
        Ok(screen)
    }

    fn draw(&mut self, model: &Model, how: Reaction) -> Result<(), Error> {
        let size = size();
        if size != self.size || how == Reaction::Repaint {
            self.size = size;
            self.terminal.resize(size).map_err(failed)?;
        }
        self.terminal.draw(|frame| draw::draw(frame, model)).map(drop).map_err(failed)
    }

    fn is_written(&self) -> bool {
        self.buffer.0.borrow().is_empty()
    }

    /// Writes what the terminal takes; the error is that there is none any more.
    fn write(&mut self) -> io::Result<()> {
        let mut left = self.buffer.0.borrow_mut();
        while !left.is_empty() {
            match self.output.file().write(&left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(left.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all, as long as there is a terminal that takes it.
    fn finish(&mut self) -> io::Result<()> {
        queue!(self.buffer, LeaveAlternateScreen, Show)?;
        let end = Instant::now() + PATIENCE;
        self.write()?;
        while !self.is_written() && Instant::now() < end {
            poll::wait(&[(self.output.file().as_fd(), Ready::OUTPUT)], end.saturating_duration_since(Instant::now()))?;
            self.write()?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The panic's hook has left it, and what it has said would be overwritten.
        if !thread::panicking() {
            let _ = panic::take_hook();
            // A terminal that has gone shows nothing.
            let _ = self.finish();
        }
    }
}

/// Has a panic leave the other screen, too, before it says anything.
fn leave_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        // Whoever can't be written to reads nothing either.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        say(panic);
    }));
}

fn size() -> Rect {
    let (width, height) = window_size().map_or((0, 0), |size| (size.columns, size.rows));
    let or = |size: u16, default: u16| if size == 0 { default } else { size };
    Rect::new(0, 0, or(width, SIZE.0), or(height, SIZE.1))
}
