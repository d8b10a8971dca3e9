//! Opening an input file, with the reasons why not.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress};

use super::error::{BootError, InputKind};
use crate::memory::GuestRam;

#[cfg(test)]
mod tests;

/// A readable, regular, non-empty file.
#[derive(Debug)]
pub struct InputFile {
    what: InputKind,
    path: PathBuf,
    /// Positioned anywhere: its users seek.
    pub file: File,
    /// Size in bytes when it was opened.
    pub bytes: u64,
}

impl InputFile {
    /// Opens `path`.
    pub fn open(what: InputKind, path: &Path) -> Result<Self, BootError> {
        let owned = || path.to_owned();
        let open_error = |cause| BootError::Open { what, path: owned(), cause };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let kind = fs::metadata(path).map_err(open_error)?.file_type();
        if kind.is_dir() {
            return Err(BootError::Directory { what, path: owned() });
        }
        if !kind.is_file() {
            return Err(BootError::NotRegular { what, path: owned() });
        }
        let file = File::open(path).map_err(open_error)?;
        let bytes = file.metadata().map_err(open_error)?.len();
        if bytes == 0 {
            return Err(BootError::Empty { what, path: owned() });
        }
        Ok(Self { what, path: owned(), file, bytes })
    }

    /// The bytes from `offset` on, as many as there are but not more than `most`.
    pub fn read_at(&mut self, offset: u64, most: usize) -> Result<Vec<u8>, BootError> {
        let mut bytes = Vec::new();
        if offset >= self.bytes {
            return Ok(bytes);
        }
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| {
            let mut part = (&mut self.file).take(most as u64);
            part.read_to_end(&mut bytes)
        });
        read.map(|_| bytes).map_err(|cause| self.read_error(cause))
    }

    /// Copies `len` bytes from `offset` on to guest memory at `address`, where they were found to fit.
    pub fn copy_to(&mut self, ram: &GuestRam, offset: u64, len: u64, address: u64) -> Result<(), BootError> {
        self.file.seek(SeekFrom::Start(offset)).map_err(|cause| self.read_error(cause))?;
        // It lies below 4 GiB, so its length fits.
        ram.memory()
            .read_exact_volatile_from(GuestAddress(address), &mut self.file, len as usize)
            .map_err(|cause| self.read_error(cause))
    }

    /// Which file this is.
    pub fn what(&self) -> InputKind {
        self.what
    }

    /// The name as given.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The error for a failed read of this file.
    pub fn read_error(&self, cause: impl ToString) -> BootError {
        BootError::Read { what: self.what, path: self.path(), cause: cause.to_string() }
    }
}
