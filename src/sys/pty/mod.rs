//! A pseudo-terminal of ours for somebody else to open: pty(7), and inotify(7) to hear of it.
//!
//! Not modelled: packet mode. The size of its window is [`crate::terminal::size`] of the controlling side; Linux tells that side of no
//! change, not in packet mode either.

use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::check;
use crate::poll::{Ready, ready};

#[cfg(test)]
mod tests;

/// How often [`Pty::drain`] looks.
const LOOK: Duration = Duration::from_millis(5);

/// The controlling side of a pseudo-terminal whose other side is in raw mode, and the news of who opens or closes that.
#[derive(Debug)]
pub struct Pty {
    master: File,
    path: PathBuf,
    news: File,
}

impl Pty {
    /// Makes one. Nobody has it open but us.
    pub fn open() -> io::Result<Self> {
        let options = |path: &Path| {
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        };
        let master = options(Path::new("/dev/ptmx"))?;
        let path = unlock(&master)?;
        // Closed again at once: from here on the controlling side tells whether anybody has it open.
        make_raw(&options(&path)?)?;
        let news = watch(&path)?;
        Ok(Self { master, path, news })
    }

    /// The controlling side, non-blocking.
    pub fn master(&self) -> &File {
        &self.master
    }

    /// What to open to be at the other side.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Becomes readable when somebody opens or closes the other side.
    pub fn news(&self) -> RawFd {
        self.news.as_raw_fd()
    }

    /// Takes the news, of which there may be none; what they mean [`Pty::has_client`] tells.
    pub fn take_news(&mut self) {
        let mut events = [0; 4096];
        while let Ok(1..) = self.news.read(&mut events) {}
    }

    /// Somebody has the other side open.
    pub fn has_client(&self) -> bool {
        !ready(&self.master).contains(Ready::HANG_UP)
    }

    /// Waits until the other side has read everything, as long as somebody has it open, for `limit` at most: closing the
    /// controlling side would throw the rest away.
    pub fn drain(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.has_client() && Instant::now() < end {
            // To be looked at from the other side, where opening it would count as somebody's, so only for a moment.
            let Ok(other) =
                OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&self.path)
            else {
                return;
            };
            if !ready(&other).contains(Ready::INPUT) {
                return;
            }
            drop(other);
            std::thread::sleep(LOOK);
        }
    }
}

/// Lets the other side be opened; gives its path.
fn unlock(master: &File) -> io::Result<PathBuf> {
    let mut name = [0u8; 64];
    // SAFETY: the descriptor is open; ptsname_r writes at most as many bytes as it is told there are.
    unsafe {
        check(libc::grantpt(master.as_raw_fd()))?;
        check(libc::unlockpt(master.as_raw_fd()))?;
        match libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) {
            0 => {}
            e => return Err(io::Error::from_raw_os_error(e)),
        }
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Nothing is echoed, translated or turned into a signal.
fn make_raw(tty: &impl AsFd) -> io::Result<()> {
    let fd = tty.as_fd().as_raw_fd();
    let mut termios = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open; `termios` is read only after tcgetattr has filled it in.
    unsafe {
        check(libc::tcgetattr(fd, termios.as_mut_ptr()))?;
        let mut termios = termios.assume_init();
        libc::cfmakeraw(&mut termios);
        check(libc::tcsetattr(fd, libc::TCSANOW, &termios)).map(drop)
    }
}

fn watch(path: &Path) -> io::Result<File> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: inotify_init1 returns a new descriptor that the File then owns alone; the path is a C string.
    unsafe {
        let news = File::from_raw_fd(check(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC))?);
        check(libc::inotify_add_watch(news.as_raw_fd(), path.as_ptr(), libc::IN_OPEN | libc::IN_CLOSE))?;
        Ok(news)
    }
}
