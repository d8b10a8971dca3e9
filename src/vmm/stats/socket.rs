//! The socket at which a machine shows its figures to `tophalf top`: who connects gets one snapshot, and the end.
//!
//! Served by the main loop, which never waits here: what a client does not read at once is sent when it does. The socket is in a
//! folder that nobody else can enter, and goes when the [`Server`] does; one left behind by a killed process refuses connections.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The most clients that have not read their snapshot yet.
const MOST_CLIENTS: usize = 16;

/// Machines of this process so far.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The folder of the sockets: in `$XDG_RUNTIME_DIR`, else one of this user under the temporary folder. It need not be there.
pub fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(runtime) => runtime.join("tophalf"),
        None => std::env::temp_dir().join(format!("tophalf-{}", sys::user::effective())),
    }
}

/// Whether `folder` is this user's alone.
///
/// # Errors
///
/// Why not, one line with the remedy; and when there is none.
pub fn check(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    let ours = found.is_dir() && found.uid() == sys::user::effective() && found.mode() & 0o077 == 0;
    let what = || {
        format!(
            "{} is not a folder that is yours alone (mode 0700); remove it, or set XDG_RUNTIME_DIR to one that is",
            folder.display()
        )
    };
    if ours { Ok(()) } else { Err(io::Error::new(io::ErrorKind::PermissionDenied, what())) }
}

/// A machine's socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    text: Vec<u8>,
    sent: usize,
}

impl Server {
    /// A new socket in `folder`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When the folder is not this user's alone, or the socket can't be made there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => check(folder)?,
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}.sock", std::process::id()));
        // Left behind by a process that had this number before.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let server = Self { listener, path, clients: Vec::new() };
        server.listener.set_nonblocking(true)?;
        Ok(server)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers those who have connected with what `text` gives; the descriptors of those who have not taken all of it, to be
    /// watched for room.
    pub fn accept(&mut self, text: impl Fn() -> Vec<u8>) -> Vec<RawFd> {
        let mut slow = Vec::new();
        // Nobody more, or no descriptor left: then the next event finds them.
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= MOST_CLIENTS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client { stream, text: text(), sent: 0 };
            if !client.send() {
                slow.push(client.stream.as_raw_fd());
                self.clients.push(client);
            }
        }
        slow
    }

    /// A client has room, or has gone. True: it needs no watching any more, and its descriptor is closed with the next
    /// [`Server::forget`].
    pub fn send_more(&mut self, fd: RawFd) -> bool {
        self.clients.iter_mut().find(|client| client.stream.as_raw_fd() == fd).is_none_or(Client::send)
    }

    /// Forgets a client.
    pub fn forget(&mut self, fd: RawFd) {
        self.clients.retain(|client| client.stream.as_raw_fd() != fd);
    }

    /// Forgets all clients.
    pub fn forget_all(&mut self) {
        self.clients.clear();
    }
}

impl Client {
    /// Sends what there is room for. True: that was all, or there is nobody any more.
    fn send(&mut self) -> bool {
        while self.sent < self.text.len() {
            match self.stream.write(&self.text[self.sent..]) {
                Ok(0) => return true,
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}
