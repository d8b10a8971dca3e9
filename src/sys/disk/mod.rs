//! Disks: regular files and block devices, read and written at offsets, by several threads at once.
//!
//! What [`Disk::flush`] has returned from is on the disk. One that has failed says so for ever: the kernel reports a failed
//! write-back once, and a second fdatasync would succeed without what was lost (fsync(2), section "NOTES").
//!
//! Not modelled: other image formats, io_uring, resizing while it is used.

mod nowait;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check;

/// The unit of sizes and offsets.
const SECTOR: u32 = 512;
/// The block size that every disk's direct I/O can do.
const LARGEST_BLOCK: u32 = 4096;
/// Bytes of [`Disk::id`].
const ID_BYTES: usize = 20;
/// How much is written at once where the file can't be zeroed otherwise.
const ZEROES: usize = 64 << 10;

/// How a disk is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// It is not written.
    pub read_only: bool,
    /// The host's page cache is kept out of the way (O_DIRECT).
    pub direct: bool,
}

/// An open disk, which no other process that asks for the same lock uses at the same time.
#[derive(Debug)]
pub struct Disk {
    file: File,
    bytes: u64,
    block: u32,
    options: Options,
    id: Vec<u8>,
    /// A flush has failed.
    lost: AtomicBool,
}

impl Disk {
    /// Opens the file or block device.
    ///
    /// # Errors
    ///
    /// It can't be opened, is neither, is empty, or somebody else uses it. A message without the path.
    pub fn open(path: &Path, options: Options) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        open.read(true).write(!options.read_only);
        // Not O_NONBLOCK for ever: a FIFO would wait here for its other end.
        open.custom_flags(libc::O_NONBLOCK | if options.direct { libc::O_DIRECT } else { 0 });
        let mut file = open.open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::other("neither a regular file nor a block device"));
        }
        let locked = if options.read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "it is in use already, by another program or as another disk",
                ));
            }
            Err(TryLockError::Error(e)) => return Err(e),
            Ok(()) => {}
        }
        let bytes = file.seek(SeekFrom::End(0))? / u64::from(SECTOR) * u64::from(SECTOR);
        if bytes == 0 {
            return Err(io::Error::other("it has no sector of 512 bytes"));
        }
        let id = path.file_name().unwrap_or_default().as_encoded_bytes();
        let id = id[..id.len().min(ID_BYTES)].to_vec();
        let mut disk = Self { file, bytes, block: SECTOR, options, id, lost: AtomicBool::new(false) };
        if options.direct {
            disk.block = disk.direct_block()?;
        }
        Ok(disk)
    }

    /// Its size when it was opened, in bytes: whole sectors of 512.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Offsets and lengths must be multiples of this.
    pub fn block_size(&self) -> u32 {
        self.block
    }

    /// Whether it is not to be written.
    pub fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    /// Its file's name, up to 20 bytes of it.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Fills `data`; fails if the disk ends before. For direct I/O `data` is to be aligned to [`Disk::block_size`].
    pub fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    /// Writes all of `data`. For direct I/O it is to be aligned to [`Disk::block_size`].
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Waits until everything written so far would survive a loss of power.
    pub fn flush(&self) -> io::Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let result = if self.lost.load(Ordering::Acquire) {
            Err(io::Error::other("an earlier flush has failed, and what it lost is gone"))
        } else {
            self.file.sync_data()
        };
        if result.is_err() {
            self.lost.store(true, Ordering::Release);
        }
        result
    }

    /// Gives up the space of a range, if the file system or device can do that.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len) {
            // It is a hint.
            Err(e) if is_unsupported(&e) => Ok(()),
            result => result,
        }
    }

    /// Makes a range zeroes; with `unmap` its space may be given up.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        // A hole reads as zeroes, in a block device, too.
        let unmapped =
            unmap && self.allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len).is_ok();
        if unmapped {
            return Ok(());
        }
        match self.allocate(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, offset, len) {
            Err(e) if is_unsupported(&e) => self.write_zeroes_by_hand(offset, len),
            result => result,
        }
    }

    fn write_zeroes_by_hand(&self, mut offset: u64, len: u64) -> io::Result<()> {
        let memory = vec![0; ZEROES + LARGEST_BLOCK as usize];
        let zeroes = aligned(&memory, ZEROES);
        let end = offset.saturating_add(len);
        while offset < end {
            let part = (end - offset).min(ZEROES as u64);
            self.write_at(offset, &zeroes[..part as usize])?;
            offset += part;
        }
        Ok(())
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (offset, len) = (i64::try_from(offset).map_err(too_far)?, i64::try_from(len).map_err(too_far)?);
        // SAFETY: plain numbers, and a descriptor that `file` keeps open.
        check(unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) }).map(drop)
    }

    /// Direct I/O has its own idea of blocks; the kernel says it only by refusing smaller ones.
    fn direct_block(&self) -> io::Result<u32> {
        let mut memory = vec![0; 2 * LARGEST_BLOCK as usize];
        let start = memory.as_ptr().align_offset(LARGEST_BLOCK as usize);
        for block in [SECTOR, LARGEST_BLOCK] {
            if u64::from(block) > self.bytes {
                break;
            }
            match self.file.read_at(&mut memory[start..start + block as usize], 0) {
                Ok(_) => return Ok(block),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("direct I/O needs blocks of more than 4096 bytes"))
    }
}

/// `len` bytes of `memory` that start where direct I/O can have them.
fn aligned(memory: &[u8], len: usize) -> &[u8] {
    let start = memory.as_ptr().align_offset(LARGEST_BLOCK as usize);
    memory.get(start..start + len).unwrap_or(memory)
}

fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::ENOTTY))
}
