//! What a port is connected to: what the user writes, and how it is opened.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, IsTerminal};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sys::pty::Pty;
use sys::terminal::{Direction, RawMode, Stream, create_output, reopen};

use super::side::Side;
use crate::Error;

/// What the serial port, or a port of the virtio console, is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SerialTarget {
    /// The program's standard input and output.
    #[default]
    Stdio,
    /// The program's standard error, for output alone: the console of a guest whose command has the standard output. Not for
    /// users to write.
    Stderr,
    /// A file for its output, emptied first; there is no input.
    File(PathBuf),
    /// A pseudo-terminal, whose name is announced.
    Pty,
    /// A Unix-domain stream socket that listens; one client at a time.
    Socket(PathBuf),
    /// Nothing.
    Null,
}

impl FromStr for SerialTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text, "--serial")
    }
}

impl SerialTarget {
    /// What the user has given for `option`.
    pub fn parse(text: &str, option: &str) -> Result<Self, Error> {
        let with_path = |path: &str, make: fn(PathBuf) -> Self| match path {
            "" => Err(Error::Usage(format!("{option} {text} has no path; give one after the colon"))),
            path => Ok(make(path.into())),
        };
        match text.split_once(':') {
            Some(("file", path)) => with_path(path, Self::File),
            Some(("socket", path)) => with_path(path, Self::Socket),
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "pty" => Ok(Self::Pty),
            None if text == "null" => Ok(Self::Null),
            _ => Err(Error::Usage(format!(
                "{text:?} is nothing to connect a port to; give {option} stdio, file:PATH, pty, socket:PATH or null"
            ))),
        }
    }
}

impl fmt::Display for SerialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pty => f.write_str("pty"),
            Self::Socket(path) => write!(f, "socket:{}", path.display()),
            Self::Null => f.write_str("null"),
        }
    }
}

/// How the other end comes.
pub(super) enum Arrival {
    /// It was there from the start, or never; once gone, it does not come again.
    Never,
    /// By connecting.
    Socket(Listening),
    /// By opening the other side.
    Pty(Pty),
}

impl Arrival {
    /// The descriptor that tells of it.
    pub fn fd(&self) -> Option<RawFd> {
        match self {
            Self::Never => None,
            Self::Socket(socket) => Some(socket.listener.as_raw_fd()),
            Self::Pty(pty) => Some(pty.news()),
        }
    }
}

/// An open target.
pub(super) struct Opened {
    pub arrival: Arrival,
    pub input: Option<Side>,
    pub output: Option<Side>,
    /// The Ctrl-A keys are ours.
    pub keys: bool,
    /// The user sees what is written to the output.
    pub screen: bool,
    pub raw: Option<RawMode>,
}

impl Opened {
    pub(super) fn nothing() -> Self {
        Self { arrival: Arrival::Never, input: None, output: None, keys: false, screen: false, raw: None }
    }
}

impl SerialTarget {
    /// Opens it; a terminal on the standard input is raw as long as the result lives.
    pub(super) fn open(&self) -> Result<Opened, Error> {
        match self {
            Self::Stdio => stdio().map_err(|e| Error::host("the console can't be set up", e)),
            Self::Stderr => {
                let output = reopen(&io::stderr(), Direction::Output).map_err(|e| self.refuse(&e))?;
                Ok(Opened { output: side(output), ..Opened::nothing() })
            }
            Self::File(path) => {
                let file = create_output(path).map_err(|e| self.refuse(&e))?;
                Ok(Opened { output: Some(Side::new(file)), ..Opened::nothing() })
            }
            Self::Pty => {
                let pty = Pty::open().map_err(|e| self.refuse(&e))?;
                Ok(Opened { arrival: Arrival::Pty(pty), ..Opened::nothing() })
            }
            Self::Socket(path) => {
                let listening = Listening::at(path).map_err(|e| self.refuse(&e))?;
                Ok(Opened { arrival: Arrival::Socket(listening), ..Opened::nothing() })
            }
            Self::Null => Ok(Opened::nothing()),
        }
    }

    fn refuse(&self, error: &io::Error) -> Error {
        let remedy = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => "check the path",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "choose a place that this user may write to",
            ErrorKind::IsADirectory => "name a file in it",
            ErrorKind::AddrInUse => "something is there already; remove it or choose another path",
            ErrorKind::InvalidInput => "choose a shorter path",
            _ if matches!(self, Self::Pty) => "see that devpts is mounted on /dev/pts",
            _ => "choose another path",
        };
        Error::Usage(format!("{self} can't be opened for a port: {error}; {remedy}"))
    }
}

fn side(stream: Stream) -> Option<Side> {
    match stream {
        Stream::NonBlocking(file) | Stream::Shared(file) => Some(Side::new(file)),
    }
}

fn stdio() -> io::Result<Opened> {
    Ok(Opened {
        arrival: Arrival::Never,
        input: side(reopen(&io::stdin(), Direction::Input)?),
        output: side(reopen(&io::stdout(), Direction::Output)?),
        keys: io::stdin().is_terminal(),
        screen: io::stdout().is_terminal(),
        raw: RawMode::enter(&io::stdin())?,
    })
}

/// A listening socket; its file goes with it.
pub(super) struct Listening {
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode: the file is still ours.
    identity: Option<(u64, u64)>,
}

impl Listening {
    fn at(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(e) if e.kind() == ErrorKind::AddrInUse && is_left_over(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            result => result?,
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, identity: identity(path), path: path.to_owned() })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // If somebody else was quicker, so be it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// The socket of a program that has ended without removing it.
fn is_left_over(path: &Path) -> bool {
    let socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    socket && UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}
