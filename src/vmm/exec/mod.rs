//! `--exec`: a command in the guest, whose output and status are this program's.
//!
//! What the guest needs for it is put in front of its initramfs (or is its initramfs): an init of ours, and a static busybox where
//! the user gives no initramfs. The init runs the command and writes its output and status to the command port
//! ([`devices::command_port`]); so neither depends on the console, where the kernel may speak at any time.

mod archive;
mod busybox;
mod init;
mod streams;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

pub use streams::Streams;
use streams::Writer;

use crate::boot::DEFAULT_CMDLINE;
use crate::{Config, Error};

/// A command for the guest.
#[derive(Debug, Clone)]
pub struct Exec {
    /// What the guest's `/bin/sh -c` runs.
    pub command: String,
    /// The busybox to put into the guest; by default one is searched for in `path`. Only without an initrd.
    pub busybox: Option<PathBuf>,
    /// Folders to search for a busybox, as in `$PATH`.
    pub path: OsString,
}

/// The longest command in bytes: what Linux takes as one argument (MAX_ARG_STRLEN), less its NUL.
const MAX_COMMAND: usize = 128 * 1024 - 1;
/// Where our init is in the guest; nothing else is there.
const INIT: &str = ".tophalf/init";
/// What the kernel is told before the user's own words: to say nothing but its last words, to end when it panics, and
/// where our init is.
const WORDS: &str = "quiet loglevel=1 panic=-1 rdinit=/.tophalf/init";
/// Makes busybox's commands, and becomes the shell that runs the user's.
const INSTALL: &str = "/bin/busybox --install -s /bin && exec /bin/sh -c \"$0\"";

/// A command that is ready to be put into a guest, and the streams that its output goes to.
pub struct Command {
    /// What comes in front of the initramfs; a multiple of four bytes long.
    pub archive: Vec<u8>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Where the command port writes.
    pub streams: Arc<Streams>,
    writer: Option<Writer>,
}

impl Command {
    /// Makes the archive. `None` without `--exec`.
    pub fn prepare(config: &Config) -> Result<Option<Self>, Error> {
        let Some(exec) = &config.exec else { return Ok(None) };
        let archive = match &config.initrd {
            Some(_) => archive::layer(&init::program(&["sh", "-c", &exec.command])?),
            None => {
                let busybox = busybox::find(exec.busybox.as_deref(), &exec.path)?;
                archive::with_busybox(&init::program(&["sh", "-c", INSTALL, &exec.command])?, &busybox)
            }
        };
        let archive = archive.map_err(|e| Error::host("the initramfs for --exec can't be made", e))?;
        let users = config.cmdline.as_deref().unwrap_or(DEFAULT_CMDLINE);
        let streams = Arc::new(Streams::default());
        Ok(Some(Self { archive, cmdline: format!("{WORDS} {users}"), streams, writer: None }))
    }

    /// Starts the thread that writes the output; it inherits the blocked signals of the calling one.
    pub fn start_writing(&mut self) -> Result<(), Error> {
        let writer = Writer::start(&self.streams).map_err(|e| Error::host("no thread for the command's output", e))?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Waits until all output is written.
    pub fn finish(self) {
        self.streams.close();
        if let Some(writer) = self.writer {
            writer.wait();
        }
    }
}

/// Checks what can be wrong with a command by itself.
pub fn check(exec: &Exec, config: &Config) -> Result<(), Error> {
    let wrong = |what: &str| Err(Error::Usage(what.to_owned()));
    if exec.command.trim().is_empty() {
        return wrong("--exec has nothing to run; give a command for the guest's shell");
    }
    if exec.command.len() > MAX_COMMAND {
        return wrong(
            "--exec has more than 131071 bytes, the most that Linux takes; put a script into the initrd and run that",
        );
    }
    if exec.command.contains('\0') {
        return wrong("--exec has a NUL byte, which no command can have; leave it out");
    }
    if exec.busybox.is_some() && config.initrd.is_some() {
        return wrong("--busybox makes no sense beside --initrd, whose own shell runs the command; leave one out");
    }
    if config.cmdline.iter().flat_map(|words| words.split_whitespace()).any(|word| word.starts_with("rdinit=")) {
        return wrong("--cmdline has rdinit=, which --exec sets itself; leave it out");
    }
    Ok(())
}
