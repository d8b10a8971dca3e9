//! What demo, test and lab need from Debian's packages, found or fetched, kept under `target/assets/`.
//!
//! Nothing is installed that can be unpacked instead: the kernel and busybox are downloaded and unpacked
//! without root. Only QEMU, mke2fs and, for one benchmark, two programs with many libraries are installed. Every part is unpacked into a temporary directory and renamed when
//! whole, under one lock file, so neither a concurrent run nor an interrupted one leaves half a part behind.

mod apt;
mod busybox;
mod debian;
mod disk;
mod guest;
mod installed;
mod kernel;
mod modules;
mod vmlinux;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use busybox::{applets, is_static};
pub use kernel::{Generic, Kernel};

use crate::{failure, workspace};

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

    /// Debian's generic kernel, which unlike the cloud kernel knows MP tables and the watchdog.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be fetched (exit code 4).
    pub fn generic_kernel(&self) -> Result<Generic> {
        let busybox = self.busybox()?;
        kernel::find_generic(self, &busybox)
    }

    /// The initramfs for guests with the generic kernel, `generic-initrd.cpio`: as [`Assets::guest_initrd`], with that kernel's modules in
    /// the folder `generic`.
    ///
    /// # Errors
    /// As [`Assets::guest_initrd`] and [`Assets::generic_kernel`].
    pub fn generic_initrd(&self) -> Result<PathBuf> {
        guest::generic_initrd(self)
    }

    /// The ELF kernel, unpacked from the bzImage of [`Assets::kernel`].
    ///
    /// # Errors
    /// When the kernel can't be had or unpacked (exit code 4).
    pub fn vmlinux(&self) -> Result<PathBuf> {
        let image = self.kernel()?.image;
        let path = image.display().to_string();
        let bzimage = fs::read(&image).with_context(|| format!("cannot read {path}"))?;
        let elf = vmlinux::unpack(&bzimage).map_err(|error| failure::host(format!("{path}: {error:#}")))?;
        self.file("vmlinux", &elf)
    }

    /// A statically linked busybox.
    ///
    /// # Errors
    /// When there is none and none can be fetched (exit code 4).
    pub fn busybox(&self) -> Result<PathBuf> {
        busybox::find(self)
    }

    /// An archive (tar) of a fresh Debian.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be made (exit code 4); only root can use one.
    pub fn debian_tree(&self) -> Result<PathBuf> {
        debian::find(self)
    }

    /// QEMU's x86 system emulator, installed if need be.
    ///
    /// # Errors
    /// When it is not installed and cannot be (exit code 4).
    pub fn qemu(&self) -> Result<PathBuf> {
        installed::find("qemu-system-x86_64", "qemu-system-x86")
    }

    /// cyclictest and perf, installed if need be: their names and where they are.
    ///
    /// # Errors
    /// When one is not installed and cannot be (exit code 4).
    pub fn latency_programs(&self) -> Result<[(&'static str, PathBuf); 2]> {
        let cyclictest = installed::find("cyclictest", "rt-tests")?;
        Ok([("cyclictest", cyclictest), ("perf", installed::find("perf", "linux-perf")?)])
    }

    /// mke2fs, which makes ext4 file systems, installed if need be.
    ///
    /// # Errors
    /// When it is not installed and cannot be (exit code 4).
    pub fn mke2fs(&self) -> Result<PathBuf> {
        installed::find("mke2fs", "e2fsprogs")
    }

    /// A disk image for guests, `disk.ext4`, with Debian's fio on it; not to be written.
    ///
    /// # Errors
    /// When something in it cannot be fetched or the file cannot be made (exit code 4).
    pub fn disk_image(&self) -> Result<PathBuf> {
        disk::image(self)
    }

    /// The initramfs for guests, `guest-initrd.cpio`; `guest-init.sh` says what it does.
    ///
    /// # Errors
    /// When busybox or the kernel is missing, or the file cannot be written.
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
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, contents: &[u8]) -> Result<PathBuf> {
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
