//! What demo, test and lab need from Debian's packages, found or fetched, kept under `target/assets/`.
//!
//! Nothing is installed that can be unpacked instead: the kernel and busybox are downloaded and unpacked
//! without root. Only QEMU is installed. Every part is unpacked into a temporary directory and renamed when
//! whole, under one lock file, so neither a concurrent run nor an interrupted one leaves half a part behind.

mod apt;
mod busybox;
mod guest;
mod kernel;
mod modules;
mod qemu;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use busybox::{applets, is_static};
pub use kernel::Kernel;

use crate::workspace;

/// The cache directory, with the lock held while parts are looked for or fetched.
pub struct Assets {
    directory: PathBuf,
    _lock: File,
}

impl Assets {
    /// Opens the cache; waits while another process fetches something.
    ///
    /// # Errors
    /// When the directory cannot be made or locked.
    pub fn open() -> Result<Self> {
        let directory = workspace::target().join("assets");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if lock.try_lock().is_err() {
            eprintln!("xtask: waiting for another xtask that is fetching packages");
            lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        let assets = Self { directory, _lock: lock };
        assets.sweep();
        Ok(assets)
    }

    /// Removes what a killed run left half made; with the lock held nobody else is making anything.
    fn sweep(&self) {
        let entries = self.directory.read_dir().into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')) {
            // What cannot be removed only takes space.
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }

    /// The Debian cloud kernel with its modules.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be fetched (exit code 4).
    pub fn kernel(&self) -> Result<Kernel> {
        let busybox = self.busybox()?;
        kernel::find(self, &busybox)
    }

    /// A statically linked busybox.
    ///
    /// # Errors
    /// When there is none and none can be fetched (exit code 4).
    pub fn busybox(&self) -> Result<PathBuf> {
        busybox::find(self)
    }

    /// QEMU's x86 system emulator, installed if need be.
    ///
    /// # Errors
    /// When it is not installed and cannot be (exit code 4).
    pub fn qemu(&self) -> Result<PathBuf> {
        qemu::find()
    }

    /// The initramfs for guests, `guest-initrd.cpio`; `guest-init.sh` says what it does.
    ///
    /// # Errors
    /// When busybox is missing or the file cannot be written.
    pub fn guest_initrd(&self) -> Result<PathBuf> {
        guest::initrd(self)
    }

    /// Makes the part `name` unless it is there: `make` fills a temporary directory that then gets the name.
    fn part(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if path.is_dir() {
            return Ok(path);
        }
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}-"))
            .tempdir_in(&self.directory)
            .context("cannot make a temporary directory")?;
        let filled = temporary.path().join("part");
        fs::create_dir(&filled).context("cannot make a temporary directory")?;
        make(&filled)?;
        fs::rename(&filled, &path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes the file `name` unless it has these contents already; a reader never sees half of it.
    fn file(&self, name: &str, contents: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if fs::read(&path).is_ok_and(|present| present == contents) {
            return Ok(path);
        }
        let temporary = tempfile::NamedTempFile::new_in(&self.directory).context("cannot make a temporary file")?;
        fs::write(temporary.path(), contents).with_context(|| format!("cannot write {}", path.display()))?;
        temporary.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests;
