//! Opening an input file, with the reasons why not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::{BootError, InputKind};

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

    /// The name as given.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The error for a failed read of this file.
    pub fn read_error(&self, cause: impl ToString) -> BootError {
        BootError::Read { what: self.what, path: self.path(), cause: cause.to_string() }
    }
}
