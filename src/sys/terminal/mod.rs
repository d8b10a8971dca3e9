//! The user's terminal: raw mode that is always taken back, and standard streams that can be used without blocking.
//!
//! Follows termios(3) and ioctl_tty(2). Not modelled: job control of our own.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::check;

#[cfg(test)]
mod tests;

struct Saved {
    fd: RawFd,
    original: libc::termios,
}

/// What to go back to; null while no terminal is raw. Its boxes are never freed, because a signal handler may be
/// reading one: a few bytes for each time that raw mode is entered.
static SAVED: AtomicPtr<Saved> = AtomicPtr::new(ptr::null_mut());

/// A terminal is raw for as long as this lives: every key goes to the guest, Ctrl-C included. Output processing
/// stays on, so that our own log lines do not run down the screen like stairs.
#[derive(Debug)]
#[must_use = "dropping it takes raw mode back"]
pub struct RawMode(());

impl RawMode {
    /// Makes the terminal `fd` raw. `None` if `fd` is no terminal, or is one that this process may not change because
    /// it runs in the background. Fails with `AlreadyExists` while another terminal is raw.
    pub fn enter(fd: &impl AsFd) -> io::Result<Option<Self>> {
        let fd = fd.as_fd().as_raw_fd();
        let mut termios = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: `fd` is open for the time of this call; `termios` is read only after tcgetattr has filled it in.
        let original = unsafe {
            if libc::isatty(fd) == 0 || libc::tcgetpgrp(fd) != libc::getpgrp() {
                return Ok(None);
            }
            check(libc::tcgetattr(fd, termios.as_mut_ptr()))?;
            termios.assume_init()
        };
        let mut raw = original;
        // SAFETY: `raw` is a valid termios.
        unsafe { libc::cfmakeraw(&mut raw) };
        raw.c_oflag = original.c_oflag;

        let saved = Box::into_raw(Box::new(Saved { fd, original }));
        if SAVED.compare_exchange(ptr::null_mut(), saved, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a terminal is in raw mode already"));
        }
        let guard = Self(());
        // SAFETY: `raw` is a valid termios, `fd` is open.
        check(unsafe { libc::tcsetattr(fd, libc::TCSANOW, &raw) })?;
        Ok(Some(guard))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore_now();
    }
}

/// Takes raw mode back if some terminal is in it; else does nothing. Async-signal-safe, and callable from a panic hook
/// and from any thread, any number of times.
pub fn restore_now() {
    let saved = SAVED.swap(ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: the pointer is null or came from Box::into_raw in `enter` and is never freed.
    if let Some(saved) = unsafe { saved.as_ref() } {
        // SAFETY: `original` is what tcgetattr gave. If `fd` has been closed since, the call fails and changes nothing.
        unsafe { libc::tcsetattr(saved.fd, libc::TCSANOW, &saved.original) };
    }
}

/// Has every panic of this program, of whatever thread, take raw mode back before it says anything.
pub fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let say = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore_now();
            say(panic);
        }));
    });
}

/// The size of a terminal in characters; both are 0 where nobody has said what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The size of the terminal `fd`, either side of a pseudo-terminal included; `None` if it is no terminal. Never blocks.
pub fn size(fd: &impl AsFd) -> Option<Size> {
    let mut size = MaybeUninit::<libc::winsize>::uninit();
    // SAFETY: the descriptor is open; `size` is read only after TIOCGWINSZ has filled it in.
    let libc::winsize { ws_row: rows, ws_col: columns, .. } = unsafe {
        check(libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr())).ok()?;
        size.assume_init()
    };
    Some(Size { columns, rows })
}

/// Which way a stream is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Reading.
    Input,
    /// Writing.
    Output,
}

/// A standard stream of our own.
#[derive(Debug)]
pub enum Stream {
    /// Has its own open file description and never blocks; can be polled.
    NonBlocking(File),
    /// Shares the description with whoever gave us the stream, so its flags are left alone: may block. For regular
    /// files, /dev/null and sockets, and where /proc is missing.
    Shared(File),
}

impl Stream {
    /// The file, whichever it is.
    pub fn file(&self) -> &File {
        match self {
            Self::NonBlocking(file) | Self::Shared(file) => file,
        }
    }
}

/// Makes a file for output, or empties it. What is no regular file is opened so that it never blocks (a pipe that
/// nobody reads is an error) and no terminal becomes ours.
pub fn create_output(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Opens terminals and pipes a second time, non-blocking. Setting O_NONBLOCK on the stream itself would set it for the
/// shell too, and it would still be set after we have ended.
pub fn reopen(fd: &impl AsFd, direction: Direction) -> io::Result<Stream> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: isatty takes an integer; the descriptor is open.
    let tty = unsafe { libc::isatty(raw) } == 1;
    if !tty && !file.metadata()?.file_type().is_fifo() {
        return Ok(Stream::Shared(file));
    }
    let mut options = OpenOptions::new();
    match direction {
        Direction::Input => options.read(true),
        Direction::Output => options.write(true),
    };
    // O_NOCTTY: a session leader must not gain a controlling terminal by this.
    match options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(format!("/proc/self/fd/{raw}")) {
        Ok(own) => Ok(Stream::NonBlocking(own)),
        // No /proc, or a terminal of another user: use what we were given.
        Err(_) => Ok(Stream::Shared(file)),
    }
}
